"""A throw-away model server that holds candidate and champion side by side for the time of judging.

Its place in the flow: measure.py opens it after scan and trial and measures through it, so that both
models answer by the path that users' photos take. It serves copies behind the walls of isolation.py,
listens on a private socket, and is gone when the `with` block ends.
"""

from __future__ import annotations

import base64
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from artifact_sync.clock import Clock
from artifact_sync.errors import InputError, ModelServerError
from artifact_sync.records import GoldenExample, GoldenExamples
from serving.control_groups import bytes_in
from serving.model_server import GrpcModelServer, ModelConfig, ModelServer, VersionState, model_config_text
from serving.server_memory import server_pid
from serving.server_process import ServerProcess, server_command
from validation.programs.isolated_child import ProcessLimits
from validation.programs.isolation import Isolation, find_isolation, make_private, make_readable

SERVER_LIMITS = ProcessLimits(
    wall_seconds=None, cpu_seconds=None, memory_bytes=16 * 1024**3, file_bytes=64 * 1024**2, open_files=1024
)
_VERSION = 1
_POLL_SECONDS = 0.02


class SmokeServer:
    """A running server to load exports into, one by one; all of them stay loaded.

    Args:
        server: the running server.
        target: its Unix socket, as `ServerProcess.target` says it.
        directory: where the copies lie that it serves.
        load_timeout_seconds: how long one export may take to become available.
        clock: measures it.
    """

    def __init__(
        self, server: ModelServer, *, target: str, directory: Path, load_timeout_seconds: float, clock: Clock
    ) -> None:
        self.server = server
        self._target = target
        self._directory = directory
        self.load_timeout_seconds = load_timeout_seconds
        self._clock = clock
        self._configs: tuple[ModelConfig, ...] = ()

    def load(self, name: str, export: Path) -> float:
        """Serve a copy of `export` as model `name` and return the seconds until it was available.

        Raises:
            ModelServerError: the server refuses it, or it is not available in time.
        """
        # A copy, not a link: the originals stay closed to the server's user, and as they are.
        shutil.copytree(export, self._directory / name / str(_VERSION), symlinks=True)
        make_readable(self._directory / name)
        self._configs += (ModelConfig(name=name, base_path=str(self._directory / name), versions=(_VERSION,)),)
        started = self._clock.monotonic()
        self.server.reload(self._configs, timeout_seconds=self.load_timeout_seconds)
        while self._clock.monotonic() - started < self.load_timeout_seconds:
            if self._is_available(name):
                return self._clock.monotonic() - started
            self._clock.sleep(_POLL_SECONDS)
        raise ModelServerError(
            f"The model server did not make the {name} available within {self.load_timeout_seconds:g} s."
        )

    def peak_memory_bytes(self) -> int | None:
        """Return the most memory that the server has held so far; None where the system does not say (no Linux)."""
        process = server_pid(self._target)
        return None if process is None else bytes_in(Path(f"/proc/{process}/status"), "VmHWM")

    def _is_available(self, name: str) -> bool:
        for status in self.server.status(name):
            if status.state is VersionState.END:
                raise ModelServerError(f"The model server cannot load the {name}: {status.error_message}")
            if status.state is VersionState.AVAILABLE:
                return True
        return False


@contextmanager
def throwaway_server(
    *,
    load_timeout_seconds: float,
    clock: Clock,
    isolation: Isolation | None = None,
    limits: ProcessLimits = SERVER_LIMITS,
) -> Iterator[SmokeServer]:
    """Yield a new server without models.

    Args:
        load_timeout_seconds: how long the server, and later each export, may take to be there.
        clock: measures it.
        isolation: what holds the server; by default what this machine has.
        limits: what the server may take.

    Raises:
        ModelServerError: it does not start.
        RefusedError: no isolation was handed in, and this machine has none.
    """
    walls = isolation or find_isolation()
    # The outer directory is closed to everybody else; inside, one is for the server to read, one to write.
    # A short name: a socket's path holds 107 bytes.
    with tempfile.TemporaryDirectory(prefix="liftgate-") as outer:
        models, home = Path(outer, "models"), Path(outer, "server")
        for directory in (models, home):
            directory.mkdir()
        make_readable(models)
        make_private(home)
        program, *flags = server_command()
        command = walls.command(
            (str(shutil.which(program) or program), *flags),
            limits=limits,
            readable=(models,),
            writable=(home,),
            scratch=home,
        )
        process = ServerProcess(
            # With a configuration of its own, so that nobody may read it whatever this user's umask is.
            _empty_configuration(models),
            command=command,
            directory=home,
            ready_timeout_seconds=load_timeout_seconds,
        )
        with process, GrpcModelServer(process.target) as server:
            yield SmokeServer(
                server,
                target=process.target,
                directory=models,
                load_timeout_seconds=load_timeout_seconds,
                clock=clock,
            )


def _empty_configuration(directory: Path) -> Path:
    path = directory / "models.config"
    path.write_text(model_config_text(()), encoding="utf-8")
    path.chmod(0o644)
    return path


def replay_golden_examples(server: ModelServer, name: str, golden: GoldenExamples) -> tuple[float, float]:
    """Ask about the golden examples twice; infinite stands for a score that is not finite.

    Returns:
        The largest distance of any score from the expected one, and the largest between the two answers.

    Raises:
        InputError: an example's pixels are not of the shape that is stated beside them.
        ModelServerError: the model does not answer them.
    """
    pixels = np.stack([_pixels(example, golden) for example in golden.examples])
    expected = np.array([example.scores for example in golden.examples], dtype=np.float32)
    first, again = (server.predict(name, pixels).scores for _ in range(2))
    if first.shape != expected.shape or again.shape != expected.shape:
        raise ModelServerError(
            f"The golden examples of the {name} expect scores of shape {expected.shape}, "
            f"the server answers {first.shape}. Export it again."
        )
    return _distance(first, expected), _distance(first, again)


def _distance(scores: NDArray[np.float32], others: NDArray[np.float32]) -> float:
    is_finite = np.isfinite(scores).all() and np.isfinite(others).all()
    return float(np.abs(scores - others).max()) if is_finite else float("inf")


def _pixels(example: GoldenExample, golden: GoldenExamples) -> NDArray[np.uint8]:
    try:
        flat = np.frombuffer(base64.b64decode(example.pixels_base64, validate=True), dtype=np.uint8)
        return flat.reshape(golden.height, golden.width, golden.channels)
    except ValueError as error:
        shape = f"{golden.height}x{golden.width}x{golden.channels}"
        raise InputError(
            f"The export's golden examples are refused: one is not of {shape} ({error}). Export the run again."
        ) from None
