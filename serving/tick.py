"""One tick: return what must go, refresh trust, then observe, decide and act until there is nothing to do.

Its place in the flow: Agent.tick makes one and runs it once. Whatever goes wrong, what is served
stays served, the reason is on record, and the host says so in the bucket.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from artifact_sync.clock import Clock
from artifact_sync.errors import LiftgateError, ModelServerError, StoreError, TrustError
from artifact_sync.records import ReleaseRecord
from serving.agent_changes import after_failure
from serving.agent_state import AgentState
from serving.back_request import is_returned
from serving.rollout import plan
from serving.rollout_acknowledgement import Trouble
from serving.rollout_situation import Situation
from serving.rollout_steps import (
    KeepForBake,
    MeasureLatency,
    Nothing,
    ProbeVersion,
    PullVersion,
    Step,
    WaitForHosts,
    Withdraw,
)
from serving.server_driver import StopRequestedError
from serving.step_runner import StepRunner, VersionSource
from serving.tick_look import TickFacts, observe, turn_now
from serving.tick_report import StepReport, TickReport
from serving.tick_trouble import classify, from_os_error, is_about_release, outcome_of, said_of, version_at_fault

_MAX_STEPS = 50


class TrustedReleases(VersionSource, Protocol):
    """The signed releases and versions at one moment, such as a TrustedView."""

    def latest_release(self) -> ReleaseRecord | None:
        """Return the newest release, None before the first; or raise TrustError or StoreError."""
        ...


class TrustSource(Protocol):
    """Where trusted releases come from, such as a TrustedReader."""

    def refresh(self) -> TrustedReleases:
        """Return the newest state, or raise TrustError or StoreError."""
        ...


class Tick:
    """What one tick knows; use it once.

    Args:
        runner: carries out steps; its state file is the agent's memory.
        trust: where trusted releases come from.
        clock: time.
        should_stop: asked between steps.
        look: says whether the version that is served must go, before anything else; None when nobody watches.
    """

    def __init__(
        self,
        runner: StepRunner,
        *,
        trust: TrustSource,
        clock: Clock,
        should_stop: Callable[[], bool],
        look: Callable[[], tuple[Withdraw | None, tuple[str, ...]]] | None = None,
    ) -> None:
        self._runner = runner
        self._trust = trust
        self._clock = clock
        self._should_stop = should_stop
        self._look = look
        self._facts = TickFacts(now=clock.now())
        self._is_stopped = False
        self._steps: list[StepReport] = []
        self._notes: list[str] = []
        self._error: LiftgateError | None = None

    def run(self) -> TickReport:
        """Run the tick and return what became of it."""
        runner = self._runner
        runner.began_seconds = self._clock.monotonic()
        runner.versions, runner.release, runner.room = None, None, None
        try:
            self._notes += [note for note in (runner.state_file.load(),) if note]
            self._return_first()
            self._refresh()
            situation, ending = self._settle()
        except OSError as error:
            raise from_os_error(error) from error
        return self._report(situation, ending)

    def _return_first(self) -> None:
        """Take a version that must go out of service before the bucket is asked, which may take long."""
        if self._look is not None:
            withdraw, notes = self._look()
            self._notes += notes
            if withdraw is not None:
                self._carry_out(withdraw, observe(self._runner, self._facts)[0])
        withdrawal = self._runner.state_file.state.withdrawal
        if withdrawal is None or is_returned(self._runner.state_file.state, release=withdrawal.release):
            return
        self._facts.is_bucket_reachable = False
        self._settle()
        self._facts = TickFacts(now=self._facts.now)

    def _refresh(self) -> None:
        try:
            view = self._trust.refresh()
            desired = view.latest_release()
            self._refuse_older(desired)
        except StoreError as error:
            self._facts.is_bucket_reachable = False
            self._keep_error(error)
        except LiftgateError as error:
            # A record that does not parse or is not there is as little to be believed as a bad signature.
            self._facts.trouble = Trouble(cause="trust", outcome="refused", detail=str(error))
            self._keep_error(error)
        else:
            self._runner.versions = view
            self._facts.desired = desired
            if desired is not None:
                self._runner.release = desired.number
                self._see(desired)

    def _see(self, desired: ReleaseRecord) -> None:
        state = self._runner.state_file.state
        if desired.number > state.highest_release:
            changes = {"highest_release": desired.number, "seen_at": self._facts.now}
            self._runner.state_file.write_if_room(state.model_copy(update=changes))
            self._runner.prepared.clear()
        try:
            self._facts.turn = turn_now(self._runner, self._facts)
        except StoreError as error:
            self._facts.is_bucket_reachable, self._facts.desired = False, None
            self._keep_error(error)

    def _refuse_older(self, desired: ReleaseRecord | None) -> None:
        seen, found = self._runner.state_file.state.highest_release, desired.number if desired is not None else 0
        if found < seen:
            raise TrustError(
                f"Release refused: the bucket's newest is {found}, this host has seen {seen}. This looks like a "
                "rollback of the bucket: somebody put an old state back. Find out who can write to it."
            )

    def _settle(self) -> tuple[Situation, Step]:
        for _ in range(_MAX_STEPS):
            situation, error = observe(self._runner, self._facts)
            if error is not None:
                self._keep_error(error)
            if self._should_stop() or self._is_stopped:
                self._is_stopped = True
                return situation, Nothing(reason="asked to stop; the next tick goes on from here")
            step = plan(situation)
            if isinstance(step, WaitForHosts):
                self._runner.prepared |= situation.proved
            if isinstance(step, Nothing | KeepForBake | WaitForHosts):
                return situation, step
            self._carry_out(step, situation)
        raise ModelServerError(
            f"Tick given up after {_MAX_STEPS} steps, the last was {self._steps[-1].name}: something else changes "
            "this host at the same time. Find out what configures the model server or writes to models_dir."
        )

    def _carry_out(self, step: Step, situation: Situation) -> None:
        began, error = self._clock.monotonic(), ""
        self._facts.done.append(step)
        try:
            self._runner.run(step)
        except StopRequestedError:
            self._is_stopped, error = True, "stopped"
        except (LiftgateError, OSError) as caught:
            found = caught if isinstance(caught, LiftgateError) else from_os_error(caught)
            self._went_wrong(step, found, situation)
            error = str(found)
        else:
            if isinstance(step, ProbeVersion):
                self._facts.proved.add(step.version)
            if isinstance(step, MeasureLatency):
                self._facts.timed.add(step.version)
        seconds = round(self._clock.monotonic() - began, 3)
        self._steps.append(StepReport(type(step).__name__, str(step), seconds, error))

    def _went_wrong(self, step: Step, error: LiftgateError, situation: Situation) -> None:
        is_of_release = is_about_release(step, error, situation=situation)
        if isinstance(step, PullVersion):
            self._facts.blocked.add(step.version)
        if isinstance(error, StoreError):
            self._keep_error(error)
            self._facts.is_bucket_reachable = False
            return
        if isinstance(step, PullVersion) and not is_of_release:
            # Only the way back is damaged. It is said, and not downloaded again at every look.
            self._runner.beyond_repair.add(step.version)
            self._notes.append(str(error))
            return
        self._keep_error(error)
        trouble = classify(step, error)
        if not is_of_release:
            self._facts.trouble = self._facts.trouble or trouble
            return
        state, settings = self._runner.state_file.state, self._runner.settings
        release = situation.desired.number if situation.desired is not None else _accepted_release(state)
        failed = after_failure(
            state,
            release=release,
            version=version_at_fault(step, error),
            cause=trouble.cause,
            outcome=trouble.outcome,
            detail=trouble.detail,
            now=self._clock.now(),
            retry_seconds=settings.retry_seconds,
            retry_limit_seconds=settings.retry_limit_seconds,
        )
        self._runner.state_file.write_if_room(failed)

    def _keep_error(self, error: LiftgateError) -> None:
        self._error = self._error or error
        if str(error) not in self._notes:
            self._notes.append(str(error))

    def _report(self, situation: Situation, ending: Step) -> TickReport:
        runner = self._runner
        outcome, exit_code = outcome_of(situation, error=self._error, is_stopped=self._is_stopped)
        return TickReport(
            model=runner.registry.model,
            host=runner.settings.host,
            at=self._facts.now,
            release=situation.desired.number if situation.desired is not None else None,
            outcome=outcome,
            detail=" ".join(said_of(situation, notes=self._notes, ending=ending)),
            served=None if situation.server is None else dict(situation.labels),
            loaded=tuple(sorted(situation.available)),
            steps=tuple(self._steps),
            seconds=round(self._clock.monotonic() - runner.began_seconds, 3),
            exit_code=exit_code,
        )


def _accepted_release(state: AgentState) -> int:
    # A version is only ever loaded for a desired release or for the accepted one.
    assert state.accepted is not None
    return state.accepted.release
