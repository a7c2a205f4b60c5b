"""What Slurm says of a job, as TensorFlow wants it."""

from __future__ import annotations

import json

import pytest

from artifact_sync.errors import SettingsError
from training_cluster.hosts.slurm import expand_nodes, main, worker_environment


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        ("gpu1", ("gpu1",)),
        ("gpu[01-03,7],big1", ("gpu01", "gpu02", "gpu03", "gpu7", "big1")),
        ("a,b[9-10]-ib", ("a", "b9-ib", "b10-ib")),
    ],
)
def test_slurms_lists_of_nodes_are_read(text: str, nodes: tuple[str, ...]) -> None:
    assert expand_nodes(text) == nodes


@pytest.mark.parametrize("text", ["gpu[1-", "gpu[a-b]", "]"])
def test_what_is_no_list_of_nodes_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="SLURM_JOB_NODELIST"):
        expand_nodes(text)


def job(**variables: str) -> dict[str, str]:
    return {"SLURM_JOB_NODELIST": "gpu[1-2]", "SLURM_PROCID": "1", "SLURM_NTASKS": "2", **variables}


def test_each_task_is_one_worker_of_all_nodes() -> None:
    config = json.loads(worker_environment(job(LIFTGATE_WORKER_PORT="5000"))["TF_CONFIG"])

    assert config == {
        "cluster": {"worker": ["gpu1:5000", "gpu2:5000"]},
        "task": {"type": "worker", "index": 1},
    }


def test_a_job_of_one_node_trains_alone() -> None:
    assert worker_environment(job(SLURM_JOB_NODELIST="gpu7", SLURM_NTASKS="1", SLURM_PROCID="0")) == {}


def test_several_tasks_on_a_node_are_refused() -> None:
    with pytest.raises(SettingsError, match="4 tasks on 2 nodes"):
        worker_environment(job(SLURM_NTASKS="4"))


def test_outside_of_a_job_it_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_NODELIST", "SLURM_PROCID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)

    assert main(["--", "true"]) == SettingsError.exit_code
    assert "no task of a Slurm job" in capsys.readouterr().err
