"""Kills a checkpoint writer at every line it executes and at random moments; it has one thread, so it may fork.

Prints one JSON line: how many kills, and after how many of them which checkpoint was restored.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from training_cluster.training.checkpoint import CheckpointFolder

_BINDING = {"configuration": "a" * 64}
_TRACED = ("checkpoint.py", "durable.py")


def _arrays(step: int, size: int) -> dict[str, np.ndarray]:
    return {"kernel": np.full(size, step, np.float32), "iteration": np.array(step, np.int64)}


def _die_at_line(number: int) -> None:
    """Kill this process when the traced modules execute their `number`-th line."""
    left = number

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.endswith(_TRACED):
            return None
        if event == "line":
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)


def _fork(act: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        act()
        os._exit(0)
    return child


def _check(directory: Path, size: int) -> int:
    """Restore, compare, go on saving; return the step that was restored."""
    folder = CheckpointFolder(directory, binding=_BINDING)
    restored = folder.restore()
    assert restored is not None, "nothing to resume from"
    assert restored.step in (20, 30), restored.step
    for name, array in _arrays(restored.step, size).items():
        np.testing.assert_array_equal(restored.arrays[name], array)
    best = folder.best()
    assert best is not None, "the best is lost"
    assert best.step in (10, 30), best.step
    np.testing.assert_array_equal(best.arrays["kernel"], _arrays(best.step, size)["kernel"])
    folder.save(_arrays(30, size), step=30)
    folder.save(_arrays(40, size), step=40)
    assert [path.name for path in sorted(directory.iterdir())] == [
        "best.checkpoint",
        "step-0000000030.checkpoint",
        "step-0000000040.checkpoint",
    ]
    return restored.step


def _prepared(directory: Path, size: int) -> CheckpointFolder:
    shutil.rmtree(directory, ignore_errors=True)
    folder = CheckpointFolder(directory, binding=_BINDING)
    for step in (10, 20):
        folder.save(_arrays(step, size), step=step)
        if step == 10:
            folder.keep_best(step)
    return folder


def _save_as_best(folder: CheckpointFolder, size: int) -> None:
    folder.save(_arrays(30, size), step=30)
    folder.keep_best(30)


def _sweep_lines(directory: Path) -> Counter[int]:
    restored: Counter[int] = Counter()
    for number in range(1, 10_000):
        folder = _prepared(directory, 100)

        def act(folder: CheckpointFolder = folder, number: int = number) -> None:
            _die_at_line(number)
            _save_as_best(folder, 100)

        _, status = os.waitpid(_fork(act), 0)
        restored[_check(directory, 100)] += 1
        if not os.WIFSIGNALED(status):
            return restored
    raise AssertionError("the writer never ended")


def _sweep_moments(directory: Path, *, count: int, seed: int) -> Counter[int]:
    size, chance = 2_000_000, random.Random(seed)
    began = time.monotonic()
    _prepared(directory, size)
    usual_seconds = (time.monotonic() - began) / 2
    restored: Counter[int] = Counter()
    for _ in range(count):
        folder = _prepared(directory, size)
        child = _fork(lambda folder=folder: _save_as_best(folder, size))
        time.sleep(chance.uniform(0, usual_seconds))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        restored[_check(directory, size)] += 1
    return restored


if __name__ == "__main__":
    place, moments, chosen_seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    lines = _sweep_lines(place / "lines")
    at_random = _sweep_moments(place / "moments", count=moments, seed=chosen_seed)
    json.dump({"lines": lines, "moments": at_random}, sys.stdout)
