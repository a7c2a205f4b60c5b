"""What is said when a host shows a key that is not the pinned one: whose, which, and how to find out which is right.

Its place in the flow: `ssh` connects with these. No key is ever added: that is a person's decision.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import paramiko

from artifact_sync.errors import TrustError


class RefuseUnknownKey(paramiko.MissingHostKeyPolicy):
    """Refuses a host of which no key is pinned.

    Args:
        name: the host's name in the inventory.
        known_hosts: the file with the pinned keys.
    """

    def __init__(self, *, name: str, known_hosts: Path) -> None:
        self._name = name
        self._known_hosts = known_hosts

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        """Refuse.

        Raises:
            TrustError: always; it names the key and the line that would pin it.
        """
        raise TrustError(
            f"Host {self._name} refused: its key is not pinned. {hostname} showed {key.get_name()} "
            f"{_fingerprint(key)}, and {self._known_hosts} has no line for it. Compare with "
            "`ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on the host's own console; when they are equal, add "
            f"this line to the file: {hostname} {key.get_name()} {key.get_base64()}"
        )


def changed_key(error: paramiko.BadHostKeyException, *, name: str, known_hosts: Path) -> TrustError:
    """Return the error of a host that shows another key than the pinned one."""
    return TrustError(
        f"Host {name} refused: {error.hostname} shows the key {_fingerprint(error.key)}, but "
        f"{_fingerprint(error.expected_key)} is pinned in {known_hosts}. Either the host was installed anew or "
        "somebody stands between. Ask who runs the host before you change the pinned line."
    )


def _fingerprint(key: paramiko.PKey) -> str:
    digest = hashlib.sha256(key.asbytes()).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")
