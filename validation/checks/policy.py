"""What a person demands of a candidate, written in a TOML file before the candidate exists.

Its place in the flow: `liftgate validate` reads it, gate.py applies it, the verdict carries its
digest. There is no default policy: a gate that nobody set is shut.
"""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from artifact_sync.canonical import FrozenModel, Record
from artifact_sync.errors import RefusedError, SettingsError

Share = Annotated[float, Field(ge=0, le=1)]
OpenShare = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]


class AccuracyRule(FrozenModel):
    """What the candidate must show against the champion over all photos.

    Attributes:
        test: "superiority" (exact McNemar) or "non-inferiority" (exact, by Tango's score statistic).
        alpha: the accepted probability that a holdout ever lets through a candidate that is not better.
        power: the probability of finding a real gain, for the number of labels that is asked for.
        smallest_gain: the gain worth a promotion; a candidate that surely gains less is not better.
        margin: the loss still accepted; of non-inferiority only, and required there.
        minimum_photos: a holdout with fewer sealed photos decides nothing.
        floor: the accuracy below which nothing is served, whatever the champion does.
    """

    test: Literal["superiority", "non-inferiority"]
    alpha: Annotated[float, Field(gt=0, le=0.5)]
    power: Annotated[float, Field(ge=0.5, lt=1)] = 0.8
    smallest_gain: OpenShare = 0.01
    margin: OpenShare | None = None
    minimum_photos: Annotated[int, Field(ge=1)]
    floor: Share | None = None

    @model_validator(mode="after")
    def _margin_belongs_to_non_inferiority(self) -> Self:
        if (self.test == "non-inferiority") != (self.margin is not None):
            raise ValueError('test = "non-inferiority" needs a margin, and "superiority" takes none')
        return self


class PerClassRule(FrozenModel):
    """What must hold in each class.

    Attributes:
        minimum_photos: a class with fewer sealed photos decides nothing.
        recall_floor: the recall that each class must be shown to reach.
        recall_floors: the same for single classes by name; it goes before `recall_floor`.
        margin: the loss of recall against the champion that is still accepted in any class.
    """

    minimum_photos: Annotated[int, Field(ge=1)]
    recall_floor: OpenShare | None = None
    recall_floors: dict[str, OpenShare] = Field(default_factory=dict)
    margin: OpenShare | None = None

    def floor_of(self, label: str) -> float | None:
        """Return the recall that `label` must reach, None for none."""
        return self.recall_floors.get(label, self.recall_floor)


class PerSliceRule(FrozenModel):
    """What must hold in each value of the holdout's slice columns, such as every device or site.

    Attributes:
        columns: the columns; none means all that the holdout has.
        minimum_photos: a slice with fewer sealed photos decides nothing.
        margin: the loss of accuracy against the champion that is still accepted in any slice.
        accuracy_floor: the accuracy that the candidate must be shown to reach in every slice.
    """

    columns: tuple[str, ...] = ()
    minimum_photos: Annotated[int, Field(ge=1)]
    margin: OpenShare | None = None
    accuracy_floor: OpenShare | None = None

    @model_validator(mode="after")
    def _demands_something(self) -> Self:
        if self.margin is None and self.accuracy_floor is None:
            raise ValueError("a margin, an accuracy_floor or both must be set")
        if len(set(self.columns)) != len(self.columns):
            raise ValueError("columns must each be named once")
        return self


MetricName = Literal["macro_f1", "balanced_accuracy", "log_loss", "calibration_error", "top_k_accuracy", "mean_cost"]


