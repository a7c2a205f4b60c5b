from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from artifact_sync.errors import RefusedError
from validation.checks.policy import Policy
from validation.checks.policy_fit import refuse_unfit_policy

MakePolicy = Callable[..., Policy]
COSTLY = {"metrics": [{"name": "mean_cost", "test": "superiority"}]}


def metric(name: str, **rule: Any) -> dict[str, Any]:
    return {"metrics": [{"name": name, "test": "superiority", **rule}]}


@pytest.mark.parametrize(
    ("document", "is_first", "problem"),
    [
        ({}, True, "the policy sets no floor"),
        (
            {"per_class": {"minimum_photos": 5, "recall_floors": {"cat": 0.5, "dgo": 0.5}}},
            False,
            "sets recall floors for dgo, and the labels are cat, dog, fox",
        ),
        (COSTLY | {"costs": {"pairs": {"cat": {"dgo": 2.0}, "cow": {}}}}, False, "sets costs for cow, dgo"),
        (metric("top_k_accuracy") | {"top_k": 3}, False, "top_k is 3, and with 3 labels every answer"),
        ({"per_slice": {"minimum_photos": 5, "margin": 0.1, "columns": ["site", "dvice"]}}, False, "the slices dvice"),
    ],
)
def test_a_demand_that_means_nothing_here_is_refused_and_not_forgotten(
    make_policy: MakePolicy, document: dict[str, Any], is_first: bool, problem: str
) -> None:
    policy = make_policy(document=document)
    with pytest.raises(RefusedError, match=problem) as refused:
        refuse_unfit_policy(policy, labels=("cat", "dog", "fox"), is_first=is_first, slice_columns=("device", "site"))
    assert str(refused.value).startswith("Validation refused: ")
    assert refused.value.exit_code == 3


def test_slices_are_refused_for_a_holdout_that_has_none(make_policy: MakePolicy) -> None:
    policy = make_policy(document={"per_slice": {"minimum_photos": 5, "margin": 0.1}})
    with pytest.raises(RefusedError, match="the holdout has no slice columns"):
        refuse_unfit_policy(policy, labels=("cat", "dog"), is_first=False, slice_columns=())


@pytest.mark.parametrize(
    "document",
    [
        metric("macro_f1", floor=0.5),
        {"per_slice": {"minimum_photos": 5, "accuracy_floor": 0.5}},
        {"per_class": {"minimum_photos": 5, "recall_floors": {"cat": 0.5}}},
        metric("top_k_accuracy", floor=0.9) | {"top_k": 2},
        COSTLY | {"costs": {"wrong": 2.0, "pairs": {"cat": {"dog": 20.0}}}, "accuracy": None},
    ],
)
def test_a_policy_that_holds_a_first_model_to_something_fits(make_policy: MakePolicy, document: dict[str, Any]) -> None:
    is_first = "accuracy" not in document
    policy = make_policy(document={key: value for key, value in document.items() if value is not None})
    refuse_unfit_policy(policy, labels=("cat", "dog", "fox"), is_first=is_first, slice_columns=("site",))
