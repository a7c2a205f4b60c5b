"""The serving agent: one tick makes this host serve what the newest trusted release says.

Its place in the flow: `liftgate agent` runs it on each serving host, beside the model server; the
work of a tick is in tick.py.
"""

from __future__ import annotations

from collections.abc import Callable

from artifact_sync.clock import Clock
from artifact_sync.errors import SettingsError
from artifact_sync.registry import Registry
from serving.agent_changes import after_figures, after_withdrawal
from serving.back_request import BackRequest, BackRequests, returnable_release
from serving.memory_budget import MemorySource
from serving.model_server import ModelServer
from serving.rollout_steps import Withdraw
from serving.server_driver import ServerDriver
from serving.server_memory import ServerMemory
from serving.settings import AgentSettings
from serving.state_file import StateFile
from serving.step_runner import StepRunner
from serving.tick import Tick, TrustSource
from serving.tick_report import TickReport
from serving.tick_trouble import from_os_error
from serving.traffic_marks import TrafficMarks
from serving.traffic_source import HttpTrafficSource, TrafficSource
from serving.version_checks import VersionChecks
from serving.version_directories import VersionDirectories
from serving.version_watch import VersionWatch, marks_path, watched


def _never() -> bool:
    return False


class Agent:
    """One model on one model server of one host.

    Make one and keep it: what it verified on the disk it remembers for as long as it lives.

    Args:
        registry: the model's part of the bucket.
        trust: where trusted releases come from, such as a TrustedReader.
        server: the model server of this host.
        settings: how this host follows the releases.
        clock: time.
        should_stop: asked between steps and while one waits; True ends the tick early and safely.
        traffic: where reports of users' requests come from; by default the settings' traffic_urls.
        memory: what the system says of the server's memory.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        trust: TrustSource,
        server: ModelServer,
        settings: AgentSettings,
        clock: Clock,
        should_stop: Callable[[], bool] = _never,
        traffic: TrafficSource | None = None,
        memory: MemorySource | None = None,
    ) -> None:
        self.settings = settings
        self._trust = trust
        self._clock = clock
        self._is_ending = should_stop
        self._model_dir = model_dir = settings.models_dir / registry.model
        self._requests = BackRequests(model_dir)
        driver = ServerDriver(
            server=server,
            model=registry.model,
            model_dir=model_dir,
            settings=settings,
            clock=clock,
            should_stop=self._should_stop,
        )
        directories = VersionDirectories(model_dir, model=registry.model)
        checks = VersionChecks(
            driver=driver,
            directories=directories,
            memory=memory or ServerMemory(settings.server_address, limit_bytes=settings.memory_limit_bytes),
            settings=settings,
            clock=clock,
            should_stop=self._should_stop,
        )
        urls, timeout_seconds = settings.traffic_urls, settings.traffic_timeout_seconds
        self._watch = VersionWatch(
            source=traffic or HttpTrafficSource(urls, model=registry.model, timeout_seconds=timeout_seconds),
            marks=TrafficMarks(marks_path(model_dir), baseline_seconds=settings.baseline_seconds),
            checks=checks,
            settings=settings,
            clock=clock,
        )
        self._runner = StepRunner(
            registry=registry,
            driver=driver,
            settings=settings,
            clock=clock,
            directories=directories,
            state_file=StateFile(model_dir / "state.json", model=registry.model),
            checks=checks,
        )

    def tick(self) -> TickReport:
        """Close the difference between the newest trusted release and what this host serves.

        Raises:
            SettingsError: the settings are for another model.
        """
        wanted, found = self.settings.model, self._runner.registry.model
        if wanted is not None and wanted != found:
            raise SettingsError(f"Agent refused: [agent] model is {wanted!r}, the bucket's is {found!r}. Drop one.")
        while True:
            tick = Tick(
                self._runner, trust=self._trust, clock=self._clock, should_stop=self._should_stop, look=self._look
            )
            report = tick.run()
            # A request to go back ends a tick early, so that it is obeyed at once and not after a long pull.
            if report.outcome != "stopped" or self._is_ending():
                return report

    def must_return(self) -> bool:
        """Look at the version under watch without the bucket; return whether a tick is to follow at once.

        Meant for the pauses between two ticks, and cheap where nothing is watched.
        """
        if self._requests.is_pending():
            return True
        if not watched(self._runner.state_file.state, now=self._clock.now()):
            return False
        try:
            withdraw, _ = self._look()
            if withdraw is not None:
                self._runner.run(withdraw)
        except OSError as error:
            raise from_os_error(error) from error
        return withdraw is not None

    def is_watching(self) -> bool:
        """Return whether a version is under watch, so that the pauses between two ticks are used."""
        return bool(watched(self._runner.state_file.state, now=self._clock.now()))

    def is_request_pending(self) -> bool:
        """Return whether a person asked this host to go back."""
        return self._requests.is_pending()

    def request_return(self, *, reason: str) -> int:
        """Ask whichever agent runs here to go back to the version before; return the release that is left.

        Raises:
            RefusedError: there is no version to go back to.
        """
        model = self._runner.registry.model
        release = returnable_release(self._model_dir, model=model)
        self._requests.write(BackRequest(model=model, release=release, reason=reason, at=self._clock.now()))
        return release

    def has_returned(self, release: int) -> bool:
        """Return whether the labels of this host have left `release`; reads the state only."""
        return self._requests.is_done(release=release)

    def return_to_last_good(self, *, reason: str) -> TickReport:
        """Go back to the version before on this host alone, without the bucket, and tick.

        The accepted release is not served here again; the next one is.

        Raises:
            RefusedError: there is no version to go back to.
        """
        self.request_return(reason=reason)
        return self.tick()

    def _should_stop(self) -> bool:
        return self._is_ending() or self._requests.is_pending()

    def _look(self) -> tuple[Withdraw | None, tuple[str, ...]]:
        """Return the version that must go by what was seen of it, and what to tell; obey a person first."""
        state_file = self._runner.state_file
        self._obey()
        findings = self._watch.look(state_file.state, now=self._clock.now())
        accepted = state_file.state.accepted
        for about, text in (findings.figures or {}).items():
            if accepted is not None:
                changed = after_figures(
                    state_file.state, release=accepted.release, about=about, figures=text, is_said_again=True
                )
                state_file.write_if_room(changed)
        return findings.withdraw, findings.troubles

    def _obey(self) -> None:
        if not self._requests.is_pending():
            return
        request, state = self._requests.read(), self._runner.state_file.state
        accepted, withdrawal = state.accepted, state.withdrawal
        is_meant = request is not None and accepted is not None and accepted.release == request.release
        is_possible = accepted is not None and state.last_good not in {None, accepted.stable}
        is_done = withdrawal is not None and accepted is not None and withdrawal.release == accepted.release
        is_done = is_done and withdrawal is not None and withdrawal.label == "stable"
        if request is not None and is_meant and is_possible and not is_done:
            # First the state, then the request: a kill in between obeys it once more, and that changes nothing.
            self._runner.state_file.write_if_room(after_withdrawal(state, reason=request.reason))
        self._requests.remove()
