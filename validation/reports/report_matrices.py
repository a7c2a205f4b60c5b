"""The confusion matrices of the report page: tables for few classes, a picture and lists for more.

Its place in the flow: report_page.py hands them to the template.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from validation.reports.report import ModelMeasurements, Report

MAX_TABLE_CLASSES = 20
"""More classes than this make no readable table; pairs of classes are listed instead."""

MAX_PICTURE_CLASSES = 200
"""More classes than this make no readable picture either."""

MAX_LISTED = 15
_NO_ANSWER = "no answer"
_MORE_WRONG, _LESS_WRONG = (200, 50, 40), (24, 140, 80)
_PLAIN = (60, 120, 200)
"""Readable on a light and on a dark ground; a cell's count is its opacity."""


@dataclass(frozen=True)
class Matrix:
    """Counts [true class, answer]; `answers` names the columns."""

    title: str
    counts: NDArray[np.int64]
    answers: tuple[str, ...]
    is_difference: bool

    @property
    def largest(self) -> int:
        """What the darkest cell stands for, at least 1."""
        return max(1, int(np.abs(self.counts).max()))


@dataclass(frozen=True)
class Picture:
    """A matrix as a picture, one square a pair of classes; `url` is a data: URL."""

    title: str
    url: str
    is_difference: bool


@dataclass(frozen=True)
class Confusion:
    """Photos of class `truth` that are answered `answer`, by the candidate and by the champion."""

    truth: str
    answer: str
    candidate: int
    champion: int | None

    @property
    def change(self) -> int:
        """How many more than the champion's."""
        return self.candidate - (self.champion or 0)


def confusion_matrices(report: Report) -> tuple[Matrix, ...]:
    """Return the matrices, the difference first, with a column for photos without an answer where there are any."""
    candidate = _counts(report.candidate)
    champion = None if report.champion is None else _counts(report.champion)
    answers = (*report.labels, _NO_ANSWER)
    if not candidate[:, -1].any() and (champion is None or not champion[:, -1].any()):
        answers, candidate = answers[:-1], candidate[:, :-1]
        champion = None if champion is None else champion[:, :-1]
    matrices = [Matrix("Candidate", candidate, answers, is_difference=False)]
    if champion is not None:
        difference = Matrix("Candidate minus champion", candidate - champion, answers, is_difference=True)
        matrices = [difference, *matrices, Matrix("Champion", champion, answers, is_difference=False)]
    return tuple(matrices)


def draw(matrix: Matrix) -> Picture:
    """Return a matrix as a picture: right answers are left out, since mistakes would not be seen beside them."""
    counts = matrix.counts.copy()
    if not matrix.is_difference:
        np.fill_diagonal(counts, 0)
    strength = np.abs(counts) / max(1, int(np.abs(counts).max()))
    pixels = np.zeros((*counts.shape, 4), dtype=np.uint8)
    is_good = (counts > 0) == (np.arange(counts.shape[1]) == np.arange(counts.shape[0])[:, None])
    pixels[..., :3] = np.where(is_good[..., None], _LESS_WRONG, _MORE_WRONG) if matrix.is_difference else _PLAIN
    # A single photo must be seen too.
    pixels[..., 3] = np.where(counts != 0, 90 + 165 * strength, 0).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels, mode="RGBA").save(stream, format="PNG", optimize=True)
    url = "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
    return Picture(title=matrix.title, url=url, is_difference=matrix.is_difference)


def frequent_confusions(report: Report) -> tuple[Confusion, ...]:
    """Return the candidate's most frequent wrong answers."""
    found = [confusion for confusion in _confusions(report) if confusion.candidate]
    return tuple(sorted(found, key=lambda one: (-one.candidate, one.truth, one.answer))[:MAX_LISTED])


def changed_confusions(report: Report) -> tuple[Confusion, ...]:
    """Return the wrong answers whose number differs most between the models; none without a champion."""
    if report.champion is None:
        return ()
    found = [confusion for confusion in _confusions(report) if confusion.change]
    return tuple(sorted(found, key=lambda one: (-abs(one.change), one.truth, one.answer))[:MAX_LISTED])


def _confusions(report: Report) -> list[Confusion]:
    candidate = _counts(report.candidate)
    champion = np.zeros_like(candidate) if report.champion is None else _counts(report.champion)
    answers = (*report.labels, _NO_ANSWER)
    return [
        Confusion(
            truth=report.labels[truth],
            answer=answers[answer],
            candidate=int(candidate[truth, answer]),
            champion=None if report.champion is None else int(champion[truth, answer]),
        )
        for truth, answer in np.argwhere((candidate != 0) | (champion != 0))
        if truth != answer
    ]


def _counts(model: ModelMeasurements) -> NDArray[np.int64]:
    return np.array(model.confusion, dtype=np.int64)
