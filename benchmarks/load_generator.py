"""Drives a server with h2load, the load generator of nghttp2: requests per second, latencies, wrong answers.

One generator in C for HTTP/1.1 and for gRPC, so that no server is measured through a slower client
than another, and the client leaves both cores to the server.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

_SUCCEEDED = re.compile(r"requests: (\d+) total, .* (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout")
_DATA = re.compile(r"\((\d+)\) data")
_FINISHED = re.compile(r"finished in ([0-9.]+)(us|ms|s), ")
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass(frozen=True)
class Request:
    """One request that is sent again and again.

    Args:
        url: http://host:port/path.
        body: what is sent.
        headers: besides those of the protocol.
        is_grpc: HTTP/2 with prior knowledge; else HTTP/1.1 with keep-alive.
    """

    url: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    is_grpc: bool = False


@dataclass(frozen=True)
class Load:
    """What came of a number of requests by a number of clients, each with a connection of its own.

    `began_seconds` (since the epoch) and `latencies_ms` have one entry a request, in order of the answers.
    """

    clients: int
    requests: int
    failed: int
    seconds: float
    began_seconds: np.ndarray
    latencies_ms: np.ndarray
    answer_bytes: float

    @property
    def per_second(self) -> float:
        """Answered requests a second."""
        return (self.requests - self.failed) / self.seconds

    def percentile_ms(self, percent: float) -> float:
        """Return a percentile of the time from the request to the end of its answer."""
        return float(np.percentile(self.latencies_ms, percent))


def drive(request: Request, *, clients: int, requests: int) -> Load:
    """Send `requests` requests by `clients` clients that ask as fast as they are answered.

    A gRPC error travels in the trailers of a successful HTTP answer, without data: callers compare
    `answer_bytes` (the mean size of an answer) with what one good answer has.

    Raises:
        RuntimeError: h2load is missing or did not finish.
    """
    with tempfile.TemporaryDirectory() as directory:
        body, log = Path(directory) / "body", Path(directory) / "log"
        body.write_bytes(request.body)
        command = [
            "h2load",
            f"--requests={max(requests, clients)}",
            f"--clients={clients}",
            "--max-concurrent-streams=1",
        ]
        command += [f"--data={body}", f"--log-file={log}", "--connection-inactivity-timeout=120"]
        command += ["--window-bits=24", "--connection-window-bits=24"] if request.is_grpc else ["--h1"]
        headers = {"content-type": "application/grpc", "te": "trailers"} if request.is_grpc else {}
        for name, value in (headers | dict(request.headers)).items():
            command += ["--header", f"{name}: {value}"]
        try:
            done = subprocess.run([*command, request.url], capture_output=True, text=True, check=False, timeout=900)
        except FileNotFoundError:
            raise RuntimeError("h2load is missing: apt-get install nghttp2-client") from None
        return _read(done.stdout, log, clients=clients)


def _read(text: str, log: Path, *, clients: int) -> Load:
    counts, data, finished = _SUCCEEDED.search(text), _DATA.search(text), _FINISHED.search(text)
    if counts is None or data is None or finished is None:
        raise RuntimeError(f"h2load did not finish: {text[-2000:]}")
    total, succeeded = int(counts[1]), int(counts[2])
    # Columns: start in microseconds since the epoch, HTTP status, microseconds to the end of the answer.
    rows = np.array([line.split() for line in log.read_text().splitlines()] or [[0, 0, 0]], dtype=np.int64)
    return Load(
        clients=clients,
        requests=total,
        failed=total - succeeded,
        seconds=float(finished[1]) * _SECONDS[finished[2]],
        began_seconds=rows[:, 0] / 1e6,
        latencies_ms=rows[:, 2] / 1000,
        answer_bytes=int(data[1]) / max(1, succeeded),
    )
