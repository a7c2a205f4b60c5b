"""What an error in a tick means: its cause in one word, whose fault it is, how to say it.

Its place in the flow: tick.py asks here when a step did not go well; pure but for the reading of
errors that the operating system gave.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

from artifact_sync.errors import (
    CapacityError,
    IntegrityError,
    LiftgateError,
    ModelServerError,
    ModelServerUnavailableError,
    RefusedError,
    SettingsError,
    TrustError,
)
from serving.agent_state import Cause, Outcome
from serving.rollout_acknowledgement import Trouble
from serving.rollout_situation import Situation
from serving.rollout_steps import (
    CheckMemory,
    LoadVersions,
    MeasureLatency,
    MoveLabels,
    ProbeVersion,
    PullVersion,
    Step,
    SwapOut,
)
from serving.rollout_target import release_labels
from serving.server_driver import VersionRejectedError
from serving.tick_report import TickOutcome

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
_EXIT_CODES: dict[Cause, int] = {
    "trust": TrustError.exit_code,
    "integrity": IntegrityError.exit_code,
    "capacity": CapacityError.exit_code,
    "host": SettingsError.exit_code,
    "server": ModelServerError.exit_code,
    "load": ModelServerError.exit_code,
    "golden": ModelServerError.exit_code,
    "latency": ModelServerError.exit_code,
    "labels": ModelServerError.exit_code,
    "order": RefusedError.exit_code,
    "traffic": 0,
    "withdrawn": 0,
}


def classify(step: Step, error: LiftgateError) -> Trouble:
    """Return the cause and the outcome that the acknowledgement will carry."""
    cause, outcome = _cause(step, error)
    return Trouble(cause=cause, outcome=outcome, detail=str(error))


def _cause(step: Step, error: LiftgateError) -> tuple[Cause, Outcome]:
    if isinstance(error, VersionRejectedError):
        by_step: dict[type[Step], Cause] = {ProbeVersion: "golden", MeasureLatency: "latency"}
        return by_step.get(type(step), "load"), "failed"
    if isinstance(error, ModelServerError):
        is_answer = isinstance(step, MoveLabels) and not isinstance(error, ModelServerUnavailableError)
        return ("labels" if is_answer else "server"), "failed"
    if isinstance(error, CapacityError):
        return "capacity", "refused"
    if isinstance(error, TrustError):
        return "trust", "refused"
    if isinstance(step, ProbeVersion | PullVersion):
        return ("golden" if isinstance(step, ProbeVersion) else "integrity"), "refused"
    return "host", "failed"


def is_about_release(step: Step, error: LiftgateError, *, situation: Situation) -> bool:
    """Return whether the release is to be put off; otherwise the host or the server is in trouble."""
    if isinstance(error, VersionRejectedError):
        return True
    desired, accepted = situation.desired, situation.state.accepted
    if desired is None:
        return False
    if isinstance(step, PullVersion | ProbeVersion | MeasureLatency):
        return step.version in desired.versions
    if isinstance(step, CheckMemory):
        return not step.is_return
    # A server that dies while it takes a new release may die of it: that is not tried at every tick.
    is_new = accepted is None or accepted.release != desired.number
    return isinstance(step, LoadVersions | MoveLabels | SwapOut) and is_new and situation.failure is None


def version_at_fault(step: Step, error: LiftgateError) -> int | None:
    """Return the version that cannot be used, if it is one."""
    if isinstance(error, VersionRejectedError):
        return error.version
    return step.version if isinstance(step, PullVersion | ProbeVersion) else None


def outcome_of(situation: Situation, *, error: LiftgateError | None, is_stopped: bool) -> tuple[TickOutcome, int]:
    """Return what became of a tick that ended in `situation`, and the exit code that documents it."""
    failure, desired = situation.state.failure, situation.desired
    code = error.exit_code if error is not None else 0
    outcome: TickOutcome = "failed"
    if is_stopped:
        outcome, code = "stopped", 0
    elif situation.server is None or not situation.is_bucket_reachable:
        outcome = "unreachable"
    elif situation.trouble is not None:
        outcome, code = situation.trouble.outcome, _EXIT_CODES[situation.trouble.cause]
    elif desired is not None and failure is not None and failure.release == desired.number:
        outcome, code = failure.outcome, _EXIT_CODES[failure.cause]
    elif situation.turn.word in {"stop", "late"}:
        outcome, code = "refused", _EXIT_CODES["order"]
    elif error is None and situation.withdrawal is None:
        is_served = desired is not None and dict(situation.labels) == release_labels(desired)
        outcome = "serving" if is_served else "idle"
    return outcome, code


def said_of(situation: Situation, *, notes: Sequence[str], ending: Step) -> list[str]:
    """Return what a person is told of a tick, sentence by sentence."""
    failure, withdrawal, said = situation.state.failure, situation.withdrawal, list(notes)
    if failure is not None and situation.desired is not None and failure.release == situation.desired.number:
        said += [failure.detail] if failure.detail not in said else []
        said.append(f"It is tried again after {failure.retry_at:%H:%M:%S} UTC.")
    if withdrawal is not None:
        said.append(f"Release {withdrawal.release} was withdrawn here: {withdrawal.reason.rstrip('.')}.")
    if situation.turn.word in {"stop", "late"}:
        said.append(f"Not this host's turn: {situation.turn.reason.rstrip('.')}.")
    said.append(str(ending))
    return said


def from_os_error(error: OSError) -> LiftgateError:
    """Return what the operating system said, as an error of ours."""
    word, where = error.strerror or str(error), error.filename or "a file"
    if error.errno in _NO_ROOM:
        return CapacityError(
            f"The agent could not write {where}: {word}. Make room on that disk; it goes on by itself."
        )
    return SettingsError(
        f"The agent could not use {where}: {word}. Check that the disk is healthy and that this user may write there."
    )
