"""The gate's checks of metrics beside accuracy: against the champion, and against a floor.

Its place in the flow: gate.py asks what the open photos say, and whether all these
demands hold on the sealed ones; metric_comparison.py computes the bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from validation.answers import Answers
from validation.checks.claims import Finding, Question
from validation.checks.policy import MetricRule, Policy
from validation.checks.verdict import Outcome
from validation.figures.metric_comparison import gain_bounds, labels_for_metric, labels_for_metric_floor, value_bounds
from validation.figures.metrics import LESS_IS_BETTER, Costs, cost_matrix, metric_value

Bounds = tuple[float, float]


@dataclass(frozen=True)
class MetricDemand:
    """Something that a policy wants shown of a metric: that a value lies beyond a line.

    Attributes:
        check: the check's name in the verdict.
        figures: what was measured and against what, without a full stop.
        line: what the value must exceed (or stay under, if `is_ceiling`).
        is_ceiling: whether less is better.
        bounds: what the true value exceeds and is under, each with confidence 1 - level.
        labels_needed: photos in all that show it with a power at a level: (level, power).
        harm: what to say when the opposite is shown.
    """

    check: str
    figures: str
    line: float
    is_ceiling: bool
    bounds: Callable[[float], Bounds]
    labels_needed: Callable[[float, float], int | None]
    harm: str

    def judge(self, level: float) -> tuple[Outcome, Bounds]:
        """Return whether it is shown to hold, shown not to, or neither, at `level`, and the bounds."""
        lower, upper = self.bounds(level)
        kept, broken = (
            (upper < self.line, lower > self.line) if self.is_ceiling else (lower > self.line, upper < self.line)
        )
        return "better" if kept else "not better" if broken else "cannot tell", (lower, upper)


def metric_demands(answers: Answers, *, policy: Policy) -> Iterator[MetricDemand]:
    """Yield what the policy wants shown of each metric; nothing against a champion that there is not."""
    costs = None if policy.costs is None else cost_matrix(policy.costs, answers.labels)
    for rule in policy.metrics:
        if answers.champion is not None:
            yield _against_champion(rule, answers, top_k=policy.top_k, costs=costs)
        if rule.floor is not None:
            yield _against_floor(rule, rule.floor, answers, top_k=policy.top_k, costs=costs)


def metric_findings(demands: Sequence[MetricDemand], *, n: int, question: Question) -> Iterator[Finding]:
    """Yield what `n` shown photos say of each demand."""
    for demand in demands:
        outcome, (lower, upper) = demand.judge(question.alpha)
        bound, side = (upper, "under") if demand.is_ceiling else (lower, "over")
        shown = f"{demand.figures} on {n:,} {question.photos}; surely {side} {bound:.4f} at {question.alpha:g}"
        if outcome == "better":
            yield Finding(demand.check, outcome, shown)
        elif outcome == "not better":
            yield Finding(demand.check, outcome, f"{demand.figures} on {n:,} {question.photos}: {demand.harm}")
        else:
            more = question.more(demand.labels_needed(question.level, question.power), n=n, group=None)
            yield Finding(demand.check, outcome, f"{shown}, which is not enough", ask=question.text(more), more=more)


def _against_champion(rule: MetricRule, answers: Answers, *, top_k: int, costs: Costs | None) -> MetricDemand:
    name, margin = rule.name, rule.margin or 0.0
    own, rival = (
        metric_value(name, answers.truth, scores, top_k=top_k, costs=costs) or 0.0
        for scores in (answers.candidate, answers.champion)
        if scores is not None
    )
    gain = rival - own if name in LESS_IS_BETTER else own - rival
    wanted = f"accepted loss {margin:g}" if rule.test == "non-inferiority" else "any gain"
    return MetricDemand(
        check=f"{name}, {rule.test}",
        figures=f"{_named(name)} {own:.4f} against {rival:.4f}, gain {gain:+.4f}, wanted: {wanted}",
        line=-margin,
        is_ceiling=False,
        bounds=lambda level: gain_bounds(name, answers, level=level, top_k=top_k, costs=costs),
        labels_needed=lambda level, power: labels_for_metric(
            name, answers, margin=margin, level=level, power=power, top_k=top_k, costs=costs
        ),
        harm="it is shown to lose more than that" if margin else "it is shown to be worse",
    )


def _against_floor(
    rule: MetricRule, floor: float, answers: Answers, *, top_k: int, costs: Costs | None
) -> MetricDemand:
    name, is_ceiling = rule.name, rule.name in LESS_IS_BETTER
    value = metric_value(name, answers.truth, answers.candidate, top_k=top_k, costs=costs) or 0.0
    wanted = f"at most {floor:g}" if is_ceiling else f"at least {floor:g}"
    return MetricDemand(
        check=f"{name} floor",
        figures=f"{_named(name)} {value:.4f}, wanted: {wanted}",
        line=floor,
        is_ceiling=is_ceiling,
        bounds=lambda level: value_bounds(name, answers, level=level, top_k=top_k, costs=costs),
        labels_needed=lambda level, power: labels_for_metric_floor(
            name, answers, floor=floor, level=level, power=power, top_k=top_k, costs=costs
        ),
        harm="it is shown to miss that",
    )


def _named(name: str) -> str:
    return {"macro_f1": "Macro-F1", "top_k_accuracy": "Top-k accuracy"}.get(name, name.replace("_", " ").capitalize())
