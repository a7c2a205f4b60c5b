"""How often the bounds of a metric's gain are wrong: BCa alone, and the more cautious bound that the gate uses.

`python benchmarks/metric_bounds.py` draws samples from a large population of photos whose true gain is
known, and prints the share of samples whose lower bound lies over it, divided by the level: 1 is what
was promised, less is caution, more is a broken promise. `--quick` draws fewer samples.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[0] = str(REPOSITORY)

from validation.checks.policy import MetricName
from validation.figures import bootstrap as engine
from validation.figures.metric_sums import Side, summed_gain
from validation.figures.metrics import LESS_IS_BETTER, metric_value
from validation.figures.pseudo_photos import PseudoPhotos

SEED = 11
POPULATION, CLASSES, TOP_K = 60_000, 5, 2
LEVELS = (0.05, 0.005)
SIDES: tuple[Side | None, ...] = (None, "lower")
COSTS = np.array([[0.0, 20, 20, 20, 20]] + [[1.0] * row + [0.0] + [1.0] * (4 - row) for row in range(1, 5)])
Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Population:
    """Every photo there is: its class, and what both models answer."""

    truth: NDArray[np.int64]
    candidate: Scores
    champion: Scores


def equal(random: np.random.Generator, *, classes: tuple[float, ...] = (0.2,) * 5) -> Population:
    """Two models that are as good and err on different photos."""
    truth = random.choice(CLASSES, POPULATION, p=classes)
    seen = random.normal(size=(POPULATION, CLASSES)) + 2 * np.eye(CLASSES)[truth]
    noise = 0.5 * random.normal(size=(2, POPULATION, CLASSES))
    return Population(truth, _softmax(1.5 * (seen + noise[0])), _softmax(1.5 * (seen + noise[1])))


def rare(random: np.random.Generator) -> Population:
    """As `equal`, with classes of 1 % and 3 %."""
    return equal(random, classes=(0.01, 0.03, 0.16, 0.3, 0.5))


def alike(random: np.random.Generator) -> Population:
    """As `equal`, but only 3 % of the photos are answered differently at all."""
    models = equal(random)
    same = random.random(POPULATION) < 0.97
    return Population(models.truth, models.candidate, np.where(same[:, np.newaxis], models.candidate, models.champion))


def disaster(random: np.random.Generator) -> Population:
    """A candidate that is a little surer, and wholly and surely wrong on 4 photos in 1,000."""
    models = equal(random)
    surer = _softmax(1.6 * np.log(models.champion))
    wrong = np.eye(CLASSES, dtype=np.float32)[(models.truth + 1) % CLASSES]
    fails = random.random(POPULATION) < 0.004
    return Population(models.truth, np.where(fails[:, np.newaxis], wrong, surer), models.champion)


def calibrated(random: np.random.Generator) -> Population:
    """A champion whose scores keep their word, and a candidate whose scores nearly do."""
    seen = random.normal(size=(POPULATION, CLASSES))
    champion = _softmax(2 * seen)
    drawn = random.random(POPULATION)[:, np.newaxis]
    truth = np.minimum((champion.cumsum(axis=1) < drawn).sum(axis=1), CLASSES - 1)
    return Population(truth, _softmax(2 * seen + 0.3 * random.normal(size=seen.shape)), champion)


KINDS: dict[str, Callable[[np.random.Generator], Population]] = {
    each.__name__: each for each in (equal, rare, alike, disaster, calibrated)
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--photos", type=int, default=300)
    parser.add_argument("--quick", action="store_true", help="100 samples of the two harshest populations")
    arguments = parser.parse_args()
    kinds, samples = (("alike", "disaster"), 100) if arguments.quick else (tuple(KINDS), arguments.samples)
    print(f"{samples:,} samples of {arguments.photos:,} photos, seed {SEED}; share of wrong bounds over the level")
    shown = "".join(f"{name + f' {level:g}':>14}" for name in ("BCa", "used") for level in LEVELS)
    print(f"{'population':<12}{'metric':<20}{'true gain':>10}{shown}")
    jobs = [(kind, name, samples, arguments.photos) for kind in kinds for name in get_args(MetricName)]
    with Pool(2) as pool:
        for line in pool.imap(row, jobs):
            print(line, flush=True)


def row(job: tuple[str, MetricName, int, int]) -> str:
    """Return one line of the table."""
    kind, name, samples, photos = job
    engine.RESAMPLES = 1_999
    random = np.random.default_rng(SEED)
    population = KINDS[kind](random)
    gain = true_gain(name, population)
    wrong = np.array([list(_is_wrong(name, population, gain, photos, random)) for _ in range(samples)])
    ratios = wrong.mean(axis=0).ravel() / np.tile(LEVELS, 2)
    return f"{kind:<12}{name:<20}{gain:>+10.4f}" + "".join(f"{ratio:>14.2f}" for ratio in ratios)


def true_gain(name: MetricName, population: Population) -> float:
    """Return the gain over the whole population."""
    values = [
        metric_value(name, population.truth, scores, top_k=TOP_K, costs=COSTS) or 0.0
        for scores in (population.candidate, population.champion)
    ]
    return (-1 if name in LESS_IS_BETTER else 1) * (values[0] - values[1])


def _is_wrong(
    name: MetricName, population: Population, gain: float, photos: int, random: np.random.Generator
) -> Iterator[list[bool]]:
    """Draw a sample; yield whether BCa's lower bounds lie over the true gain, and those in use."""
    chosen = random.integers(0, POPULATION, photos)
    plain, used = (
        summed_gain(
            name,
            population.truth[chosen],
            candidate=population.candidate[chosen],
            champion=population.champion[chosen],
            sign=-1 if name in LESS_IS_BETTER else 1,
            top_k=TOP_K,
            costs=COSTS,
            side=side,
        )
        for side in SIDES
    )
    seed = int(random.integers(2**32))
    trusting, drawn = (engine.bootstrap(figure, seed=seed) for figure in (plain, used))
    pseudo = PseudoPhotos.of(used)
    both = (
        [trusting.lower_bound(level) for level in LEVELS],
        [min(drawn.lower_bound(level), pseudo.lower_bound(level)) for level in LEVELS],
    )
    for bounds in both:
        yield [bound > gain + 1e-12 for bound in bounds]


def _softmax(logits: NDArray[np.floating]) -> Scores:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (raised / raised.sum(axis=1, keepdims=True)).astype(np.float32)


if __name__ == "__main__":
    main()
