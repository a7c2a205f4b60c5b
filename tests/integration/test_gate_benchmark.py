"""The gate's simulation, a tenth of it, keeps what docs/gate.md says of the rules."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ALPHA = 0.05


@pytest.fixture(scope="module")
def figures(repository: Path, tmp_path_factory: pytest.TempPathFactory):
    target = tmp_path_factory.mktemp("gate") / "figures.json"
    program = [sys.executable, str(repository / "benchmarks" / "gate.py"), "--quick", "--json", str(target)]
    subprocess.run(program, check=True, capture_output=True)
    return json.loads(target.read_text())


def shares(figures, *, rule: str) -> dict[str, float]:
    found = {
        cell["trainer"]: cell["spoilt"] / cell["histories"]
        for cell in figures["histories"]
        if cell["rule"].startswith(rule)
    }
    assert len(found) == 6
    return found


@pytest.mark.parametrize("rule", ["Liftgate, 10", "Liftgate, 50"])
def test_no_trainer_gets_more_than_alpha_out_of_liftgate(figures, rule: str) -> None:
    assert max(shares(figures, rule=rule).values()) <= ALPHA


@pytest.mark.parametrize("rule", ["accuracy is higher", "value and change thresholds"])
def test_rules_without_a_test_promote_noise(figures, rule: str) -> None:
    assert min(shares(figures, rule=rule).values()) > 0.5


@pytest.mark.parametrize("rule", ["McNemar at 0.05", "McNemar at 0.05/50"])
def test_no_test_survives_a_trainer_who_is_shown_the_photos_that_decide(figures, rule: str) -> None:
    found = {
        cell["trainer"]: cell["spoilt"] / cell["histories"] for cell in figures["histories"] if cell["rule"] == rule
    }
    assert found["adaptive, memorising"] > 0.99


def test_truly_better_candidates_get_through(figures) -> None:
    promoted = {
        cell["rule"]: cell["promoted"] / cell["histories"]
        for cell in figures["histories"]
        if cell["trainer"].startswith("improving")
    }
    assert min(promoted.values()) > 0.9


def test_a_first_comparison_costs_at_most_one_and_a_half_times_one_fixed_test(figures) -> None:
    firsts = [row for row in figures["power"] if row["situation"] == "first comparison"]
    assert len(firsts) == 4
    assert max(row["ratio"] for row in firsts) <= 1.5
    assert all(abs(row["found"] - 0.8) < 0.03 for row in figures["power"])


def test_the_whole_gate_answers_as_the_simulated_one_and_confirms_no_violation_too_often(figures) -> None:
    assert figures["different"] == 0
    # Of 50 at 0.025, more than five would come by chance once in a thousand.
    assert max(row["confirmed"] for row in figures["checks"]) <= 5
