"""The long-running processes of the demo's serving site, started as units would start them."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from liftgate.demo.sites import DemoError, Site

_LOG_TAIL_BYTES = 3000


class Services:
    """A context manager around processes; all of them are ended when it is left, newest first."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._processes: list[tuple[str, subprocess.Popen[bytes], Path]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, process, _ in reversed(self._processes):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def start(self, *words: str) -> None:
        """Start `liftgate WORDS` in the background, its output in a log file."""
        self.site.narrator.command(("liftgate", *words, "&"))
        log = self.site.folder / f"{words[0]}.log"
        with log.open("ab") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "liftgate", *words],
                cwd=self.site.folder,
                env=self.site.variables(),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
            )
        self._processes.append((words[0], process, log))

    def wait_for(self, what: str, is_there: Callable[[], bool], *, timeout_seconds: float = 60.0) -> float:
        """Wait until `is_there()` is true, and return the seconds that it took.

        Raises:
            DemoError: it took too long, or a process ended; the message has the end of the logs.
        """
        started = time.monotonic()
        while not is_there():
            dead = [name for name, process, _ in self._processes if process.poll() is not None]
            if dead or time.monotonic() - started > timeout_seconds:
                why = f"{', '.join(dead)} ended" if dead else f"not there after {timeout_seconds:.0f} s"
                raise DemoError(f"Waiting for {what}: {why}.\n{self._logs()}")
            time.sleep(0.05)
        return time.monotonic() - started

    def _logs(self) -> str:
        tails = [(name, log.read_text(errors="replace")[-_LOG_TAIL_BYTES:]) for name, _, log in self._processes]
        return "\n".join(f"--- the log of {name} ends:\n{tail}" for name, tail in tails)


def answers(url: str) -> bool:
    """Return whether a GET of `url` gives 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 - our own loopback address
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def start_model_server(services: Services, socket: Path, *, models_dir: Path) -> None:
    """Start the embedded model server without models; the agent gives it what a release names."""
    models_dir.mkdir()
    config = models_dir / "models.config"
    config.touch()
    services.start(
        "model-server",
        "--port=0",
        f"--grpc_socket_path={socket}",
        f"--model_config_file={config}",
        "--allow_version_labels_for_unavailable_models=true",
    )
    services.wait_for("the model server", socket.exists)
