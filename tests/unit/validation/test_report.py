from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from artifact_sync.labelled_photo import LabelledPhoto
from validation.holdout import Holdout, PhotoDecoder, freeze_holdout
from validation.report import Report, compare

Paired = Callable[..., tuple[NDArray[np.bool_], NDArray[np.bool_]]]
MakeReport = Callable[..., Report]


@pytest.fixture
def holdout(tmp_path: Path, photos: Callable[..., list[LabelledPhoto]], decoder: PhotoDecoder) -> Holdout:
    return freeze_holdout(photos(40), labels=("cat", "dog"), out_dir=tmp_path / "holdout", decoder=decoder)


def test_a_report_is_the_same_after_a_round_trip(make_report: MakeReport, paired_right: Paired) -> None:
    report = make_report(*paired_right(60, fixed=4, broken=3))
    assert Report.from_json(report.to_json()) == report
    assert make_report(np.ones(20, dtype=bool), None).paired is None


def test_what_changed_is_counted_and_named(holdout: Holdout) -> None:
    truth = holdout.truth
    right = np.eye(2, dtype=np.float32)[truth]
    candidate, champion = right.copy(), right.copy()
    candidate[0] = right[0][::-1]
    candidate[1] = np.nan
    champion[2] = right[2][::-1]
    fields: dict[str, Any] = compare(holdout, candidate=candidate, champion=champion)
    assert (fields["paired"].candidate_only, fields["paired"].champion_only) == (1, 2)
    assert [photo.sha256 for photo in fields["fixed"]] == [holdout.record.items[2].sha256]
    broken, nan = fields["broken"]
    assert (broken.champion_answer, nan.candidate_answer) == (broken.label, None)
    assert broken.candidate_answer not in (None, broken.label)
    assert sum(row.n for row in fields["classes"]) == 40
    assert sum(row.paired.champion_only for row in fields["classes"]) == 2