class MetricRule(FrozenModel):
    """What the candidate must show in one metric beside accuracy, by a paired bootstrap (BCa).

    Attributes:
        name: the metric.
        test: "superiority" or "non-inferiority" against the champion.
        margin: the loss still accepted, in the metric's own unit; of non-inferiority only.
        floor: the value that the candidate must be shown to keep, champion or not: at least this
            where more is better, at most this where less is better; None for none.
    """

    name: MetricName
    test: Literal["superiority", "non-inferiority"]
    margin: Positive | None = None
    floor: Annotated[float, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _margin_belongs_to_non_inferiority(self) -> Self:
        if (self.test == "non-inferiority") != (self.margin is not None):
            raise ValueError('test = "non-inferiority" needs a margin, and "superiority" takes none')
        if self.floor is not None and self.floor > 1 and self.name not in {"log_loss", "mean_cost"}:
            raise ValueError(f"the floor of {self.name} is a share, so it must be at most 1")
        return self


class CostRule(FrozenModel):
    """What wrong answers cost: `wrong` for any, unless `pairs` says otherwise for (true label, answer).

    A right answer costs nothing. `pairs[true][answered]` is in the same unit as `wrong`.
    """

    wrong: Positive = 1.0
    pairs: dict[str, dict[str, Annotated[float, Field(ge=0)]]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _right_answers_cost_nothing(self) -> Self:
        costly = sorted(label for label, answers in self.pairs.items() if answers.get(label))
        if costly:
            raise ValueError(f"a right answer costs nothing: leave out pairs.{costly[0]}.{costly[0]}")
        return self


class BudgetRule(FrozenModel):
    """How often a holdout may decide (docs/gate.md); bound to the holdout by its first use.

    Attributes:
        tries: how many candidates the sealed photos may be asked about.
        promotions: how many of these may be found better before the holdout is opened.
    """

    tries: Annotated[int, Field(ge=1, le=1000)] = 10
    promotions: Annotated[int, Field(ge=1, le=20)] = 2

    @model_validator(mode="after")
    def _no_more_promotions_than_tries(self) -> Self:
        if self.promotions > self.tries:
            raise ValueError("promotions cannot be more than tries")
        return self


class SuspectRule(FrozenModel):
    """When a photo's label is suspect: both models give the same other answer with at least this score.

    `cleanlab` asks that library too, where it is installed (the extra `cleanlab`).
    """

    confidence: Annotated[float, Field(gt=0.5, le=1)] = 0.95
    cleanlab: bool = False


class LeakageRule(FrozenModel):
    """Photos of the holdout that look like training photos are left out; too many of them refuse it.

    Attributes:
        maximum_distance: at most so many of the perceptual hash's 128 bits differ in a near duplicate.
        maximum_share: of the holdout's photos, at most this share may be near duplicates.
    """

    maximum_distance: Annotated[int, Field(ge=0, le=7)] = 4
    maximum_share: Share = 0.1


class Limits(FrozenModel):
    """What the serving hosts can bear; a limit that is left out is not checked, except NaN.

    `memory_bytes` is of the server while it holds candidate and champion and answers.
    """

    size_bytes: Annotated[int, Field(gt=0)] | None = None
    load_seconds: Positive | None = None
    memory_bytes: Annotated[int, Field(gt=0)] | None = None
    latency_p50_ms: Positive | None = None
    latency_p95_ms: Positive | None = None
    latency_p99_ms: Positive | None = None
    latency_p95_ratio: Positive | None = None
    maximum_nan_share: Share = 0.0


class HoldoutRule(FrozenModel):
    """Which frozen holdout the demands were written for; None lets any be used."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None


class Policy(Record):
    """All demands; its digest in the verdict binds the decision to them."""

    schema_name: ClassVar[str] = "liftgate.policy/2"
    accuracy: AccuracyRule
    per_class: PerClassRule | None = None
    per_slice: PerSliceRule | None = None
    metrics: tuple[MetricRule, ...] = ()
    top_k: Annotated[int, Field(ge=2, le=100)] = 5
    costs: CostRule | None = None
    budget: BudgetRule = BudgetRule()
    suspect_labels: SuspectRule = SuspectRule()
    leakage: LeakageRule = LeakageRule()
    limits: Limits = Limits()
    holdout: HoldoutRule = HoldoutRule()

    @model_validator(mode="after")
    def _each_metric_once(self) -> Self:
        names = [rule.name for rule in self.metrics]
        if len(set(names)) != len(names):
            raise ValueError("metrics must each be named once")
        if "mean_cost" in names and self.costs is None:
            raise ValueError("the metric mean_cost needs the table [costs]")
        return self

    @property
    def has_floor(self) -> bool:
        """Whether a candidate without a champion to beat is held to anything."""
        classes, slices = self.per_class, self.per_slice
        return (
            self.accuracy.floor is not None
            or bool(classes and (classes.recall_floor or classes.recall_floors))
            or bool(slices and slices.accuracy_floor)
            or any(rule.floor is not None for rule in self.metrics)
        )


def load_policy(path: Path | None) -> Policy:
    """Return the policy of a TOML file.

    Raises:
        RefusedError: there is no policy; nothing passes a gate that nobody set.
        SettingsError: the file is not TOML, or a key is unknown, missing or out of range.
    """
    if path is None or not path.is_file():
        named = "no policy_path is set" if path is None else f"{path} does not exist"
        raise RefusedError(
            f"Validation refused: there is no policy ({named}). Write down what a candidate must show; "
            f"{Path(__file__).parents[1] / 'templates' / 'policy.toml'} is an example to copy."
        )
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"The policy {path} is not TOML: {error}.") from None
    try:
        return Policy.model_validate(document)
    except ValidationError as error:
        problems = "; ".join(_describe(dict(problem)) for problem in error.errors())
        raise SettingsError(f"The policy {path} is refused: {problems}.") from None


def _describe(problem: dict[str, Any]) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "missing":
        return f"{where} is missing"
    if problem["type"] != "extra_forbidden":
        return f"{where}: {str(problem['msg']).removeprefix('Value error, ')}"
    known = _keys_beside(tuple(str(part) for part in problem["loc"][:-1]))
    nearest = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1, cutoff=0.0)
    return f"{where} is not known; did you mean {nearest[0]}?" if nearest else f"{where} is not known"


def _keys_beside(table: tuple[str, ...]) -> list[str]:
    tables: dict[str, type[BaseModel]] = {
        "accuracy": AccuracyRule,
        "per_class": PerClassRule,
        "per_slice": PerSliceRule,
        "metrics": MetricRule,
        "costs": CostRule,
        "budget": BudgetRule,
        "suspect_labels": SuspectRule,
        "leakage": LeakageRule,
        "limits": Limits,
        "holdout": HoldoutRule,
    }
    return list((tables[table[0]] if table else Policy).model_fields)
