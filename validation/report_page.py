"""The report as one HTML page for people: it opens from disk, needs no network and no script.

Its place in the flow: validate.py writes it beside report.json; whoever approves reads it first.
Figures come from the report and the verdict, photos from the holdout.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

from artifact_sync.errors import PhotoError
from artifact_sync.records import InputContract
from validation.holdout import Holdout, HoldoutItem, PhotoDecoder
from validation.policy import Policy
from validation.report import ChangedPhoto, Report
from validation.report_figures import confusion_matrices, forest_plot
from validation.verdict import Verdict

MAX_THUMBNAILS = 18
MAX_CONFUSIONS = 20
_THUMBNAIL = InputContract(height=96, width=96, channels=3)


@dataclass(frozen=True)
class Thumbnail:
    """A changed photo to look at; `url` is a data: URL, None when the photo could not be decoded."""

    photo: ChangedPhoto
    url: str | None


def render_page(report: Report, verdict: Verdict, *, policy: Policy, holdout: Holdout, decoder: PhotoDecoder) -> str:
    """Return the page as HTML; every text that came from outside is escaped."""
    environment = Environment(
        loader=PackageLoader("validation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["signed"] = lambda value, digits=4: f"{value:+.{digits}f}"
    return environment.get_template("report.html").render(
        report=report,
        verdict=verdict,
        policy=policy,
        sentence=sentence(report, verdict),
        fixed=thumbnails(report.fixed, holdout=holdout, decoder=decoder),
        broken=thumbnails(report.broken, holdout=holdout, decoder=decoder),
        forest=forest_plot(report),
        matrices=confusion_matrices(report),
        confusions=_confusions(report),
    )


def sentence(report: Report, verdict: Verdict) -> str:
    """Return the verdict in one sentence."""
    if report.paired is None or report.champion_reference is None:
        subject = f"Run {report.run_id}, a first model, answers {report.candidate_accuracy:.1%} of the photos rightly"
        endings = {
            "better": "and keeps every floor and limit of the policy.",
            "not better": "and does not keep what the policy demands.",
            "cannot tell": "but there are too few labels to say whether it keeps what the policy demands.",
        }
        return f"{subject} {endings[verdict.outcome]}"
    subject, rival = f"Run {report.run_id}", f"version {report.champion_reference.version}"
    figures = f"{report.candidate_accuracy:.1%} right against {report.champion_accuracy:.1%}"
    return {
        "better": f"{subject} is shown to be better than {rival}: {figures}.",
        "not better": f"{subject} is not better than {rival} in all that the policy demands: {figures}.",
        "cannot tell": f"These photos do not tell whether {subject} is better than {rival}: {figures}.",
    }[verdict.outcome]


def thumbnails(
    photos: Sequence[ChangedPhoto], *, holdout: Holdout, decoder: PhotoDecoder, limit: int = MAX_THUMBNAILS
) -> tuple[Thumbnail, ...]:
    """Return the first `limit` photos, small and freshly encoded: no original byte gets into the page."""
    items = {item.sha256: item for item in holdout.record.items}
    shown = [photo for photo in photos if photo.sha256 in items][:limit]
    decoded = decoder.decode_many(_read(holdout, [items[photo.sha256] for photo in shown]), _THUMBNAIL)
    return tuple(
        Thumbnail(photo=photo, url=None if isinstance(pixels, PhotoError) else _data_url(pixels))
        for photo, pixels in zip(shown, decoded, strict=True)
    )


def _confusions(report: Report) -> list[tuple[int, str, str]]:
    """Return the candidate's most frequent confusions as (count, true label, answer)."""
    found = [
        (count, report.labels[truth], report.labels[answer])
        for truth, row in enumerate(report.candidate.confusion)
        for answer, count in enumerate(row[:-1])
        if count and truth != answer
    ]
    return sorted(found, reverse=True)[:MAX_CONFUSIONS]


def _read(holdout: Holdout, items: Sequence[HoldoutItem]) -> Iterator[bytes]:
    for item in items:
        yield holdout.read_photo(item)


def _data_url(pixels: NDArray[np.uint8]) -> str:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
