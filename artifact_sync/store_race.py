"""A store raced against itself: does `create` really let exactly one writer win?

Its place in the flow: `liftgate doctor` runs it before a store is trusted with promotions. Several
S3 servers accept If-None-Match and ignore it: on those, two promoters would both believe that they
won, and the second would silently overwrite the first.
"""

from __future__ import annotations

import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from artifact_sync.errors import AlreadyExistsError, StoreError
from artifact_sync.store import ObjectStore, read_bytes

_ROUNDS_AT_ONCE = 4
_WAY_OUT = (
    "It must not be used for promotion: two promoters could both win. Use AWS S3, Ceph RGW, SeaweedFS or another "
    "server that honours If-None-Match (and no proxy that drops the header), or a directory store."
)


@dataclass(frozen=True)
class RaceReport:
    """What was tried; a report exists only if every round had exactly one winner."""

    rounds: int
    contenders: int
    losses: int


def race_store(store: ObjectStore, *, rounds: int = 20, contenders: int = 8) -> RaceReport:
    """Let `contenders` threads create one key at once, `rounds` times, and count the winners.

    Works under a scratch prefix `doctor/<random>`, which is emptied afterwards.

    Raises:
        StoreError: a round had no or several winners, or a loser's bytes are what the store holds;
            the message says what was found and what to do. Or the store cannot be used at all.
    """
    if rounds < 1 or contenders < 2:
        raise ValueError("a race needs at least one round and two contenders")
    scratch = f"doctor/{secrets.token_hex(8)}"
    keys = [f"{scratch}-{number:04d}" for number in range(rounds)]
    try:
        _check_second_create(store, f"{scratch}-twice")
        # Several rounds at once: one server takes a second or more for each round under contention.
        with ThreadPoolExecutor(_ROUNDS_AT_ONCE, thread_name_prefix="round") as pool:
            losses = sum(pool.map(lambda key: _run_round(store, key, contenders=contenders), keys))
    finally:
        for key in (f"{scratch}-twice", *keys):
            store.delete(key)
    return RaceReport(rounds=rounds, contenders=contenders, losses=losses)


def _check_second_create(store: ObjectStore, key: str) -> None:
    """Tell a store that ignores the condition even when nobody else writes."""
    store.create(key, b"first")
    try:
        store.create(key, b"second")
    except AlreadyExistsError:
        held = read_bytes(store, key, max_bytes=16)
        if held == b"first":
            return
        raise StoreError(f"{store!r} overwrote an object while saying that it exists. {_WAY_OUT}") from None
    raise StoreError(f"{store!r} ignores conditional writes: it let one key be created twice. {_WAY_OUT}")


def _run_round(store: ObjectStore, key: str, *, contenders: int) -> int:
    """Return the number of losers of one round."""
    start = threading.Barrier(contenders)
    bodies = [f"contender {number} {secrets.token_hex(8)}".encode() for number in range(contenders)]
    with ThreadPoolExecutor(contenders, thread_name_prefix="race") as pool:
        won = list(pool.map(lambda body: _create(store, key, body, start=start), bodies))
    winners = [body for body, has_won in zip(bodies, won, strict=True) if has_won]
    if len(winners) != 1:
        raise StoreError(
            f"{store!r} ignores conditional writes under races: {len(winners)} of {contenders} writers were told "
            f"that they created the same key. {_WAY_OUT}"
        )
    if read_bytes(store, key, max_bytes=1024) != winners[0]:
        raise StoreError(f"{store!r} holds the bytes of a writer that was told it lost. {_WAY_OUT}")
    return contenders - 1


def _create(store: ObjectStore, key: str, body: bytes, *, start: threading.Barrier) -> bool:
    start.wait()
    try:
        store.create(key, body)
    except AlreadyExistsError:
        return False
    return True
