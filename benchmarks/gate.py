"""How often rules of promotion let through a model that is not better, and what that costs in labels.

    python benchmarks/gate.py [--quick] [--json FILE]

Each history is a holdout of 1,000 photos and a trainer who sends 10 to 50 candidates and sees what
the rule shows of each (gate_trainers.py, gate_rules.py). A history is spoilt when one or more
candidates are promoted that are not better than the champion of that time. docs/gate.md derives the
bound that is measured here.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

# As a program, this folder comes first on the path, and its serving.py would hide the package.
sys.path[0] = str(Path(__file__).parent.parent)

import numpy as np

from benchmarks.gate_checks import CheckRow, check_row, disagreements_with_gate, violation_costs
from benchmarks.gate_power import PowerRow, power_rows
from benchmarks.gate_rules import rules
from benchmarks.gate_trainers import TRAINERS, Equal, Photos
from validation.budgets.budget import Terms
from validation.figures.proportions import proportion_interval

PHOTOS = 1000
DISAGREEMENT = 0.08
OPEN_SHARE = 0.1
TRIES = (10, 50)


@dataclass(frozen=True)
class Cell:
    """One trainer against one rule: the spoilt histories, and the true gains that were promoted on the way."""

    trainer: str
    rule: str
    spoilt: int
    histories: int
    promoted: int

    @property
    def upper(self) -> float:
        """The exact one-sided upper 95 % bound of the share of spoilt histories."""
        return proportion_interval(self.spoilt, self.histories, confidence=0.9)[1]


def play(make_trainer: type[Equal], rule_name: str, *, alpha: float, seed: Sequence[int]) -> tuple[bool, int]:
    """Play one history; return whether it is spoilt, and how many better candidates were promoted before."""
    random = np.random.default_rng(seed)
    photos = Photos.draw(random, n=PHOTOS, disagreement=DISAGREEMENT, open_share=OPEN_SHARE)
    rule, trainer = rules(alpha, tries=TRIES[1])[rule_name](photos), make_trainer(photos, random)
    promoted = 0
    for _ in range(random.integers(TRIES[0], TRIES[1] + 1)):
        candidate = trainer.propose()
        feedback = rule.judge(candidate.answer)
        if feedback is None:
            break
        if feedback.is_promoted and candidate.gain <= 0:
            return True, promoted
        trainer.learn(candidate, feedback)
        if feedback.is_promoted:
            promoted += 1
            photos.champion = candidate.answer
    return False, promoted


def play_many(job: tuple[int, str, int, float, int]) -> Cell:
    """Play all histories of one trainer against one rule; every rule meets the same photos."""
    index, rule_name, histories, alpha, seed = job
    played = [play(TRAINERS[index], rule_name, alpha=alpha, seed=(seed, index, number)) for number in range(histories)]
    return Cell(
        trainer=TRAINERS[index].name,
        rule=rule_name,
        spoilt=sum(is_spoilt for is_spoilt, _ in played),
        histories=histories,
        promoted=sum(promoted for _, promoted in played),
    )


def main() -> None:
    """Print the tables and, if asked, write their figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the histories")
    parser.add_argument("--histories", type=int, default=4000)
    parser.add_argument("--alpha", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=20261120)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    given = parser.parse_args()
    histories = given.histories // 10 if given.quick else given.histories
    began = time.monotonic()
    print(
        f"seed {given.seed}, alpha {given.alpha:g}, {histories:,} histories of {TRIES[0]} to {TRIES[1]} candidates on "
        f"{PHOTOS:,} photos, {DISAGREEMENT:.0%} of answers differing, {OPEN_SHARE:.0%} of the photos open"
    )
    names = tuple(rules(given.alpha, tries=TRIES[1]))
    jobs = [(i, name, histories, given.alpha, given.seed) for name in names for i in range(len(TRAINERS))]
    candidates = 50 if given.quick else 1000
    with ProcessPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        played = [pool.submit(play_many, job) for job in jobs]
        checked = [
            pool.submit(check_row, name, level=given.alpha / 2, candidates=candidates // cost, seed=given.seed)
            for name, cost in violation_costs().items()
        ]
        cells = [cell.result() for cell in played]
        show_histories(cells, names)
        checks = [check.result() for check in checked]
    power = [
        row
        for terms in (
            Terms(alpha=given.alpha, tries=10, promotions=2),
            Terms(alpha=given.alpha, tries=50, promotions=3),
        )
        for gain in (0.02, 0.01)
        for row in power_rows(
            terms,
            gain=gain,
            disagreement=0.05,
            power=0.8,
            open_share=OPEN_SHARE,
            draws=2000 if given.quick else 20_000,
            seed=given.seed,
        )
    ]
    show_power(power)
    different = disagreements_with_gate(level=given.alpha / 2, candidates=candidates, seed=given.seed)
    show_checks(checks, different=different, candidates=candidates)
    print(f"\n{time.monotonic() - began:.0f} s")
    if given.json is not None:
        figures = {
            "histories": [asdict(cell) | {"upper": cell.upper} for cell in cells],
            "power": [asdict(row) | {"terms": row.terms.model_dump(), "ratio": row.ratio} for row in power],
            "checks": [asdict(row) for row in checks],
            "different": different,
        }
        given.json.write_text(json.dumps(figures, indent=1))


def show_histories(cells: Sequence[Cell], names: Sequence[str]) -> None:
    """Print the share of spoilt histories of each trainer under each rule, and its upper bound."""
    print("\nHistories that promote a model that is not better (exact upper 95 % bound)")
    print(f"{'':<34}" + "".join(f"{trainer.name:>25}" for trainer in TRAINERS))
    for name in names:
        row = [cell for cell in cells if cell.rule == name]
        print(f"{name:<34}" + "".join(f"{c.spoilt / c.histories:>13.2%} (≤ {c.upper:6.2%})" for c in row))
    improving = [cell for cell in cells if cell.trainer == TRAINERS[-1].name]
    print("True gains that were promoted for each history of the last trainer:")
    for cell in improving:
        print(f"{cell.rule:<34}{cell.promoted / cell.histories:>13.2f}", flush=True)


def show_power(rows: Sequence[PowerRow]) -> None:
    """Print the labels for 80 % power in each situation, and the share found with so many in simulation."""
    print("\nLabels, open and sealed, for 80 % power; 5 % of answers differ; found: simulated")
    print(
        f"{'tries':>5} {'gain':>5}  {'situation':<48}{'level':>9}{'labels':>8}{'one test':>9}{'ratio':>6}{'found':>7}"
    )
    for row in rows:
        print(
            f"{row.terms.tries:>5} {row.gain:>5.0%}  {row.situation:<48}{row.level:>9.5f}{row.labels:>8,}"
            f"{row.single:>9,}{row.ratio:>6.2f}{row.found:>7.1%}"
        )


def show_checks(rows: Sequence[CheckRow], *, different: int, candidates: int) -> None:
    """Print how often the whole gate confirms a candidate that violates one demand."""
    print("\nCandidates that violate one demand, confirmed by the whole gate (exact upper 95 % bound)")
    for row in rows:
        upper = proportion_interval(row.confirmed, row.candidates, confidence=0.9)[1]
        print(f"{row.name:<34}at level {row.level:g}: {row.confirmed / row.candidates:.2%} (≤ {upper:.2%})")
    print(f"Accuracy alone, the test above and the whole gate differ on {different} of {candidates:,} candidates.")


if __name__ == "__main__":
    main()
