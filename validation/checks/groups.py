"""The groups of photos that a policy looks at by themselves, classes and slices, and what is counted in them.

Its place in the flow: comparison.py fills the report with these counts, the gate's checks hold
them against the policy. Only numbers leave here, no photo.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from validation.answers import Answers
from validation.checks.policy import Policy
from validation.figures.metrics import predicted_classes
from validation.figures.statistics import PairedCounts
from validation.photos.holdout_record import HoldoutItem

Members = NDArray[np.int64]
"""The positions of a group's photos among all photos, [k]."""


@dataclass(frozen=True)
class Group:
    """The photos of one class (`column` is None), or those with one value in a slice column."""

    value: str
    column: str | None = None

    @property
    def name(self) -> str:
        """How reasons call it: "cat", or "device = phone"."""
        return self.value if self.column is None else f"{self.column} = {self.value}"


@dataclass(frozen=True)
class Tally:
    """How many photos, how many of them the candidate answers rightly, and what changed; None without a champion."""

    n: int
    right: int
    paired: PairedCounts | None

    @property
    def accuracy(self) -> float:
        """The candidate's share of right answers; 0 of none."""
        return self.right / self.n if self.n else 0.0


@dataclass(frozen=True)
class Counts:
    """All that the gate needs to know of a set of answers beside the metrics."""

    whole: Tally
    classes: Mapping[Group, Tally]
    slices: Mapping[Group, Tally]


@dataclass(frozen=True)
class Sizes:
    """How many photos there are, in all and in each class and slice."""

    photos: int
    groups: Mapping[Group, int]

    def of(self, group: Group | None) -> int:
        """Return the photos of `group`; None stands for all."""
        return self.photos if group is None else self.groups.get(group, 0)


def slice_columns(items: Sequence[HoldoutItem]) -> tuple[str, ...]:
    """Return the slice columns that any photo has, sorted."""
    return tuple(sorted({column for item in items for column in item.slices}))


def class_members(labels: Sequence[str], truth: NDArray[np.int64]) -> dict[Group, Members]:
    """Return the photos of each label, of which there may be none; `truth` [n] holds indices of labels."""
    order = np.argsort(truth, kind="stable")
    ends = np.cumsum(np.bincount(truth, minlength=len(labels)))
    parts = np.split(order, ends[:-1])
    return {Group(label): part.astype(np.int64) for label, part in zip(labels, parts, strict=True)}


def slice_members(items: Sequence[HoldoutItem], *, columns: Sequence[str]) -> dict[Group, Members]:
    """Return the photos of each value of `columns`, sorted by column and value."""
    found: dict[Group, Members] = {}
    for column in sorted(columns):
        places: dict[str, list[int]] = {}
        for place, item in enumerate(items):
            value = item.slices.get(column)
            if value is not None:
                places.setdefault(value, []).append(place)
        found |= {Group(value, column): np.array(places[value], dtype=np.int64) for value in sorted(places)}
    return found


def judged_columns(items: Sequence[HoldoutItem], policy: Policy) -> tuple[str, ...]:
    """Return the slice columns that the policy makes demands on: those it names, or all."""
    if policy.per_slice is None:
        return ()
    return policy.per_slice.columns or slice_columns(items)


def judged_sizes(items: Sequence[HoldoutItem], *, labels: Sequence[str], policy: Policy) -> Sizes:
    """Return how many photos each class and slice has that the policy makes demands on."""
    index = {label: position for position, label in enumerate(labels)}
    members = slice_members(items, columns=judged_columns(items, policy))
    if policy.per_class is not None:
        members |= class_members(labels, np.array([index[item.label] for item in items], dtype=np.int64))
    return Sizes(photos=len(items), groups={group: len(indices) for group, indices in members.items()})


def right_answers(answers: Answers) -> tuple[NDArray[np.bool_], NDArray[np.bool_] | None]:
    """Return which photos the candidate answers rightly, bool [n], and which the champion."""
    champion = answers.champion
    return (
        predicted_classes(answers.candidate) == answers.truth,
        None if champion is None else predicted_classes(champion) == answers.truth,
    )


def judged_counts(answers: Answers, *, policy: Policy) -> Counts:
    """Return what is answered rightly in all, and in each class and slice that the policy makes demands on."""
    right = right_answers(answers)
    classes = {} if policy.per_class is None else class_members(answers.labels, answers.truth)
    slices = slice_members(answers.items, columns=judged_columns(answers.items, policy))
    return Counts(
        whole=tally(*right, np.arange(len(answers), dtype=np.int64)),
        classes={group: tally(*right, members) for group, members in classes.items()},
        slices={group: tally(*right, members) for group, members in slices.items()},
    )


def tally(candidate: NDArray[np.bool_], champion: NDArray[np.bool_] | None, members: Members) -> Tally:
    """Return what is counted among `members` of the photos that each model answers rightly, bool [n]."""
    own = candidate[members]
    paired = None
    if champion is not None:
        rival = champion[members]
        paired = PairedCounts(
            n=len(members),
            both_right=int((own & rival).sum()),
            candidate_only=int((own & ~rival).sum()),
            champion_only=int((~own & rival).sum()),
        )
    return Tally(n=len(members), right=int(own.sum()), paired=paired)
