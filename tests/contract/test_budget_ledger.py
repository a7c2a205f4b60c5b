"""The ledger over each kind of store: of processes that begin tries at once every one gets its own number."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from artifact_sync.registry import Registry
from validation.budgets.budget import remaining
from validation.budgets.ledger_records import read_entries

PROCESSES, TRIES = 3, 4


def test_of_processes_that_begin_at_once_each_gets_numbers_of_its_own_and_none_is_lost(
    store_place, repository: Path
) -> None:
    names = [f"process-{number}" for number in range(PROCESSES)]
    program = [sys.executable, str(repository / "tests" / "ledger_lab.py"), store_place.settings.model_dump_json()]
    children = [
        subprocess.Popen([*program, name, str(TRIES)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for name in names
    ]
    with ThreadPoolExecutor(PROCESSES) as pool:
        outputs = list(pool.map(lambda child: child.communicate("go\n")[0], children))
    assert [child.returncode for child in children] == [0] * PROCESSES
    told = {number: name for name, output in zip(names, outputs, strict=True) for number in json.loads(output)}
    assert sorted(told) == list(range(1, PROCESSES * TRIES + 1))

    registry = Registry(store_place.open(), model="photos")
    (holdout,) = registry.budgeted_holdouts()
    entries = read_entries(registry.budget_entries(holdout), model="photos", holdout_sha256=holdout)
    assert {one.number: one.entry.run_id[4:-2] for one in entries.spendings} == told
    assert sum(one.outcome is not None for one in entries.spendings) == PROCESSES * TRIES // 2
    assert entries.terms is not None
    assert entries.history.confirmed == 1
    assert 0 < remaining(entries.terms.terms, entries.history) < entries.terms.terms.alpha
