"""Wishes to a running training: what is read from the folder, and what is no wish."""

from __future__ import annotations

from pathlib import Path

import pytest

from training_cluster.training.wishes import HISTOGRAMS, PROFILE, Wishes


def test_without_the_folder_nobody_wishes_anything(tmp_path: Path) -> None:
    wishes = Wishes(tmp_path / "control")
    assert (wishes.profiled_steps(), wishes.wants_histograms()) == (0, False)
    wishes.fulfil(PROFILE)


@pytest.mark.parametrize(("content", "steps"), [("12\n", 12), ("", 5), ("many", 5), ("0", 1), ("99999", 1000)])
def test_the_profiler_records_so_many_steps(tmp_path: Path, content: str, steps: int) -> None:
    (tmp_path / "profile").write_text(content)
    wishes = Wishes(tmp_path)
    assert wishes.profiled_steps() == steps
    wishes.fulfil(PROFILE)
    assert wishes.profiled_steps() == 0


def test_histograms_are_wanted_until_they_are_there(tmp_path: Path) -> None:
    (tmp_path / "histograms").touch()
    wishes = Wishes(tmp_path)
    assert wishes.wants_histograms()
    wishes.fulfil(HISTOGRAMS)
    assert not wishes.wants_histograms()
