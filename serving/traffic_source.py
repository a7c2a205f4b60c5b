"""Reads what front ends counted, by plain HTTP in the company's own network.

Its place in the flow: the agent reads it at each look; windows.py turns two readings into what
happened in between. A front end that does not answer is left out and named.
"""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from artifact_sync.errors import RecordError
from serving.traffic.observation import TrafficReport

_MAX_BYTES = 4 * 1024 * 1024
_CHUNK_BYTES = 64 * 1024
_THREADS = 8


@dataclass(frozen=True)
class TrafficReading:
    """The reports that could be had, and a sentence for each that could not."""

    reports: tuple[TrafficReport, ...] = ()
    troubles: tuple[str, ...] = field(default=())


class TrafficSource(Protocol):
    """Where reports of traffic come from."""

    def read(self) -> TrafficReading:
        """Return what can be had now; never raises for a front end that is away."""
        ...


class HttpTrafficSource:
    """Front ends at `urls`; what they say about another model is left out.

    Args:
        urls: one for each front end, such as "http://front-1:9100/traffic".
        model: the model that is of interest.
        timeout_seconds: how long each may take in all.
    """

    def __init__(self, urls: Sequence[str], *, model: str, timeout_seconds: float) -> None:
        self._urls = tuple(urls)
        self._model = model
        self._timeout_seconds = timeout_seconds

    def read(self) -> TrafficReading:
        """See TrafficSource."""
        if not self._urls:
            return TrafficReading()
        with ThreadPoolExecutor(min(_THREADS, len(self._urls))) as threads:
            answers = list(threads.map(self._read_one, self._urls))
        reports = {answer.front_end: answer for answer in answers if isinstance(answer, TrafficReport)}
        return TrafficReading(
            reports=tuple(reports[name] for name in sorted(reports)),
            troubles=tuple(answer for answer in answers if isinstance(answer, str)),
        )

    def _read_one(self, url: str) -> TrafficReport | str:
        try:
            report = TrafficReport.from_json(self._get(url))
        except (OSError, http.client.HTTPException, RecordError, ValueError) as error:
            return f"Traffic of {url} cannot be read: {error or type(error).__name__}."
        if report.model != self._model:
            return f"Traffic of {url} is of model {report.model}, not of {self._model}."
        return report

    def _get(self, url: str) -> bytes:
        deadline = time.monotonic() + self._timeout_seconds
        data = b""
        with _OPENER.open(url, timeout=self._timeout_seconds) as answer:
            while chunk := answer.read1(_CHUNK_BYTES):
                data += chunk
                # The time limit of a socket is one for each read; a slow drip would never reach it.
                if time.monotonic() > deadline:
                    raise TimeoutError(f"it took over {self._timeout_seconds:g} s")
                if len(data) > _MAX_BYTES:
                    raise ValueError(f"it is over {_MAX_BYTES} bytes")
        return data


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Reports lie where the settings say; nobody else names an address for this host to ask."""

    def redirect_request(self, *arguments: object, **named: object) -> None:
        return None


_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)
