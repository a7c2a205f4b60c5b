"""Holdouts and attempts for tests of the ledger; as a program, one of several processes that begin tries at once.

    python tests/ledger_lab.py STORE_SETTINGS NAME TRIES

waits for a line on stdin, begins so many tries, concludes every second one, and prints their numbers as JSON.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime

from artifact_sync.canonical import sha256_hex
from artifact_sync.registry import Registry
from artifact_sync.settings import StoreSettings, open_store
from artifact_sync.store import ObjectStore
from validation.budgets.ledger import BudgetLedger
from validation.budgets.ledger_records import Spending
from validation.budgets.ledger_refusals import Attempt
from validation.checks.policy import AccuracyRule, BudgetRule, Policy
from validation.checks.verdict import BudgetUse
from validation.photos.holdout import HoldoutItem, HoldoutRecord

NOW = datetime(2026, 11, 20, tzinfo=UTC)
RULES = Policy(
    accuracy=AccuracyRule(test="superiority", alpha=0.05, minimum_photos=10),
    budget=BudgetRule(tries=200, promotions=20),
)


def holdout() -> HoldoutRecord:
    """Ten photos, the first one open."""
    items = [
        HoldoutItem(sha256=sha256_hex(bytes([n])), extension="png", label="ab"[n % 2], source=f"{n}.png", is_open=not n)
        for n in range(10)
    ]
    return HoldoutRecord(labels=("a", "b"), items=tuple(sorted(items, key=lambda item: item.sha256)))


def attempt(name: str) -> Attempt:
    """The candidate of that name against the champion."""
    return Attempt(
        run_id=f"run-{name}",
        candidate_manifest_sha256=sha256_hex(name.encode()),
        champion_manifest_sha256=sha256_hex(b"champion"),
        policy=RULES,
        by="tara",
    )


def ledger(store: ObjectStore) -> BudgetLedger:
    """The holdout's ledger over a store."""
    return BudgetLedger(Registry(store, model="photos"), holdout(), seen_path=None)


def conclude(own: BudgetLedger, spending: Spending, *, is_confirmed: bool = False) -> BudgetUse:
    """Answer a try."""
    return own.conclude(spending, is_confirmed=is_confirmed, sealed_photos=9, open_disagreement=0.1, now=NOW)


def main() -> None:
    """Begin tries among others who do."""
    settings, name, tries = sys.argv[1:]
    own = ledger(open_store(StoreSettings.model_validate_json(settings)))
    sys.stdin.readline()
    numbers = []
    for index in range(int(tries)):
        spending = own.begin(attempt(f"{name}-{index}"), now=NOW)
        numbers.append(spending.number)
        if index % 2:
            # Of all candidates one is confirmed, so that others see the answer arrive in between.
            conclude(own, spending, is_confirmed=name == "process-0" and index == 1)
    print(json.dumps(numbers))


if __name__ == "__main__":
    main()
