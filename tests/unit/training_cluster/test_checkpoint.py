"""Checkpoints: exact round trip, two kept, the older one when the newest is damaged, only one's own."""

from __future__ import annotations

import errno
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from artifact_sync.errors import IntegrityError, RefusedError
from training_cluster.training.checkpoint import CheckpointFolder, read_checkpoint

_BINDING = {"configuration": "a" * 64, "dataset": "b" * 64}


def _arrays(value: float) -> dict[str, np.ndarray]:
    return {"model/kernel": np.full((2, 3), value, np.float32), "optimizer/iteration": np.array(7, np.int64)}


@settings(max_examples=40, deadline=None)
@given(
    arrays=st.dictionaries(
        st.text(min_size=1, max_size=8),
        st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.uint32, np.bool_]).flatmap(
            lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
        ),
        max_size=4,
    )
)
def test_what_is_restored_is_what_was_saved_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, arrays: dict[str, np.ndarray]
) -> None:
    folder = CheckpointFolder(tmp_path_factory.mktemp("checkpoints"), binding=_BINDING)
    folder.save(arrays, step=3)
    restored = folder.restore()
    assert restored is not None
    assert list(restored.arrays) == list(arrays)
    for name, array in arrays.items():
        assert restored.arrays[name].dtype == array.dtype
        assert restored.arrays[name].shape == array.shape
        assert restored.arrays[name].tobytes() == array.tobytes()


def test_arrays_that_are_not_contiguous_are_saved_in_their_own_order(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, binding=_BINDING)
    array = np.arange(12, dtype=np.float32).reshape(3, 4).T
    folder.save({"turned": array}, step=1)
    restored = folder.restore()
    assert restored is not None
    np.testing.assert_array_equal(restored.arrays["turned"], array)


def test_there_is_nothing_to_restore_before_the_first(tmp_path: Path) -> None:
    assert CheckpointFolder(tmp_path / "none", binding=_BINDING).restore() is None


def test_two_are_kept_and_the_newest_is_restored(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, binding=_BINDING)
    for step in (10, 20, 30, 40):
        folder.save(_arrays(step), step=step)
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "step-0000000030.checkpoint",
        "step-0000000040.checkpoint",
    ]
    restored = folder.restore()
    assert restored is not None
    assert restored.step == 40
    assert restored.arrays["model/kernel"][0, 0] == 40


def test_any_flipped_byte_and_any_cut_sends_the_restart_to_the_older_one(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, binding=_BINDING)
    folder.save(_arrays(1), step=1)
    newest = folder.save(_arrays(2), step=2)
    whole = newest.read_bytes()
    damaged = [whole[:cut] for cut in range(0, len(whole), 7)]
    damaged += [whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :] for place in range(0, len(whole), 3)]
    damaged.append(whole + b"\0")
    for data in damaged:
        newest.write_bytes(data)
        with pytest.raises(IntegrityError):
            read_checkpoint(newest)
        restored = folder.restore()
        assert restored is not None
        assert restored.step == 1


def test_a_damaged_checkpoint_is_replaced_when_its_step_is_reached_again(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, binding=_BINDING)
    folder.save(_arrays(1), step=1)
    folder.save(_arrays(2), step=2).write_bytes(b"damaged")
    folder.save(_arrays(2), step=2)
    restored = folder.restore()
    assert restored is not None
    assert restored.step == 2


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path: Path) -> None:
    CheckpointFolder(tmp_path, binding=_BINDING).save(_arrays(1), step=1)
    other = CheckpointFolder(tmp_path, binding={**_BINDING, "configuration": "c" * 64})
    with pytest.raises(RefusedError, match="another configuration"):
        other.restore()


def test_files_that_a_killed_writer_left_are_removed_by_the_next_save(tmp_path: Path) -> None:
    (tmp_path / ".tmp-0123456789abcdef").write_bytes(b"half")
    CheckpointFolder(tmp_path, binding=_BINDING).save(_arrays(1), step=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000000001.checkpoint"]


def test_values_that_are_no_numbers_survive_too(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, binding=_BINDING)
    folder.save({"odd": np.array([math.nan, math.inf, -0.0], np.float32)}, step=1)
    restored = folder.restore()
    assert restored is not None
    assert restored.arrays["odd"].tobytes() == np.array([math.nan, math.inf, -0.0], np.float32).tobytes()


def test_the_best_outlives_the_next_two_and_is_written_once(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, binding=_BINDING)
    assert folder.best() is None
    saved = folder.save(_arrays(1), step=1)
    folder.keep_best(1)
    assert saved.stat().st_nlink == 2
    for step in (2, 3, 4):
        folder.save(_arrays(step), step=step)
    best, newest = folder.best(), folder.restore()
    assert best is not None
    assert newest is not None
    assert (best.step, best.arrays["model/kernel"][0, 0], newest.step) == (1, 1, 4)
    folder.keep_best(4)
    again = folder.best()
    assert again is not None
    assert again.step == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "best.checkpoint",
        "step-0000000003.checkpoint",
        "step-0000000004.checkpoint",
    ]
    (tmp_path / "best.checkpoint").write_bytes(b"damaged")
    assert folder.best() is None


def test_a_reader_takes_the_newer_one_when_what_it_saw_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, reader = (CheckpointFolder(tmp_path, binding=_BINDING) for _ in range(2))
    trainer.save(_arrays(1), step=1)
    read = Path.read_bytes

    def overtaken(path: Path) -> bytes:
        monkeypatch.setattr(Path, "read_bytes", read)
        for step in (2, 3):
            trainer.save(_arrays(step), step=step)
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", overtaken)
    found = reader.restore()
    assert found is not None
    assert found.step == 3


def test_where_files_have_one_name_only_the_best_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    folder = CheckpointFolder(tmp_path, binding=_BINDING)
    saved = folder.save(_arrays(1), step=1)
    folder.keep_best(1)
    assert (tmp_path / "best.checkpoint").read_bytes() == saved.read_bytes()
