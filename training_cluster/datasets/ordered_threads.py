"""A function over many things in several threads, results in order, a few ahead and never all.

Its place in the flow: dataset build reads photos, which wait for a disk or a bucket, and hashes pixels with it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


def in_order(
    function: Callable[[Given], Made], things: Iterable[Given], *, threads: int, ahead: int
) -> Generator[Made, None, None]:
    """Yield `function` of each thing in order; at most `ahead` are begun and not yet taken."""
    pending: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="dataset") as executor:
        try:
            for thing in things:
                pending.append(executor.submit(function, thing))
                if len(pending) >= ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
