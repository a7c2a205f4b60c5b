"""Checkpoints of several workers: each has them all, the newest of any wins, on a shared disk one writes."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from artifact_sync.clock import ManualClock
from training_cluster.training.checkpoint import Checkpoint, CheckpointFolder
from training_cluster.training.keeping import Keeper
from training_cluster.training.meters import Costs

_BINDING = {"configuration": "a" * 64}
_COUNT = 2


class _Worker:
    """A thread that stands for a process of a training; `said` and `barrier` are those of all."""

    count = _COUNT

    def __init__(self, index: int, said: list[Any], barrier: threading.Barrier) -> None:
        self.index = index
        self.is_chief = index == 0
        self._said = said
        self._barrier = barrier

    def _hear(self, mine: Any) -> list[Any]:
        self._said[self.index] = mine
        self._barrier.wait()
        heard = list(self._said)
        self._barrier.wait()
        return heard

    def gather(self, numbers: list[int]) -> np.ndarray:
        return np.array(self._hear(numbers), np.int64)

    def any(self, flag: bool) -> bool:
        return any(self._hear(flag))

    def text_of(self, source: int, text: str) -> str:
        answer: str = self._hear(text)[source]
        return answer

    def arrays_of(self, source: int, arrays: Mapping[str, Any]) -> dict[str, Any]:
        return dict(self._hear(arrays)[source])


def _arrays(value: float) -> dict[str, np.ndarray]:
    return {"model/kernel": np.full(3, value, np.float32)}


def _together(folders: list[Path], act: Callable[[Keeper], Any]) -> tuple[list[Any], list[str]]:
    """Return what each worker's act gave, and what was told."""
    said: list[Any] = [None] * _COUNT
    barrier = threading.Barrier(_COUNT, timeout=5)
    found: list[Any] = [None] * _COUNT
    told: list[str] = []

    def run(index: int) -> None:
        worker: Any = _Worker(index, said, barrier)
        costs = Costs(ManualClock(datetime(2026, 11, 20, tzinfo=UTC)))
        keeper = Keeper(
            CheckpointFolder(folders[index], binding=_BINDING), workers=worker, costs=costs, tell=told.append
        )
        found[index] = act(keeper)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(_COUNT)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found, told


def _save(folder: Path, step: int, *, best: bool = False) -> None:
    kept = CheckpointFolder(folder, binding=_BINDING)
    kept.save(_arrays(step), step=step, state={"said": step})
    if best:
        kept.keep_best(step)


def _best(keeper: Keeper, *, wanted: int) -> Checkpoint | None:
    return keeper.best(wanted, lambda: _arrays(0))


@pytest.mark.parametrize("newer", [0, 1])
def test_the_newest_step_that_any_worker_has_is_what_all_go_on_from(tmp_path: Path, newer: int) -> None:
    folders = [tmp_path / "0", tmp_path / "1"]
    _save(folders[newer], 30)
    _save(folders[1 - newer], 20)
    found, _ = _together(folders, lambda keeper: keeper.newest(lambda: _arrays(0)))
    for checkpoint in found:
        assert isinstance(checkpoint, Checkpoint)
        assert (checkpoint.step, checkpoint.state) == (30, {"said": 30})
        np.testing.assert_array_equal(checkpoint.arrays["model/kernel"], _arrays(30)["model/kernel"])


def test_the_best_is_the_one_that_is_meant_before_a_newer_one(tmp_path: Path) -> None:
    folders = [tmp_path / "0", tmp_path / "1"]
    _save(folders[0], 30, best=True)
    _save(folders[1], 20, best=True)
    for wanted, expected in ((20, 20), (30, 30), (40, 30)):
        found, _ = _together(folders, partial(_best, wanted=wanted))
        assert [checkpoint.step for checkpoint in found] == [expected] * _COUNT


@pytest.mark.parametrize("shared", [False, True])
def test_each_disk_gets_every_checkpoint_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: bool) -> None:
    folders = [tmp_path / "0", tmp_path / ("0" if shared else "1")]
    saves: list[Path] = []
    save = CheckpointFolder.save

    def counted(self: CheckpointFolder, *arguments: Any, **others: Any) -> Path:
        saves.append(self.path)
        return save(self, *arguments, **others)

    def act(keeper: Keeper) -> bool:
        assert keeper.newest(lambda: _arrays(0)) is None
        answers = [keeper.save(lambda: _arrays(7), step=7, state={}) for _ in range(2)]
        return all(answers)

    monkeypatch.setattr(CheckpointFolder, "save", counted)
    found, told = _together(folders, act)
    assert (found, told) == ([True, True], [])
    assert sorted(saves) == sorted(set(folders))
    for folder in folders:
        assert [path.name for path in folder.iterdir()] == ["step-0000000007.checkpoint"]


def test_one_full_disk_is_told_and_two_of_them_end_the_training_after_the_second_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tmp_path / "0", tmp_path / "1"]
    full: set[Path] = {folders[1]}
    save = CheckpointFolder.save

    def sometimes(self: CheckpointFolder, *arguments: Any, **others: Any) -> Path:
        if self.path in full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return save(self, *arguments, **others)

    def act(keeper: Keeper) -> list[bool]:
        return [keeper.save(lambda: _arrays(1), step=step, state={}) for step in (1, 2, 3)]

    monkeypatch.setattr(CheckpointFolder, "save", sometimes)
    found, told = _together(folders, act)
    assert found == [[True, True, True]] * _COUNT
    assert len(told) == 3
    full.add(folders[0])
    found, told = _together(folders, act)
    assert found == [[True, False, False]] * _COUNT
    assert len(told) == 6
