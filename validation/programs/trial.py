"""The trial: load a candidate behind walls, ask it about a few pictures, and see what else it does.

Its place in the flow: validate.py runs it after the scan and before the throw-away server. The scan reads what a
model can do; the trial sees what it does: hang, eat memory, crash, write files, start processes, open connections,
answer in another form than its contract says.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from artifact_sync.errors import ModelServerError, RefusedError
from artifact_sync.records import GoldenExamples, InputContract
from validation.programs.isolated_child import Ending, ProcessLimits
from validation.programs.isolation import Isolation, make_readable
from validation.programs.trial_job import READY, TrialJob
from validation.reports.report import TrialRecord

USUAL_LIMITS = ProcessLimits()
_PATIENCE_SECONDS = 30.0
"""How much longer than the candidate's own time the walls may take."""
_LOG_TAIL_BYTES, _SAID_CHARACTERS = 2000, 300
_CHATTER = re.compile(r"[IW]\d{4} |WARNING: All log messages")
"""What TensorFlow's library logs without need."""

_CALLS = {
    "socket": "it tried to open a network connection",
    "socketpair": "it tried to open a connection",
    "connect": "it tried to open a connection",
    "execve": "it tried to run another program",
    "execveat": "it tried to run another program",
    "clone": "it tried to start another process",
    "fork": "it tried to start another process",
    "vfork": "it tried to start another process",
}


def trial(
    export: Path,
    *,
    contract: InputContract,
    classes: int,
    golden: GoldenExamples | None,
    isolation: Isolation,
    limits: ProcessLimits = USUAL_LIMITS,
) -> TrialRecord:
    """Return what trying the candidate took.

    Args:
        export: its files; a copy of them is tried.
        contract: what it takes and gives.
        classes: how many scores it gives.
        golden: pictures that it knows, where the export has some.
        isolation: what holds it; see `find_isolation`.
        limits: what it may take.

    Raises:
        RefusedError: it did something that a classifier does not do; the message names it.
        ModelServerError: the trial itself does not work on this machine.
    """
    # The outer directory is closed to everybody else, the inner one open to nobody.
    with tempfile.TemporaryDirectory(prefix="liftgate-trial-") as outer:
        job, scratch = Path(outer, "job"), Path(outer, "scratch")
        scratch.mkdir()
        try:
            TrialJob(export=export, contract=contract, classes=classes, golden=golden).write(job)
        except OSError as error:
            raise RefusedError(f"Candidate refused: the files of {export} cannot be copied ({error}).") from None
        make_readable(job)
        command = isolation.command(
            (sys.executable, "-B", "-m", "validation.programs.trial_child", str(job)),
            limits=limits,
            readable=(job,),
            scratch=scratch,
            is_reported=True,
        )
        ending, log = _run(command, Path(outer, "log"), limits)
    trouble = _trouble(ending, _Story.of(ending), limits, log)
    if trouble:
        listed = "\n  - ".join(trouble)
        raise RefusedError(
            f"Candidate refused: the export {export} did not stand its trial (loaded and asked about a few pictures):"
            f"\n  - {listed}\nExport it again with Liftgate's own training, and look at who could change the run."
        )
    return TrialRecord(
        isolation=isolation.words,
        seconds=ending.seconds,
        cpu_seconds=ending.cpu_seconds,
        memory_bytes=ending.memory_bytes,
    )


def _run(command: tuple[str, ...], log_path: Path, limits: ProcessLimits) -> tuple[Ending, str]:
    """Return how it ended, and the end of what it said on stderr."""
    patience = None if limits.wall_seconds is None else limits.wall_seconds + _PATIENCE_SECONDS
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)
        with process:
            try:
                said, _ = process.communicate(timeout=patience)
            except BaseException:
                # The walls die with their first process, and everything inside with them.
                process.kill()
                raise
    tail = log_path.read_bytes()[-_LOG_TAIL_BYTES:].decode("utf-8", errors="replace").strip()
    try:
        fields = json.loads(said)
    except ValueError:
        raise ModelServerError(
            f"The trial of the candidate does not start (exit {process.returncode}): {tail or 'it says nothing'}. "
            "Check that everybody may read this installation of Python and its packages."
        ) from None
    return Ending(**{**fields, "written": tuple(fields["written"])}), tail


@dataclass(frozen=True)
class _Story:
    """What the child said of itself."""

    stage: str | None
    refused: str | None
    call: str | None
    is_done: bool

    @classmethod
    def of(cls, ending: Ending) -> _Story:
        """Read the lines; one that is no JSON was cut by the end of the process."""
        said: dict[str, object] = {}
        for line in ending.answer.splitlines():
            try:
                said |= json.loads(line)
            except (ValueError, TypeError):
                continue
        stage, refused, call = (said.get(name) for name in ("stage", "refused", "call"))
        return cls(
            stage=None if stage is None else str(stage),
            refused=None if refused is None else str(refused),
            call=None if call is None else str(call),
            is_done=said.get("done") is True,
        )


def _trouble(ending: Ending, story: _Story, limits: ProcessLimits, log: str) -> list[str]:
    """Return what is held against the candidate, in words."""
    if story.stage is None:
        raise ModelServerError(
            f"The trial of the candidate does not start (exit {ending.exit_code}): "
            f"{log or 'it says nothing'}. Check the installation (TensorFlow comes with the extra `embedded`)."
        )
    found = []
    ended_badly = _ended_badly(ending, story, limits, log)
    if ended_badly is not None:
        found.append(ended_badly)
    if ending.written:
        found.append(f"it wrote files: {', '.join(map(repr, ending.written))}")
    return found


def _ended_badly(ending: Ending, story: _Story, limits: ProcessLimits, log: str) -> str | None:
    when = "before it was loaded" if story.stage == READY else story.stage
    said = [line for line in log.splitlines() if not _CHATTER.match(line)]
    last_words = f"; its last words: {said[-1][:_SAID_CHARACTERS]}" if said else ""
    is_out_of_cpu = limits.cpu_seconds is not None and ending.cpu_seconds >= limits.cpu_seconds - 1
    call = f"{_CALLS.get(story.call or '', 'it asked for what no classifier needs')} (system call {story.call})"
    name = signal.Signals(ending.signal).name if ending.signal else ""
    # The first that holds: what the child said of itself comes before what its end looks like.
    reasons: tuple[tuple[bool, str], ...] = (
        (story.call is not None, f"{call} {when}"),
        (ending.stopped_for == "time", f"it was not done after {limits.wall_seconds} s; it was stopped {when}"),
        (ending.stopped_for == "memory", f"it took more than {limits.memory_bytes >> 20:,} MiB of memory {when}"),
        (story.refused is not None, f"{story.refused} ({when})"),
        (
            name == "SIGKILL" and is_out_of_cpu,
            f"it computed for more than {limits.cpu_seconds} s; it was stopped {when}",
        ),
        (name == "SIGSYS", f"it made a system call that no classifier needs {when}"),
        (bool(name), f"it crashed with {name} {when}{last_words}"),
        (not story.is_done, f"it ended with exit code {ending.exit_code} {when}{last_words}"),
    )
    return next((text for holds, text in reasons if holds), None)
