"""People's photos, sent to the front end as a browser sends them, one after another and without a pause."""

from __future__ import annotations

import json
import secrets
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self


@dataclass
class Counts:
    """What came back; `versions` counts answers by the version that gave them."""

    sent: int = 0
    failed: int = 0
    versions: Counter[int] = field(default_factory=Counter)
    first_failure: str = ""


class Traffic:
    """A context manager: inside it, `clients` threads upload photos to `address` without a pause."""

    def __init__(self, address: str, photos: Sequence[bytes], *, clients: int = 3) -> None:
        self.address = address
        self.counts = Counts()
        self._photos = photos
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._send, args=(number,), daemon=True) for number in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def answered_by(self, version: int) -> int:
        """Return how many answers that version has given so far."""
        with self._lock:
            return self.counts.versions[version]

    def _send(self, number: int) -> None:
        turn = number
        while not self._stop.is_set():
            photo = self._photos[turn % len(self._photos)]
            turn += 1
            try:
                answer = classify(self.address, photo)
            except (urllib.error.URLError, OSError, ValueError, KeyError) as error:
                self._count(None, str(error))
            else:
                self._count(int(answer["version"]), "")

    def _count(self, version: int | None, failure: str) -> None:
        with self._lock:
            self.counts.sent += 1
            if version is None:
                self.counts.failed += 1
                self.counts.first_failure = self.counts.first_failure or failure
            else:
                self.counts.versions[version] += 1


def classify(address: str, photo: bytes, *, name: str = "photo.jpg") -> dict[str, Any]:
    """Upload one photo as multipart/form-data (RFC 7578) and return the JSON answer.

    Raises:
        urllib.error.URLError: not answered with 200.
    """
    boundary = secrets.token_hex(16)
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="photo"; filename="{name}"\r\n'
    body = head.encode() + b"Content-Type: image/jpeg\r\n\r\n" + photo + f"\r\n--{boundary}--\r\n".encode()
    return post(f"{address}/api/v1/classify", body, content_type=f"multipart/form-data; boundary={boundary}")


def post(url: str, body: bytes, *, content_type: str) -> dict[str, Any]:
    """POST a body and return the JSON answer.

    Raises:
        urllib.error.URLError: not answered with 2xx.
    """
    request = urllib.request.Request(url, data=body, headers={"Content-Type": content_type})  # noqa: S310
    with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - our own loopback address
        answer: dict[str, Any] = json.load(response)
    return answer
