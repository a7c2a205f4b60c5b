"""Which directories are versions, and which of them a policy wants."""

from __future__ import annotations

import shutil
import time
from typing import Any

import pytest

# One look at the file system a second: after this there was at least one.
LOOK_SECONDS = 1.5


class TestNames:
    @pytest.mark.parametrize(
        ("name", "version"), [("1", 1), ("00000123", 123), ("0", 0), ("1700000000000", 1700000000000)]
    )
    def test_an_integer_is_a_version(self, operator: Any, name: str, version: int) -> None:
        operator.add(name, source="plus/1")
        operator.reload(operator.entry())
        assert operator.states() == {version: "AVAILABLE"}
        assert operator.client.predict(operator.name, {"x": [0.0]}, version=version).model_spec.version.value == version

    def test_no_other_name_is(self, operator: Any) -> None:
        operator.add(1)
        for name in ("v4", "0x6", ".5", "tmp-2", "3.old", "4 5", "1e3", "9223372036854775808"):
            operator.add(name, source="plus/2")
        operator.reload(operator.entry(wants_all=True))
        assert operator.states() == {1: "AVAILABLE"}

    def test_of_two_names_for_one_number_the_last_in_order_wins(self, operator: Any) -> None:
        operator.add("001", source="plus/3")
        operator.add("1")
        operator.reload(operator.entry(wants_all=True))
        assert operator.states() == {1: "AVAILABLE"}
        assert operator.answer() == 1.0


class TestPolicies:
    @pytest.mark.parametrize(
        ("policy", "loaded"),
        [
            ({}, [3]),
            ({"latest": 2}, [3, 2]),
            ({"latest": 0}, [3]),
            ({"latest": 9}, [3, 2, 1]),
            ({"wants_all": True}, [3, 2, 1]),
            ({"versions": [1, 3]}, [3, 1]),
            ({"versions": [2, 77]}, [2]),
        ],
    )
    def test_a_policy_chooses_among_what_is_there(
        self, operator: Any, policy: dict[str, Any], loaded: list[int]
    ) -> None:
        operator.reload(operator.entry(base_path=operator.zoo / "plus", **policy))
        operator.wait_for(dict.fromkeys(loaded, "AVAILABLE"))
        assert operator.answer() == float(max(loaded))

    def test_a_specific_version_is_found_under_a_name_with_zeros(self, operator: Any) -> None:
        operator.add("00001", source="plus/1")
        operator.reload(operator.entry(versions=[1]))
        assert operator.states() == {1: "AVAILABLE"}

    def test_a_specific_version_that_comes_later_is_loaded_then(self, operator: Any) -> None:
        operator.add(1)
        operator.reload(operator.entry(versions=[1, 2]))
        operator.add(2)
        operator.wait_for({2: "AVAILABLE", 1: "AVAILABLE"})


class TestPolling:
    def test_a_newer_version_replaces_the_old_one(self, operator: Any) -> None:
        operator.add(1)
        operator.reload(operator.entry())
        operator.add(2)
        operator.wait_for({2: "AVAILABLE", 1: "END"})
        assert operator.answer() == 2.0

    def test_an_older_version_is_not_wanted_by_the_latest(self, operator: Any) -> None:
        operator.add(2)
        operator.reload(operator.entry())
        operator.add(1)
        time.sleep(LOOK_SECONDS)
        assert operator.states() == {2: "AVAILABLE"}

    def test_when_the_newest_is_taken_away_the_one_before_comes_back(self, operator: Any) -> None:
        operator.add(1)
        operator.reload(operator.entry())
        operator.add(2)
        operator.wait_for({2: "AVAILABLE", 1: "END"})
        shutil.rmtree(operator.home / "own/2")
        operator.wait_for({2: "END", 1: "AVAILABLE"})
        assert operator.answer() == 1.0

    def test_a_version_that_was_taken_away_and_put_back_is_loaded_anew(self, operator: Any) -> None:
        operator.serve(1, 2)
        (operator.home / "own/1").rename(operator.home / "own/.1")
        operator.wait_for({2: "AVAILABLE", 1: "END"})
        (operator.home / "own/.1").rename(operator.home / "own/1")
        operator.wait_for({2: "AVAILABLE", 1: "AVAILABLE"})
        assert operator.answer(version=1) == 1.0

    def test_a_base_path_that_is_gone_leaves_its_model_as_it_is(self, operator: Any) -> None:
        operator.serve(1)
        (operator.home / "own").rename(operator.home / "away")
        time.sleep(LOOK_SECONDS)
        assert operator.states() == {1: "AVAILABLE"}
        assert operator.answer() == 1.0

    def test_a_base_path_that_is_empty_unloads_everything(self, operator: Any) -> None:
        operator.add(1)
        operator.reload(operator.entry())
        (operator.home / "own/1").rename(operator.home / "away")
        operator.wait_for({1: "END"})
