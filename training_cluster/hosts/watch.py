"""Hear all hosts of a run at once: each says every few seconds how it stands, and what its log gained.

Its place in the flow: `liftgate train` opens a `RunWatch` over the run's attachment and draws what it knows
on the screen. Each host has a thread and a connection of its own, so one that does not answer is shown as
such and holds up nobody; it is asked again until the watch ends. Watching starts and changes nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import ValidationError

from artifact_sync.errors import LiftgateError, SettingsError, TrainingError, TrustError
from artifact_sync.run_folder import RunFolder
from training_cluster.hosts.attachment import AttachedHost
from training_cluster.hosts.host_report import HostReport, report
from training_cluster.hosts.launch_folder import LaunchFolder
from training_cluster.hosts.ssh import SshTransport

_EVERY_SECONDS = 2.0
_SILENT_SECONDS = 20.0
_AGAIN_SECONDS = 2.0
_LAST_SECONDS = 3.0


@dataclass(frozen=True)
class HostView:
    """What is known of one host of a run.

    Attributes:
        name: the host's name.
        report: the newest thing that it said; None before the first.
        heard_at: when that was, on this machine's monotonic clock.
        trouble: why it does not answer now, empty while it does.
        refusal: set when asking again is of no use: its key is not the pinned one, or a setting is wrong.
        last_line: the newest line of its log that is not a line of progress.
    """

    name: str
    report: HostReport | None = None
    heard_at: float = 0.0
    trouble: str = ""
    refusal: LiftgateError | None = None
    last_line: str = ""


@dataclass
class _Ear:
    """One host's thread, its connection, its newest view, and where its log is read on."""

    host: AttachedHost
    view: HostView
    log_offset: int | None = None
    thread: threading.Thread | None = None
    transport: SshTransport | None = None


class RunWatch:
    """The hosts of a run, heard inside the `with` block.

    Args:
        hosts: from the run's attachment, or one that stands for this machine.
        on_log: called with (host, line) for each line that a log gains, from several threads; the first few lines are
            those that are there already.
        every_seconds: how often a host speaks.
    """

    def __init__(
        self,
        hosts: Sequence[AttachedHost],
        *,
        on_log: Callable[[str, str], None] | None = None,
        every_seconds: float = _EVERY_SECONDS,
    ) -> None:
        self._ears = [_Ear(host, HostView(host.name)) for host in hosts]
        self._on_log = on_log
        self._every_seconds = every_seconds
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        """Begin to listen."""
        for ear in self._ears:
            ear.thread = threading.Thread(target=self._listen, args=(ear,), name=f"watch-{ear.host.name}", daemon=True)
            ear.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening; a host that hangs just now is not waited for."""
        self._ended.set()
        deadline = time.monotonic() + _LAST_SECONDS
        for ear in self._ears:
            if ear.transport is not None:
                ear.transport.close()
        for ear in self._ears:
            if ear.thread is not None:
                ear.thread.join(max(0.0, deadline - time.monotonic()))

    def views(self) -> tuple[HostView, ...]:
        """Return what is known of each host now, in the order of the hosts."""
        return tuple(ear.view for ear in self._ears)

    def _listen(self, ear: _Ear) -> None:
        while not self._ended.is_set():
            try:
                with closing(self._reports(ear)) as reports:
                    for said in reports:
                        self._note(ear, said)
                        if self._ended.is_set():
                            return
            except (TrustError, SettingsError) as error:
                ear.view = replace(ear.view, trouble=str(error), refusal=error)
                return
            except (LiftgateError, OSError) as error:
                ear.view = replace(ear.view, trouble=str(error))
            self._ended.wait(_AGAIN_SECONDS)

    def _reports(self, ear: _Ear) -> Generator[HostReport, None, None]:
        if ear.host.connection == "local":
            yield from self._own_reports(ear)
            return
        command = _command(ear.host, log_offset=ear.log_offset, every_seconds=self._every_seconds)
        with ear.host.ssh() as transport:
            ear.transport = transport
            silence_seconds = max(_SILENT_SECONDS, 5 * self._every_seconds)
            with closing(transport.stream(command, silence_seconds=silence_seconds)) as lines:
                yield from map(_parsed, lines)
        raise TrainingError(f"Host {ear.host.name} stopped saying how it stands.")

    def _own_reports(self, ear: _Ear) -> Generator[HostReport, None, None]:
        launch, run = LaunchFolder(Path(ear.host.launch_dir)), RunFolder(Path(ear.host.run_dir))
        while not self._ended.is_set():
            yield report(launch, run, index=ear.host.index, log_offset=ear.log_offset)
            self._ended.wait(self._every_seconds)

    def _note(self, ear: _Ear, said: HostReport) -> None:
        # The lines first: whoever sees that the run has ended stops looking.
        if self._on_log is not None:
            for line in said.log:
                self._on_log(ear.host.name, line)
        words = [line for line in said.log if not line.startswith('{"')]
        ear.log_offset = said.log_offset
        ear.view = HostView(
            name=ear.host.name,
            report=said,
            heard_at=time.monotonic(),
            last_line=words[-1] if words else ear.view.last_line,
        )


def _parsed(line: str) -> HostReport:
    try:
        return HostReport.model_validate_json(line)
    except ValidationError as error:
        raise TrainingError(f"A host said what is no report: {line[:200]!r}.") from error


def _command(host: AttachedHost, *, log_offset: int | None, every_seconds: float) -> list[str]:
    return [
        *["env", f"PYTHONPATH={host.app_dir}", host.python, "-m", "training_cluster.hosts.host_report"],
        *["--launch-dir", str(host.launch_dir), "--run-dir", str(host.run_dir), "--index", str(host.index)],
        *["--every-seconds", str(every_seconds)],
        *([] if log_offset is None else ["--log-offset", str(log_offset)]),
    ]
