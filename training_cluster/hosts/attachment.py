"""Where a run goes on, on one host or on many: the one file a controlling machine needs to re-attach.

Its place in the flow: whoever starts a run writes `runs/.launch/<run_id>/attachment.json` on the controlling
machine, the playbook or `LocalCluster`; `attached_run` reads it to look at the run, to stop it and to bring it
home, and the screen to show it. Losing it loses nothing: starting the run again finds it where it is.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Literal, Self

from pydantic import ValidationError, model_validator

from artifact_sync.canonical import FrozenModel
from artifact_sync.errors import TrainingError
from training_cluster.cluster import Spread
from training_cluster.hosts.ssh import SshHost, SshTransport


class AttachedHost(FrozenModel):
    """One host of a run; paths are the host's own, except `known_hosts` and `identity_file`.

    Attributes:
        name: the host's name in the inventory.
        connection: "local" when it is the controlling machine itself.
        index: which worker of the training it is; 0 is the chief, whose run folder becomes complete.
    """

    name: str
    connection: Literal["local", "ssh"]
    address: str = ""
    port: int = 22
    user: str = ""
    identity_file: Path | None = None
    known_hosts: Path | None = None
    python: str
    app_dir: PurePosixPath
    launch_dir: PurePosixPath
    run_dir: PurePosixPath
    index: int = 0

    def ssh(self, *, timeout_seconds: float = 15.0) -> SshTransport:
        """Return a transport to the host; it connects inside its `with` block.

        Raises:
            TrainingError: no file of pinned keys is given.
        """
        if self.known_hosts is None:
            raise TrainingError(
                f"Run {self.run_dir.name} is on {self.name} by SSH, and no known_hosts file is given. "
                "Set training_ssh_known_hosts in the inventory."
            )
        return SshTransport(
            SshHost(
                name=self.name,
                address=self.address,
                port=self.port,
                user=self.user,
                known_hosts=self.known_hosts,
                identity_file=self.identity_file,
                timeout_seconds=timeout_seconds,
            )
        )


class Attachment(FrozenModel):
    """A run with all its hosts; the fields beside `hosts` are the chief's.

    Attributes:
        spread: over what it was asked to be spread; going on with a run keeps to it unless it is asked otherwise.
        hosts: by index; a file that names none, as older ones, means the chief alone.
    """

    run_id: str
    spread: Spread = "host"
    host: str
    connection: Literal["local", "ssh"]
    address: str = ""
    port: int = 22
    user: str = ""
    identity_file: Path | None = None
    known_hosts: Path | None = None
    python: str
    app_dir: PurePosixPath
    launch_dir: PurePosixPath
    run_dir: PurePosixPath
    hosts: tuple[AttachedHost, ...] = ()

    @model_validator(mode="after")
    def _has_its_hosts(self) -> Self:
        if not self.hosts:
            fields = self.model_dump(exclude={"run_id", "spread", "host", "hosts"})
            object.__setattr__(self, "hosts", (AttachedHost(name=self.host, **fields),))
        if [host.index for host in self.hosts] != list(range(len(self.hosts))):
            raise ValueError("hosts must be listed by index, from 0")
        return self

    @classmethod
    def of(cls, run_id: str, hosts: tuple[AttachedHost, ...], *, spread: Spread = "host") -> Attachment:
        """Return the attachment of a run to `hosts`, the chief first."""
        fields = hosts[0].model_dump(exclude={"name", "index"})
        return cls(run_id=run_id, spread=spread, host=hosts[0].name, **fields, hosts=hosts)

    @classmethod
    def load(cls, path: Path) -> Attachment | None:
        """Return what the file says, or None when there is none.

        Raises:
            TrainingError: the file is malformed.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise TrainingError(
                f"{path} does not say where the run goes on ({error.error_count()} fields wrong). "
                "Remove it and start the run again: it is found where it is."
            ) from error

    @property
    def chief(self) -> AttachedHost:
        """The host whose run folder becomes complete."""
        return self.hosts[0]


def attachment_path(runs_dir: Path, run_id: str) -> Path:
    """Return where the controlling machine keeps a run's attachment."""
    return runs_dir / ".launch" / run_id / "attachment.json"
