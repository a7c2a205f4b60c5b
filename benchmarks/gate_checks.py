"""How often the gate itself (`validation.checks.gate.confirms`) confirms a candidate that violates one demand.

Its place in the flow: gate.py prints these rows beside the histories, whose rules look at accuracy only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.gate_rules import p_value, paired
from benchmarks.gate_trainers import Mask
from validation.answers import Answers
from validation.checks.gate import confirms
from validation.checks.policy import AccuracyRule, MetricRule, PerClassRule, PerSliceRule, Policy
from validation.photos.holdout import HoldoutItem

MARGIN = 0.03
PHOTOS = 900
SMALL_SHARE = 0.2
_BETTER = (0.08, 0.02)
"""How often a candidate fixes and breaks a photo where it is clearly better."""
_ON_THE_MARGIN = (0.03, 0.03 + MARGIN)
"""The same where it loses exactly the margin, the hardest of all losses that are too much."""


@dataclass(frozen=True)
class CheckRow:
    """One kind of violation: how many of how many candidates were confirmed at the level."""

    name: str
    level: float
    confirmed: int
    candidates: int


def violations() -> dict[str, Policy]:
    """Return the demands by the violation that they meet."""
    accuracy = AccuracyRule(test="superiority", alpha=0.05, minimum_photos=1)
    lenient = AccuracyRule(test="non-inferiority", margin=0.5, alpha=0.05, minimum_photos=1)
    in_class, in_slice = PerClassRule(minimum_photos=1, margin=MARGIN), PerSliceRule(minimum_photos=1, margin=MARGIN)
    f1, log_loss = (MetricRule(name=name, test="superiority") for name in ("macro_f1", "log_loss"))
    return {
        "one class loses the margin": Policy(accuracy=accuracy, per_class=in_class),
        "one slice loses the margin": Policy(accuracy=accuracy, per_slice=in_slice),
        "equal in macro-F1 (bootstrap)": Policy(accuracy=lenient, metrics=(f1,)),
        "equal in log loss (bootstrap)": Policy(accuracy=lenient, metrics=(log_loss,)),
    }


def violation_costs() -> dict[str, int]:
    """Return for each violation how many times fewer candidates are asked about, since a bootstrap takes its time."""
    return {name: 5 if policy.metrics else 1 for name, policy in violations().items()}


def check_row(name: str, *, level: float, candidates: int, seed: int) -> CheckRow:
    """Ask the gate about candidates that are better over all, or equal, but violate the named demand."""
    policy = violations()[name]
    random = np.random.default_rng([seed, *name.encode()])
    confirmed = sum(
        confirms(_answers(random, is_equal=bool(policy.metrics)), policy=policy, level=level) for _ in range(candidates)
    )
    return CheckRow(name, level, confirmed, candidates)


def disagreements_with_gate(*, level: float, candidates: int, seed: int) -> int:
    """Return how often the test of the histories and the whole gate answer differently; it should be never."""
    random = np.random.default_rng([seed, 99])
    policy = Policy(accuracy=AccuracyRule(test="superiority", alpha=0.05, minimum_photos=1))
    count = 0
    for _ in range(candidates):
        answers = _answers(random, is_equal=False, better=(0.06, 0.04))
        right, rival = (scores.argmax(axis=1) == answers.truth for scores in (answers.candidate, answers.champion))
        count += confirms(answers, policy=policy, level=level) != (p_value(paired(right, rival)) <= level)
    return count


def _answers(random: np.random.Generator, *, is_equal: bool, better: tuple[float, float] = _BETTER) -> Answers:
    """Draw sealed photos; the small class, which is also the small slice, loses the margin unless all is equal."""
    small = np.arange(PHOTOS) < PHOTOS * SMALL_SHARE
    truth = np.where(small, 0, 1 + np.arange(PHOTOS) % 2).astype(np.int64)
    rival = random.random(PHOTOS) < 0.85
    if is_equal:
        right = np.where(random.random(PHOTOS) < 0.3, random.random(PHOTOS) < 0.85, rival)
    else:
        fixes, breaks = np.where(small[:, None], _ON_THE_MARGIN, better).T
        # Rates are of all photos: where the champion is right already, nothing can be fixed.
        changes = random.random(PHOTOS) < np.where(rival, breaks / 0.85, fixes / 0.15)
        right = rival ^ changes
    items = tuple(
        HoldoutItem.model_construct(
            sha256=f"{number:064x}",
            extension="png",
            label="abc"[truth[number]],
            source="",
            slices={"site": "small" if small[number] else "large"},
            is_open=False,
        )
        for number in range(PHOTOS)
    )
    return Answers(
        labels=("a", "b", "c"),
        items=items,
        truth=truth,
        candidate=_scores(right, truth, random),
        champion=_scores(rival, truth, random),
    )


def _scores(right: Mask, truth: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.float32]:
    answer = np.where(right, truth, (truth + random.integers(1, 3, len(truth))) % 3)
    best = random.uniform(0.5, 0.9, len(truth))
    scores = np.repeat(((1 - best) / 2)[:, None], 3, axis=1)
    scores[np.arange(len(truth)), answer] = best
    return scores.astype(np.float32)
