from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from validation.reports.report import Report

Paired = Callable[..., tuple[NDArray[np.bool_], NDArray[np.bool_]]]
MakeReport = Callable[..., Report]


def test_a_report_is_the_same_after_a_round_trip(make_report: MakeReport, paired_right: Paired) -> None:
    report = make_report(*paired_right(60, fixed=4, broken=3))
    assert Report.from_json(report.to_json()) == report
    assert make_report(np.ones(20, dtype=bool), None).paired is None
