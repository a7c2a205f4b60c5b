"""Signing with a key in ssh-agent: the private half never enters this process.

Its place in the flow: KeyReference opens it. The agent's signature of an ssh-ed25519 key is plain
Ed25519 over the bytes (draft-miller-ssh-agent, RFC 8709), so hosts verify it like any other.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from artifact_sync.errors import SettingsError
from artifact_sync.trust.keys import PublicKey

if TYPE_CHECKING:
    from paramiko.agent import Agent, AgentKey

_ALGORITHM = "ssh-ed25519"
MAX_PAYLOAD_BYTES = 200 * 1024
"""ssh-agent refuses messages over 256 KiB."""


class AgentSigner:
    """Signs as one named key that ssh-agent holds."""

    def __init__(self, public: PublicKey) -> None:
        self.public = public

    def __repr__(self) -> str:
        return f"AgentSigner(name={self.public.name!r})"

    def sign(self, payload: bytes) -> str:
        """Return the Ed25519 signature over `payload` in hex.

        Raises:
            SettingsError: there is no agent, it has not this key, or it (or its owner) declines.
        """
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise SettingsError(
                f"ssh-agent cannot sign {len(payload):,} bytes, at most {MAX_PAYLOAD_BYTES:,}. Use a key file."
            )
        from paramiko.message import Message
        from paramiko.ssh_exception import SSHException

        with _agent() as agent:
            key = next((key for key, raw in _ed25519_keys(agent) if raw == self.public.ed25519), None)
            if key is None:
                raise SettingsError(
                    f"ssh-agent does not hold the key of {self.public.name}, or cannot be reached. Add it with "
                    "`ssh-add`; `ssh-add -l` lists what it holds."
                )
            try:
                blob = Message(bytes(key.sign_ssh_data(payload)))
            except (SSHException, OSError) as error:
                raise SettingsError(f"ssh-agent declined to sign as {self.public.name} ({error}).") from None
        algorithm, signature = blob.get_text(), blob.get_binary()
        if algorithm != _ALGORITHM or len(signature) != 64:
            raise SettingsError(f"ssh-agent answered with a signature of kind {algorithm!r}, not {_ALGORITHM}.")
        return bytes(signature).hex()


def agent_keys() -> tuple[tuple[str, str], ...]:
    """Return (comment, public bytes in hex) of every Ed25519 key that the agent holds.

    Raises:
        SettingsError: there is no agent.
    """
    with _agent() as agent:
        return tuple((str(key.comment or ""), raw) for key, raw in _ed25519_keys(agent))


@contextmanager
def _agent() -> Iterator[Agent]:
    if not os.environ.get("SSH_AUTH_SOCK"):
        raise SettingsError(
            "There is no ssh-agent: SSH_AUTH_SOCK is not set. Start one and add the key with `ssh-add`."
        )
    try:
        from paramiko.agent import Agent
        from paramiko.ssh_exception import SSHException
    except ImportError:
        raise SettingsError("ssh-agent needs paramiko: `pip install 'liftgate[validation]'`.") from None
    try:
        agent = Agent()
    except (SSHException, OSError) as error:
        raise SettingsError(f"ssh-agent does not answer as an agent does ({error}). Look at SSH_AUTH_SOCK.") from None
    try:
        yield agent
    finally:
        agent.close()


def _ed25519_keys(agent: Agent) -> Iterator[tuple[AgentKey, str]]:
    from paramiko.message import Message

    for key in agent.get_keys():
        if key.get_name() == _ALGORITHM:
            blob = Message(key.asbytes())
            blob.get_text()
            yield key, bytes(blob.get_binary()).hex()
