"""The report as one HTML page for people: it opens from disk, needs no network and no script.

Its place in the flow: validate.py writes it beside report.json; whoever approves reads it first.
Figures come from the report and the verdict, photos from the holdout, lines to hold from the policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain

from jinja2 import Environment, PackageLoader, StrictUndefined

from validation.checks.policy import Policy
from validation.checks.verdict import Verdict
from validation.photos.holdout import Holdout, PhotoDecoder
from validation.reports import report_charts
from validation.reports.report import ChangedPhoto, NearDuplicate, Report, SuspectLabel
from validation.reports.report_figures import class_forest, slice_forests
from validation.reports.report_limits import limit_rows
from validation.reports.report_matrices import (
    MAX_PICTURE_CLASSES,
    MAX_TABLE_CLASSES,
    changed_confusions,
    confusion_matrices,
    draw,
    frequent_confusions,
)
from validation.reports.report_metrics import metric_rows
from validation.reports.report_summary import (
    deciding,
    drawn_tries,
    needed_labels,
    reason_groups,
    sentence,
    suspects_sentence,
)
from validation.reports.report_text import bytes_text, counted, percent, plain, points, signed
from validation.reports.report_thumbnails import thumbnails

__all__ = ["render_page", "sentence"]

MAX_CHANGED = 18
"""How many fixed and how many broken photos are shown; with the next two it bounds the page's size."""

MAX_SUSPECTS = 12
MAX_NEAR_DUPLICATES = 12


@dataclass(frozen=True)
class _Pictures:
    """The photos that the page shows; `urls` has a data: URL for each that could be decoded."""

    fixed: Sequence[ChangedPhoto]
    broken: Sequence[ChangedPhoto]
    suspects: Sequence[SuspectLabel]
    near_duplicates: Sequence[NearDuplicate]
    urls: dict[str, str]


def render_page(report: Report, verdict: Verdict, *, policy: Policy, holdout: Holdout, decoder: PhotoDecoder) -> str:
    """Return the page as HTML; every text that came from outside is escaped."""
    classes = len(report.labels)
    matrices = confusion_matrices(report) if classes <= MAX_PICTURE_CLASSES else ()
    return (
        _environment()
        .get_template("report.html")
        .render(
            report=report,
            verdict=verdict,
            policy=policy,
            sentence=sentence(report, verdict),
            deciding=deciding(report, verdict),
            tries=drawn_tries(verdict),
            needed=needed_labels(verdict),
            groups=reason_groups(verdict),
            pictures=_pictures(report, holdout=holdout, decoder=decoder),
            holdout_photos=len(holdout.record.items),
            metrics=metric_rows(report, policy=policy),
            class_forest=class_forest(report, policy=policy, verdict=verdict),
            slice_forests=slice_forests(report, policy=policy, verdict=verdict),
            matrices=matrices if classes <= MAX_TABLE_CLASSES else (),
            matrix_pictures=[draw(matrix) for matrix in matrices] if classes > MAX_TABLE_CLASSES else (),
            frequent=frequent_confusions(report),
            changed=changed_confusions(report),
            calibration=report_charts.calibration_chart(report),
            risk=report_charts.risk_chart(report),
            limits=limit_rows(report, policy=policy),
            suspects_sentence=suspects_sentence(report, verdict, policy=policy),
            square={"left": report_charts.LEFT, "top": report_charts.TOP, "size": report_charts.SIZE},
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("validation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (plain, percent, points, signed, bytes_text, counted)
    environment.filters.update({function.__name__: function for function in filters})
    return environment


def _pictures(report: Report, *, holdout: Holdout, decoder: PhotoDecoder) -> _Pictures:
    fixed, broken = report.fixed[:MAX_CHANGED], report.broken[:MAX_CHANGED]
    suspects = report.suspects[:MAX_SUSPECTS]
    duplicates = sorted(report.near_duplicates or (), key=lambda one: (one.distance, one.sha256))[:MAX_NEAR_DUPLICATES]
    changed = (photo.sha256 for photo in (*fixed, *broken))
    shown = chain(changed, (suspect.sha256 for suspect in suspects), (twin.sha256 for twin in duplicates))
    return _Pictures(fixed, broken, suspects, duplicates, urls=thumbnails(shown, holdout=holdout, decoder=decoder))
