"""One SSH connection to a training host: run a command, hear one, fetch a directory, reach a port.

Its place in the flow: `attachment` asks training hosts how a run stands and fetches the run folder through
here, `watch` hears what they say of themselves, `tensorboard` reaches a page there. Host keys are pinned:
only a key that the known_hosts file names is accepted, none is ever added. paramiko's errors become ours
here and nowhere else.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

import paramiko

from artifact_sync.errors import SettingsError, TrainingError
from artifact_sync.records import Manifest
from training_cluster.hosts.pinned_keys import RefuseUnknownKey, changed_key
from training_cluster.hosts.sftp_fetch import SftpFetch, append_rest, require_space

_SAID_BYTES = 65536
_KEEPALIVE_SECONDS = 15


@dataclass(frozen=True)
class SshHost:
    """Where a host is and how it is to be believed.

    Attributes:
        name: the host's name in the inventory, for messages.
        known_hosts: an OpenSSH known_hosts file that names the host's key; nothing else is trusted.
        identity_file: the private key; None asks the SSH agent.
    """

    name: str
    address: str
    port: int
    user: str
    known_hosts: Path
    identity_file: Path | None = None
    timeout_seconds: float = 15.0


@dataclass(frozen=True)
class CommandResult:
    """How a command on the host ended."""

    exit_code: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class RemoteFile:
    """A file on the host; `changed_at` is in seconds of its clock."""

    name: str
    size_bytes: int
    changed_at: int


class SshTransport:
    """A connection, open inside its `with` block."""

    def __init__(self, host: SshHost) -> None:
        self.host = host
        self._client = paramiko.SSHClient()

    def __enter__(self) -> Self:
        """Connect.

        Raises:
            TrustError: the host's key is not the pinned one, or none is pinned.
            TrainingError: the host cannot be reached or refuses the user.
        """
        try:
            self._connect()
        except BaseException:
            self._client.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect."""
        self.close()

    def close(self) -> None:
        """Disconnect, also from another thread than the one that waits for the host."""
        self._client.close()

    def run(self, command: Sequence[str], *, timeout_seconds: float = 60.0) -> CommandResult:
        """Run `command` on the host to its end; its words are quoted, no shell reads them.

        Raises:
            TrainingError: the connection broke, or the command said nothing for `timeout_seconds`.
        """
        with self._translated(f"run `{command[0]}`"):
            _, stdout, stderr = self._client.exec_command(shlex.join(command), timeout=timeout_seconds)
            said, complained = stdout.read(), stderr.read()
            code = stdout.channel.recv_exit_status()
        return CommandResult(code, said.decode(errors="replace"), complained.decode(errors="replace"))

    def stream(self, command: Sequence[str], *, silence_seconds: float = 30.0) -> Generator[str, None, None]:
        """Yield the lines that `command` prints on the host, until it ends or the caller closes the iterator.

        Its input ends with the connection: a command that reads it learns that nobody listens any more.

        Raises:
            TrainingError: the connection broke, nothing came for `silence_seconds`, or the command failed.
        """
        with self._translated(f"hear `{command[0]}`"):
            stdin, stdout, stderr = self._client.exec_command(shlex.join(command), timeout=silence_seconds)
            try:
                for line in stdout:
                    yield line.rstrip("\n")
                code = stdout.channel.recv_exit_status()
                said = stderr.read(_SAID_BYTES).decode(errors="replace").strip() if code else ""
            finally:
                stdin.channel.close()
        if code:
            raise TrainingError(
                f"Host {self.host.name}: `{' '.join(command[:4])} …` ended with exit code {code}: {said[-300:]}"
            )

    def dial(self, address: str, port: int) -> paramiko.Channel:
        """Return a connection from the host to a port that it can reach, its own loopback included.

        Raises:
            TrainingError: nothing listens there, or the host forbids it.
        """
        with self._translated(f"reach {address}:{port} from there"):
            transport = self._client.get_transport()
            if transport is None:
                raise paramiko.SSHException("not connected")
            return transport.open_channel("direct-tcpip", (address, port), ("127.0.0.1", 0), timeout=15.0)

    def fetch_directory(
        self,
        remote: PurePosixPath,
        local: Path,
        *,
        manifest: Manifest,
        last: str | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> int:
        """Bring the files of `manifest` from `remote` to `local` and return the bytes that were moved.

        Files that are there with the right digest are not moved again, and a file that was cut off goes
        on where it stopped. Every file is checked before it gets its name; `last` gets its name after all
        others. `progress` is called with (bytes done, bytes in all).

        Raises:
            CapacityError: the disk has no room for what is missing.
            IntegrityError: a file is not what the manifest says.
            TrainingError: the connection broke; calling again goes on.
        """
        with self._translated(f"fetch {remote}"), self._client.open_sftp() as sftp:
            fetch = SftpFetch(sftp, remote, local, host=self.host.name)
            return fetch.run(manifest, last=last, progress=progress)

    def list_files(self, folder: PurePosixPath) -> tuple[RemoteFile, ...]:
        """Return the files of a folder on the host; none when there is no such folder.

        Raises:
            TrainingError: the connection broke.
        """
        with self._translated(f"list {folder}"), self._client.open_sftp() as sftp:
            try:
                entries = sftp.listdir_attr(str(folder))
            except FileNotFoundError:
                return ()
        return tuple(RemoteFile(entry.filename, entry.st_size or 0, entry.st_mtime or 0) for entry in entries)

    def fetch_file(self, remote: PurePosixPath, partial: Path, *, size_bytes: int) -> bool:
        """Append to `partial` what it lacks of a file on the host; return False when that is gone.

        Raises:
            CapacityError: the disk has no room for it.
            TrainingError: the connection broke; calling again goes on.
        """
        have_bytes = partial.stat().st_size if partial.exists() else 0
        require_space(partial.parent, size_bytes - have_bytes)
        with self._translated(f"fetch {remote}"), self._client.open_sftp() as sftp:
            try:
                append_rest(sftp, remote, partial, size_bytes=size_bytes)
            except FileNotFoundError:
                return False
        return True

    def _connect(self) -> None:
        host = self.host
        try:
            self._client.load_host_keys(str(host.known_hosts))
        except OSError as error:
            raise SettingsError(
                f"Host {host.name}: the known_hosts file {host.known_hosts} cannot be read ({error.strerror}). "
                "Pin the host's key there: `ssh-keyscan` it, compare the fingerprint on the host's console, add it."
            ) from error
        self._client.set_missing_host_key_policy(RefuseUnknownKey(name=host.name, known_hosts=host.known_hosts))
        try:
            self._client.connect(
                host.address,
                port=host.port,
                username=host.user,
                key_filename=None if host.identity_file is None else str(host.identity_file),
                allow_agent=host.identity_file is None,
                look_for_keys=False,
                timeout=host.timeout_seconds,
                banner_timeout=host.timeout_seconds,
                auth_timeout=host.timeout_seconds,
            )
            self._keep_alive()
        except paramiko.BadHostKeyException as error:
            raise changed_key(error, name=host.name, known_hosts=host.known_hosts) from error
        except paramiko.AuthenticationException as error:
            raise TrainingError(
                f"Host {host.name} refuses user {host.user} ({error}). Put the public key of "
                f"{host.identity_file or 'the SSH agent'} into that user's authorized_keys on {host.address}."
            ) from error
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise TrainingError(
                f"Host {host.name} cannot be reached at {host.address}:{host.port} ({_cause(error)}). "
                "A training that runs there goes on without us; try again when the host answers."
            ) from error

    def _keep_alive(self) -> None:
        # A firewall forgets a connection over which nothing is said.
        transport = self._client.get_transport()
        if transport is not None:
            transport.set_keepalive(_KEEPALIVE_SECONDS)

    @contextmanager
    def _translated(self, act: str) -> Iterator[None]:
        try:
            yield
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise TrainingError(
                f"Host {self.host.name}: could not {act} ({_cause(error)}). Doing it again goes on where this stopped."
            ) from error


def _cause(error: BaseException) -> str:
    return str(error) or type(error).__name__
