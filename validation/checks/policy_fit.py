"""Whether a policy can be applied to a model and a holdout at all.

Its place in the flow: validate.py asks before anything is measured, so that a demand that means
nothing here is refused and not forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from artifact_sync.errors import RefusedError
from validation.checks.policy import Policy
from validation.checks.wording import names_text


def refuse_unfit_policy(
    policy: Policy, *, labels: Sequence[str], is_first: bool, slice_columns: Sequence[str] | None = None
) -> None:
    """Check that every demand of the policy means something for this model and holdout.

    Args:
        policy: the demands.
        labels: the model's classes.
        is_first: whether there is no champion.
        slice_columns: the holdout's slice columns; None leaves them unchecked.

    Raises:
        RefusedError: a first model is held to nothing, or the policy names labels or slices that
            there are not; all that is wrong is named.
    """
    problems = [*_first_problems(policy, is_first=is_first), *_label_problems(policy, labels)]
    if slice_columns is not None:
        problems += _slice_problems(policy, slice_columns)
    if problems:
        raise RefusedError(f"Validation refused: {' '.join(problems)}")


def _first_problems(policy: Policy, *, is_first: bool) -> Iterator[str]:
    if not is_first:
        return
    if not policy.has_floor:
        yield (
            "a first model has no champion to beat, and the policy sets no floor. "
            "Set accuracy.floor or per_class.recall_floor in the policy."
        )


def _label_problems(policy: Policy, labels: Sequence[str]) -> Iterator[str]:
    known = set(labels)
    floors = policy.per_class.recall_floors if policy.per_class is not None else {}
    strangers = sorted(set(floors) - known)
    if strangers:
        yield (
            f"the policy sets recall floors for {', '.join(strangers)}, and the labels are "
            f"{names_text(labels)}. Correct per_class.recall_floors in the policy."
        )
    pairs = policy.costs.pairs if policy.costs is not None else {}
    strangers = sorted(({label for answers in pairs.values() for label in answers} | set(pairs)) - known)
    if strangers:
        yield (
            f"the policy sets costs for {', '.join(strangers)}, and the labels are "
            f"{names_text(labels)}. Correct costs.pairs in the policy."
        )
    if any(rule.name == "top_k_accuracy" for rule in policy.metrics) and policy.top_k >= len(labels):
        yield (
            f"top_k is {policy.top_k}, and with {len(labels)} labels every answer is among so many. "
            "Set top_k in the policy to less, or take top_k_accuracy out of its metrics."
        )


def _slice_problems(policy: Policy, columns: Sequence[str]) -> Iterator[str]:
    rule = policy.per_slice
    if rule is None:
        return
    strangers = sorted(set(rule.columns) - set(columns))
    if not columns:
        yield (
            "the policy makes demands on slices, and the holdout has no slice columns. "
            "Freeze a holdout from a CSV file with such columns, or take per_slice out of the policy."
        )
    elif strangers:
        yield (
            f"the policy makes demands on the slices {', '.join(strangers)}, and the holdout's columns are "
            f"{', '.join(columns)}. Correct per_slice.columns in the policy."
        )
