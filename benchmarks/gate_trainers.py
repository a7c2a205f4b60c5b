"""Trainers who send one candidate after another to a gate and learn from what it shows; photo by photo.

Their place in the flow: gate.py lets each of them meet each rule of gate_rules.py.

The photos have two labels. On the hard ones (twice the disagreement) nothing in the photo says which
label is right, so on fresh photos every model is right on half of them, whatever it was told before;
on the easy ones models are right alike, but for what a candidate truly gains or loses. So it is known
of every candidate whether it is better, and only a trainer who has seen results can look better.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

EASY_ACCURACY = 0.92
SMALL_LOSS = 0.005
TRUE_GAIN = 0.04


@dataclass
class Photos:
    """One holdout: which photos are hard, their labels, which are open, and the champion's answers."""

    hard: Mask
    label: Mask
    is_open: Mask
    champion: Mask

    @classmethod
    def draw(cls, random: np.random.Generator, *, n: int, disagreement: float, open_share: float) -> Photos:
        """Draw fresh photos and a champion."""
        hard = random.random(n) < 2 * disagreement
        label = random.random(n) < 0.5
        is_easy_right = random.random(n) < EASY_ACCURACY
        champion = np.where(hard, random.random(n) < 0.5, label == is_easy_right)
        is_open = np.arange(n) < round(n * open_share)
        return cls(hard=hard, label=label, is_open=is_open, champion=champion)


@dataclass(frozen=True)
class Candidate:
    """What a candidate answers, and what it truly gains over the champion on fresh photos."""

    answer: Mask
    gain: float


@dataclass(frozen=True)
class Feedback:
    """What the gate shows of one candidate.

    Attributes:
        is_promoted: the verdict.
        shown: the photos with their labels and results that the report shows.
        figure: the gain of accuracy that the report states, of the photos that its figures are of.
    """

    is_promoted: bool
    shown: Mask
    figure: float


class Equal:
    """Sends candidates that are exactly as good as the champion, each trained anew."""

    name = "equal, independent"

    def __init__(self, photos: Photos, random: np.random.Generator) -> None:
        self.photos, self.random = photos, random

    def propose(self) -> Candidate:
        """Return the next candidate."""
        return Candidate(self._guessing(), 0.0)

    def learn(self, candidate: Candidate, feedback: Feedback) -> None:
        """Take no notice."""

    def _guessing(self) -> Mask:
        """The champion's answers to the easy photos, and new guesses on the hard ones."""
        guess = self.random.random(len(self.photos.hard)) < 0.5
        return np.where(self.photos.hard, guess, self.photos.champion)


class Correlated(Equal):
    """As Equal, but all candidates go back to one ancestor and share four fifths of its answers."""

    name = "equal, correlated"

    def __init__(self, photos: Photos, random: np.random.Generator) -> None:
        super().__init__(photos, random)
        self.ancestor = self._guessing()

    def propose(self) -> Candidate:
        """Return the next candidate."""
        keeps = self.random.random(len(self.ancestor)) < 0.8
        return Candidate(np.where(keeps, self.ancestor, self._guessing()), 0.0)


class Worse(Equal):
    """As Equal, but each candidate is wrong on a few more of the easy photos."""

    name = "slightly worse"

    def propose(self) -> Candidate:
        """Return the next candidate."""
        answer = self._guessing()
        lost = ~self.photos.hard & (answer == self.photos.label) & (self.random.random(len(answer)) < SMALL_LOSS)
        return Candidate(answer ^ lost, -SMALL_LOSS)


class Memorising(Equal):
    """Answers every photo that a report has shown as the report says, and guesses on the others."""

    name = "adaptive, memorising"

    def __init__(self, photos: Photos, random: np.random.Generator) -> None:
        super().__init__(photos, random)
        self.known = np.zeros(len(photos.hard), dtype=np.bool_)

    def propose(self) -> Candidate:
        """Return the next candidate."""
        return Candidate(np.where(self.known, self.photos.label, self._guessing()), 0.0)

    def learn(self, candidate: Candidate, feedback: Feedback) -> None:
        """Take in what the gate showed of the candidate."""
        self.known |= feedback.shown


class Boosting(Memorising):
    """Memorises what is shown; of the rest it lets earlier candidates vote, each with the weight of its verdict.

    The attack of Blum and Hardt (ICML 2015) on the leader board: every candidate that looked good by luck
    tells a little about the labels of the photos that decided. Two probes, then a vote of all probes.
    """

    name = "adaptive, boosting"

    def __init__(self, photos: Photos, random: np.random.Generator) -> None:
        super().__init__(photos, random)
        self.probes: list[Mask] = []
        self.scores: list[float] = []
        self.turn = 0

    def propose(self) -> Candidate:
        """Return the next candidate."""
        self.turn += 1
        answer = self._guessing()
        if self._votes:
            # What a probe says counts by how much better than the other probes it looked.
            weights = np.array(self.scores) - np.mean(self.scores)
            votes = weights @ (2.0 * np.array(self.probes) - 1.0)
            answer = np.where(self.photos.hard & (votes != 0), votes > 0, answer)
        return Candidate(np.where(self.known, self.photos.label, answer), 0.0)

    def learn(self, candidate: Candidate, feedback: Feedback) -> None:
        """Take in what the gate showed of the candidate."""
        super().learn(candidate, feedback)
        if not self._votes:
            self.probes.append(candidate.answer)
            self.scores.append(feedback.figure if feedback.shown.all() else float(feedback.is_promoted))

    @property
    def _votes(self) -> bool:
        return self.turn % 3 == 0


class Improving(Boosting):
    """Sends truly better candidates until one becomes champion, and then boosts against that one."""

    name = "improving, then boosting"

    def __init__(self, photos: Photos, random: np.random.Generator) -> None:
        super().__init__(photos, random)
        self.has_improved = False

    def propose(self) -> Candidate:
        """Return the next candidate."""
        noise = super().propose()
        if self.has_improved:
            return noise
        wrong = ~self.photos.hard & (noise.answer != self.photos.label)
        share = TRUE_GAIN / (1 - EASY_ACCURACY)
        return Candidate(noise.answer ^ (wrong & (self.random.random(len(wrong)) < share)), TRUE_GAIN)

    def learn(self, candidate: Candidate, feedback: Feedback) -> None:
        """Take in what the gate showed of the candidate."""
        super().learn(candidate, feedback)
        self.has_improved |= feedback.is_promoted


TRAINERS = (Equal, Correlated, Worse, Memorising, Boosting, Improving)
