"""Reads windows of examples ahead of their use: blocks in several threads, pixels straight to their places.

Its place in the flow: between the plan of an epoch and the batches. While one window is consumed, the
next one is read, so two of them are in memory and no more than the blocks in flight beside them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training_cluster.inputs.meter import InputMeter
from training_cluster.inputs.records import ParsedBlock, RecordLayout
from training_cluster.inputs.source import DataSource

_ALIGNMENT_BYTES = 64


@dataclass(frozen=True, eq=False)
class Window:
    """Examples in the order in which they are shown: pixels uint8 [n, bytes of a picture], labels int64 [n]."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]


class WindowReader:
    """Reads windows of one source.

    Args:
        source: the dataset.
        meter: what counts the time.
    """

    def __init__(self, source: DataSource, *, meter: InputMeter) -> None:
        self._source = source
        self._meter = meter
        self._layout = RecordLayout(source.manifest.contract)
        self._first = source.blocks["first"].astype(np.int64)

    def windows(self, examples: NDArray[np.int64], edges: Sequence[tuple[int, int]]) -> Iterator[Window]:
        """Yield the windows `examples[begin:end]`, one read ahead; leaving the iterator ends the reading."""
        pool = ThreadPoolExecutor(self._source.connections, thread_name_prefix="read-block")
        try:
            ahead: list[_OpenWindow] = []
            for begin, end in edges:
                ahead.append(self._begin(pool, examples[begin:end]))
                if len(ahead) == 2:
                    yield self._finished(ahead.pop(0))
            for window in ahead:
                yield self._finished(window)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _begin(self, pool: ThreadPoolExecutor, examples: NDArray[np.int64]) -> _OpenWindow:
        size = self._layout.pixel_bytes
        window = Window(_aligned(len(examples), size), np.empty(len(examples), np.int64))
        blocks = np.searchsorted(self._first, examples, side="right") - 1
        order = np.argsort(blocks, kind="stable")
        names, begins = np.unique(blocks[order], return_index=True)
        tasks = [
            pool.submit(self._fill, window, block, rows=examples[slots] - self._first[block], slots=slots)
            for block, slots in zip(names.tolist(), np.split(order, begins[1:]), strict=True)
        ]
        return _OpenWindow(window, tasks)

    def _fill(self, window: Window, block: int, *, rows: NDArray[np.int64], slots: NDArray[np.int64]) -> None:
        parsed = self._parsed(block)
        with self._meter.stage("parsing"):
            window.labels[slots] = parsed.labels[rows]
            parsed.copy_into(window.pixels, rows=rows, slots=slots)

    def _parsed(self, block: int) -> ParsedBlock:
        with self._meter.stage("reading", read_bytes=int(self._source.blocks[block]["size_bytes"])):
            data = self._source.read_block(block)
        with self._meter.stage("parsing"):
            return self._layout.parse(data)

    def _finished(self, window: _OpenWindow) -> Window:
        with self._meter.stage("starving"):
            for task in window.tasks:
                task.result()
        return window.window


@dataclass(frozen=True, eq=False)
class _OpenWindow:
    window: Window
    tasks: list[Future[None]]


def _aligned(count: int, size_bytes: int) -> NDArray[np.uint8]:
    """Return an array [count, size_bytes] that begins where TensorFlow takes it over without a copy."""
    room = np.empty(count * size_bytes + _ALIGNMENT_BYTES, np.uint8)
    offset = -room.ctypes.data % _ALIGNMENT_BYTES
    return room[offset : offset + count * size_bytes].reshape(count, size_bytes)
