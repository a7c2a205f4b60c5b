"""The serving agent: one tick makes this host serve what the newest trusted release says.

Its place in the flow: `liftgate agent` runs it on each serving host, beside the model server; the
work of a tick is in tick.py.
"""

from __future__ import annotations

from collections.abc import Callable

from artifact_sync.clock import Clock
from artifact_sync.errors import RefusedError, SettingsError
from artifact_sync.registry import Registry
from serving.agent_state import after_withdrawal
from serving.model_server import ModelServer
from serving.server_driver import ServerDriver
from serving.settings import AgentSettings
from serving.state_file import StateFile
from serving.step_runner import StepRunner
from serving.tick import Tick, TrustSource
from serving.tick_report import TickReport
from serving.version_directories import VersionDirectories


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
    ) -> None:
        self.settings = settings
        self._trust = trust
        self._clock = clock
        self._should_stop = should_stop
        model_dir = settings.models_dir / registry.model
        driver = ServerDriver(
            server=server,
            model=registry.model,
            model_dir=model_dir,
            settings=settings,
            clock=clock,
            should_stop=should_stop,
        )
        self._runner = StepRunner(
            registry=registry,
            driver=driver,
            settings=settings,
            clock=clock,
            directories=VersionDirectories(model_dir, model=registry.model),
            state_file=StateFile(model_dir / "state.json", model=registry.model),
        )

    def tick(self) -> TickReport:
        """Close the difference between the newest trusted release and what this host serves.

        Raises:
            SettingsError: the settings are for another model.
        """
        wanted, found = self.settings.model, self._runner.registry.model
        if wanted is not None and wanted != found:
            raise SettingsError(f"Agent refused: [agent] model is {wanted!r}, the bucket's is {found!r}. Drop one.")
        return Tick(self._runner, trust=self._trust, clock=self._clock, should_stop=self._should_stop).run()

    def return_to_last_good(self, *, reason: str) -> TickReport:
        """Go back to the version before on this host alone, without the bucket, and tick.

        The accepted release is not served here again; the next one is.

        Raises:
            RefusedError: there is no version to go back to.
        """
        self._runner.state_file.load()
        state = self._runner.state_file.state
        if state.accepted is None or state.last_good in {None, state.accepted.stable}:
            raise RefusedError("Return refused: this host has no other good version. Run `liftgate rollback` instead.")
        self._runner.state_file.write(after_withdrawal(state, reason=reason))
        return self.tick()
