"""What hosts of one training must have alike, who is the chief, what is looked at on a host: the role's own Python."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

_ROLE = Path(__file__).parents[3] / "ansible" / "roles" / "training_run"


def load(folder: str, name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"training_run_{name}", _ROLE / folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def filters() -> dict[str, Any]:
    found: dict[str, Any] = load("filter_plugins", "training_hosts").FilterModule().filters()
    return found


@pytest.fixture(scope="module")
def stub_ansible() -> None:
    """The modules' one import of Ansible takes a second that no unit test needs."""
    for name in ("ansible", "ansible.module_utils", "ansible.module_utils.basic"):
        sys.modules.setdefault(name, ModuleType(name))
    basic: Any = sys.modules["ansible.module_utils.basic"]
    if not hasattr(basic, "AnsibleModule"):
        basic.AnsibleModule = None


def checked(*, keras: str = "3.15", gpus: int = 4, skew: float = 0.0, data: str = "a" * 64, standing: int = 0) -> Any:
    alike = {"python": "3.12.1", "keras": keras, "data": data}
    return {"alike": alike, "gpus": gpus, "clock_skew_seconds": skew, "standing": standing}


@pytest.mark.parametrize(
    ("results", "failures"),
    [
        ([{"failures": []}, {"skipped": True}], []),
        ([{"failures": ["no disk"]}, {"failures": ["no GPU"]}], ["no disk", "no GPU"]),
        ([{"failures": []}, {"module_stderr": "killed\n", "msg": "failed"}], ["the check did not run: killed"]),
        (
            [{"failures": ["no disk"]}, {"unreachable": True, "msg": "timed out"}, {"unreachable": True}],
            ["no disk", "it cannot be reached: timed out"],
        ),
    ],
)
def test_a_check_that_did_not_run_is_a_failure_too(
    filters: dict[str, Any], results: list[dict[str, Any]], failures: list[str]
) -> None:
    assert filters["training_host_failures"](results) == failures


def test_hosts_that_are_alike_have_nothing_to_put_right(filters: dict[str, Any]) -> None:
    hosts = {name: checked(skew=offset) for name, offset in (("gpu1", 0.0), ("gpu2", 3.0))}

    assert filters["training_host_differences"](hosts, 30) == {"gpu1": [], "gpu2": []}


def test_each_host_that_differs_from_most_is_told_in_what(filters: dict[str, Any]) -> None:
    hosts = {
        "gpu1": checked(),
        "gpu2": checked(keras="3.14"),
        "gpu3": checked(gpus=2),
        "gpu4": checked(skew=90),
        "gpu5": checked(data="b" * 64),
        "gone": {},
    }

    assert filters["training_host_differences"](hosts, 30) == {
        "gpu1": [],
        "gpu2": ["keras is 3.14 here and 3.15 on gpu1, gpu3, gpu4, gpu5; make them equal"],
        "gpu3": ["number of GPUs is 2 here and 4 on gpu1, gpu2, gpu4, gpu5; make them equal"],
        "gpu4": ["the clock is +90 s off the other hosts'; start time synchronisation"],
        "gpu5": ["data is bbbbbbbbbbbb here and aaaaaaaaaaaa on gpu1, gpu2, gpu3, gpu4; make them equal"],
        "gone": [],
    }


@pytest.mark.parametrize(
    ("standings", "spread", "order"),
    [
        ((0, 0, 0), "host", ["gpu1"]),
        ((0, 1, 0), "device", ["gpu2"]),
        ((0, 0, 0), "hosts", ["gpu1", "gpu2", "gpu3"]),
        ((1, 2, 1), "hosts", ["gpu2", "gpu1", "gpu3"]),
        ((1, 2, 3), "hosts", ["gpu3", "gpu1", "gpu2"]),
    ],
)
def test_the_chief_is_who_has_most_of_the_run(
    filters: dict[str, Any], standings: tuple[int, ...], spread: str, order: list[str]
) -> None:
    hosts = {f"gpu{number}": checked(standing=standing) for number, standing in enumerate(standings, start=1)}

    assert filters["training_host_order"](hosts, spread) == order


def test_only_what_a_training_reads_goes_to_the_hosts(filters: dict[str, Any]) -> None:
    manifest = {
        "shards": [{"path": "a.tfrecord", "size_bytes": 7, "sha256": "…", "count": 1}],
        "blocks": {"path": "blocks"},
        "examples": {"path": "examples"},
        "hashes": {"path": "hashes"},
    }

    assert filters["training_data_files"](manifest) == [
        {"path": "a.tfrecord", "size_bytes": 7},
        {"path": "blocks"},
        {"path": "examples"},
        {"path": "data_manifest.json"},
    ]


def test_a_shard_that_another_dataset_has_is_linked_and_one_cut_off_is_not_taken(
    stub_ansible: None, tmp_path: Path
) -> None:
    missing = load("library", "training_data_missing")
    other, incoming = tmp_path / "other", tmp_path / "new.incoming"
    for folder in (other, incoming):
        folder.mkdir()
    (other / "whole").write_bytes(b"1234567")
    (other / "cut").write_bytes(b"123")

    assert missing.take({"path": "whole", "size_bytes": 7}, str(incoming))
    assert not missing.take({"path": "cut", "size_bytes": 7}, str(incoming))
    assert not missing.take({"path": "whole"}, str(incoming))
    assert (incoming / "whole").stat().st_ino == (other / "whole").stat().st_ino


@pytest.mark.parametrize(
    ("gpus", "processes", "only_first", "failures"),
    [
        ([["0", "u0", "535.1", "3"]], [], False, []),
        ([], [], False, ["nvidia-smi names no GPU; look with `nvidia-smi -L`, and into the kernel's log for NVRM"]),
        ([["0", "u0", "470.2", "3"]], [], False, ["the NVIDIA driver is 470.2; TensorFlow needs 525.60.13 or newer"]),
        (
            [["0", "u0", "535.1", "3"], ["1", "u1", "535.1", "9000"]],
            [["77", "python", "u1"]],
            False,
            ["GPU 1 is in use by python (process 77); wait for it, or end it"],
        ),
        ([["0", "u0", "535.1", "3"], ["1", "u1", "535.1", "9000"]], [["77", "python", "u1"]], True, []),
        (
            [["0", "u0", "535.1", "9000"]],
            [],
            False,
            ["GPU 0 has 9000 MiB in use and no process is shown; reset it, or reboot"],
        ),
    ],
)
def test_a_gpu_must_be_there_new_enough_and_free(
    stub_ansible: None, gpus: list[list[str]], processes: list[list[str]], only_first: bool, failures: list[str]
) -> None:
    check = load("library", "training_host_gpus").check

    assert check(gpus, processes, min_driver="525.60.13", max_used_mb=1000, only_first=only_first) == failures


@pytest.mark.parametrize(("limit", "found"), [("max", []), ("5000000000", ["the control group has 2.0 GB"])])
def test_memory_is_what_the_control_group_still_allows(
    stub_ansible: None, tmp_path: Path, limit: str, found: list[str]
) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 90000000 kB\nMemAvailable: 80000000 kB\n")
    (tmp_path / "memory.max").write_text(limit)
    (tmp_path / "memory.current").write_text("4000000000")
    # Files in memory go first.
    (tmp_path / "memory.stat").write_text("anon 3000000000\ninactive_file 1000000000\n")

    check = load("library", "training_host_preflight").check_memory
    failures = check(4, proc=str(tmp_path), groups=str(tmp_path))

    assert [failure.partition(" of memory")[0] for failure in failures] == found
