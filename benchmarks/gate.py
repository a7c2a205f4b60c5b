"""How often rules of promotion let through a candidate that is only as good, or worse: `python benchmarks/gate.py`.

Each history is a holdout and a number of candidates that are compared with the same champion one
after the other; a history is spoilt when one or more of its bad candidates go through. The gate's
own rule is the exact McNemar test of validation/statistics.py at alpha for a single comparison.
Its promise is about one comparison; what ten of them add up to is shown, not hidden.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from validation.power import superiority_power
from validation.proportions import proportion_interval

Counts = NDArray[np.int64]
Rule = Callable[[Counts, Counts], NDArray[np.bool_]]


@dataclass(frozen=True)
class World:
    """What is simulated: photos, the share on which models differ, the candidates' true gain."""

    name: str
    photos: int
    disagreement: float
    gain: float
    tries: int


WORLDS = (
    World("equal, one try", 1000, 0.08, 0.0, 1),
    World("equal, ten tries", 1000, 0.08, 0.0, 10),
    World("slightly worse, one try", 1000, 0.08, -0.005, 1),
    World("slightly worse, ten tries", 1000, 0.08, -0.005, 10),
    World("equal, one try, 10,000 photos", 10_000, 0.08, 0.0, 1),
    World("better by 2 points, one try", 1000, 0.05, 0.02, 1),
)


def rules(alpha: float, photos: int) -> dict[str, Rule]:
    """Return the rules that are compared; each says which of the (fixed, broken) pairs go through."""
    return {
        "accuracy is higher": lambda fixed, broken: fixed > broken,
        "higher by 0.5 points": lambda fixed, broken: fixed - broken >= 0.005 * photos,
        f"McNemar at {alpha:g}": lambda fixed, broken: stats.binom.sf(fixed - 1, fixed + broken, 0.5) <= alpha,
    }


def simulate(world: World, *, histories: int, random: np.random.Generator) -> tuple[Counts, Counts]:
    """Draw (fixed, broken) for every candidate, int64 [histories, tries]."""
    shape = (histories, world.tries)
    decided = random.binomial(world.photos, world.disagreement, shape)
    fixed = random.binomial(decided, (world.disagreement + world.gain) / (2 * world.disagreement))
    return fixed, decided - fixed


def main() -> None:
    """Print one table a world."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--histories", type=int, default=20_000)
    parser.add_argument("--alpha", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=20261120)
    arguments = parser.parse_args()
    random = np.random.default_rng(arguments.seed)
    print(
        f"seed {arguments.seed}, {arguments.histories:,} histories each; upper = upper end of the exact 95 % interval"
    )
    for world in WORLDS:
        fixed, broken = simulate(world, histories=arguments.histories, random=random)
        print(f"\n{world.name}: {world.photos:,} photos, {world.disagreement:.0%} of answers differ")
        for name, rule in rules(arguments.alpha, world.photos).items():
            let_through = int(rule(fixed, broken).any(axis=1).sum())
            upper = proportion_interval(let_through, arguments.histories)[1]
            print(f"  {name:<22} {let_through / arguments.histories:7.2%}   upper {upper:7.2%}")
        if world.gain > 0:
            power = superiority_power(
                world.photos, gain=world.gain, disagreement=world.disagreement, alpha=arguments.alpha
            )
            print(f"  {'computed power':<22} {power:7.2%}")


if __name__ == "__main__":
    main()
