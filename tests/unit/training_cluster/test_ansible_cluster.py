"""What AnsibleCluster refuses and tells before any playbook is played."""

from __future__ import annotations

from pathlib import Path

import pytest

from artifact_sync.errors import SettingsError, TrainingError
from training_cluster.cluster import TrainingRequest
from training_cluster.hosts.ansible_cluster import AnsibleCluster
from training_cluster.hosts.attachment import Attachment, attachment_path


@pytest.fixture
def request_for(tmp_path: Path) -> TrainingRequest:
    (tmp_path / "training.toml").write_text("")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "data_manifest.json").write_text("{}")
    (tmp_path / "inventory").mkdir()
    data = str(tmp_path / "data")
    return TrainingRequest("run-1", "digits", tmp_path / "training.toml", data, tmp_path / "runs", "ann")


@pytest.mark.parametrize(
    ("missing", "named"),
    [("inventory", "inventory"), ("training.toml", "configuration"), ("data/data_manifest.json", "data manifest")],
)
def test_a_missing_file_is_named_before_anything_starts(
    request_for: TrainingRequest, tmp_path: Path, missing: str, named: str
) -> None:
    path = tmp_path / missing
    path.rmdir() if path.is_dir() else path.unlink()

    with pytest.raises(SettingsError, match=f"the {named} .* does not exist"):
        AnsibleCluster(tmp_path / "inventory").start(request_for)

    assert not request_for.runs_dir.exists()


def test_without_the_playbooks_the_checkout_is_asked_for(request_for: TrainingRequest, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"the playbook .* does not exist"):
        AnsibleCluster(tmp_path / "inventory", ansible_dir=tmp_path / "nowhere").start(request_for)


def test_a_complete_run_is_not_started(request_for: TrainingRequest, tmp_path: Path) -> None:
    request_for.run_folder.path.mkdir(parents=True)
    request_for.run_folder.manifest_json.write_text("{}")

    AnsibleCluster(tmp_path / "no-inventory").start(request_for)

    assert AnsibleCluster(tmp_path / "no-inventory").state(request_for).status == "complete"


def test_a_run_that_was_not_started_here_is_absent(request_for: TrainingRequest, tmp_path: Path) -> None:
    cluster = AnsibleCluster(tmp_path / "inventory")

    assert cluster.state(request_for).status == "absent"
    cluster.stop(request_for)
    with pytest.raises(TrainingError, match="was never started from"):
        cluster.collect(request_for)


def test_a_broken_attachment_is_told_with_the_way_out(tmp_path: Path) -> None:
    path = attachment_path(tmp_path, "run-1")
    path.parent.mkdir(parents=True)
    path.write_text('{"run_id": "run-1"}')

    with pytest.raises(TrainingError, match="Remove it and start the run again"):
        Attachment.load(path)


def test_a_host_without_pinned_keys_is_not_talked_to() -> None:
    attachment = Attachment(
        run_id="run-1", host="gpu1", connection="ssh", python="p", app_dir="/a", launch_dir="/l", run_dir="/r"
    )

    with pytest.raises(TrainingError, match="Set training_ssh_known_hosts"):
        attachment.chief.ssh()
