"""Several hosts one after another: may this host move its labels yet? Pure.

Its place in the flow: the agent reads what other hosts acknowledged and asks `turn_of` before a
promotion's label moves. Acknowledgements are not signed: the order limits load and how many hosts a
bad release reaches at once; it proves nothing about who serves what.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from artifact_sync.records import Acknowledgement, ReleaseRecord


@dataclass(frozen=True)
class Turn:
    """Whether this host may `go`, is to `wait`, must `stop` because one before it could not, or gave up (`late`)."""

    word: Literal["go", "wait", "stop", "late"]
    reason: str = ""


GO = Turn(word="go")


def turn_of(
    host: str,
    *,
    order: Sequence[str],
    release: ReleaseRecord,
    acknowledgements: Iterable[Acknowledgement],
    seen_at: datetime,
    now: datetime,
    pause_seconds: float,
    timeout_seconds: float,
) -> Turn:
    """Return whose turn it is; `seen_at` is when this host first saw the release.

    The newest word of each host counts, so one that recovered lets the next one go on. Giving up is
    said and never turns into going ahead; once the hosts before serve after all, this one follows.
    """
    if host not in order or release.kind == "rollback":
        return GO
    latest = {said.host: said for said in acknowledgements if said.release_sha256 == release.sha256}
    waiting = ""
    for before in order[: order.index(host)]:
        said = latest.get(before)
        if said is not None and said.outcome != "serving":
            return Turn("stop", f"{before} could not take release {release.number} ({said.outcome}: {said.detail})")
        if said is None:
            waiting = waiting or f"{before} has not acknowledged release {release.number}"
        elif now - said.at < timedelta(seconds=pause_seconds):
            waiting = waiting or f"{before} has served release {release.number} for less than {pause_seconds:g} s"
    if not waiting:
        return GO
    if now - seen_at >= timedelta(seconds=timeout_seconds):
        return Turn("late", f"gave up waiting after {timeout_seconds:g} s (order_timeout_seconds): {waiting}")
    return Turn("wait", waiting)
