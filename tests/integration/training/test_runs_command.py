"""`liftgate runs`, as a person calls it, over runs that a stand-in for the cluster makes."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from artifact_sync.durable import write_durably
from artifact_sync.errors import RefusedError
from artifact_sync.manifest import build_manifest
from artifact_sync.records import GoldenExample, GoldenExamples, RunRecord
from artifact_sync.run_folder import GOLDEN_EXAMPLES_PATH, RunFolder
from liftgate.commands import runs_reproduce
from liftgate.commands.runs import command
from training_cluster.cluster import TrainingRequest, TrainingState
from training_cluster.config.training_config import TrainingConfig, load_config
from training_cluster.datasets.data_manifest import load_data_manifest
from training_cluster.runs.run import PACKAGE_DIR, code_state


class _Cluster:
    """Trains at once; `scores` tell one training from another."""

    def __init__(self, *, accuracy: float = 0.5) -> None:
        self._accuracy = accuracy

    def start(self, request: TrainingRequest) -> None:
        folder, config = request.run_folder, load_config(request.config_path)
        manifest = load_data_manifest(Path(request.data))
        code = code_state(PACKAGE_DIR)
        # Records have whole seconds, and two of these trainings end in one.
        started_at = datetime.now(UTC) + timedelta(minutes=len(list(request.runs_dir.glob("*/run.json"))))
        record = RunRecord(
            run_id=request.run_id,
            model=request.model,
            trained_by=request.trained_by,
            started_at=started_at,
            finished_at=started_at,
            code_commit=code.commit,
            code_dirty=False,
            data_manifest_sha256=manifest.sha256,
            config=config.resolved(),
            config_sha256=config.sha256,
            seed=config.execution.seed,
            is_deterministic=True,
            environment={},
            hardware={"cores": "2"},
            metrics={"validation_accuracy": self._accuracy},
            labels=manifest.labels,
            input_contract=manifest.contract,
        )
        picture = GoldenExample(
            pixels_base64=base64.b64encode(bytes(64)).decode(), scores=(self._accuracy, 1 - self._accuracy)
        )
        golden = GoldenExamples(height=8, width=8, channels=1, tolerance=0.1, examples=(picture,))
        write_durably(folder.export / "variables" / "variables.data-00000-of-00001", str(self._accuracy).encode())
        write_durably(folder.export / GOLDEN_EXAMPLES_PATH, golden.to_json())
        write_durably(folder.run_json, record.to_json())
        line = {"event": "step", "step": 5, "total_steps": 5, "loss": 1 - self._accuracy}
        write_durably(folder.path / "progress.jsonl", json.dumps(line).encode() + b"\n")
        write_durably(folder.manifest_json, build_manifest(folder.export).to_json())

    def state(self, request: TrainingRequest) -> TrainingState:
        return TrainingState("complete", 5, "complete", 5)

    def collect(self, request: TrainingRequest) -> RunFolder:
        return request.run_folder


@pytest.fixture
def site(tmp_path: Path, training_lab: Any) -> Path:
    chance = np.random.default_rng(3)
    pixels = chance.integers(0, 256, (60, 8, 8, 1), dtype=np.uint8)
    training_lab.write_indexed_dataset(tmp_path / "data", pixels, np.arange(60) % 2, labels=("dark", "bright"))
    (tmp_path / "liftgate.toml").write_text(
        f'model = "digits"\n[training]\nruns_dir = "{tmp_path}/runs"\ndata_dir = "{tmp_path}/data"\n'
        'trained_by = "ada"\n'
    )
    for name, accuracy in (("one", 0.5), ("two", 0.75)):
        config = tmp_path / f"{name}.json"
        config.write_text(json.dumps(TrainingConfig().resolved()))
        _Cluster(accuracy=accuracy).start(
            TrainingRequest(
                run_id=name,
                model="digits",
                config_path=config,
                data=str(tmp_path / "data"),
                runs_dir=tmp_path / "runs",
                trained_by="ada",
            )
        )
    return tmp_path


def _runs(site: Path, *words: str) -> Result:
    return CliRunner().invoke(command, words, obj=site / "liftgate.toml")


def test_runs_are_listed_and_shown(site: Path) -> None:
    listed = _runs(site, "list", "--newest", "1")
    assert listed.exit_code == 0, listed.output
    head, row, rest = listed.stdout.splitlines()
    assert head.split() == ["run", "state", "model", "started", "accuracy", "data", "code", "by"]
    assert row.split()[:3] == ["two", "complete", "digits"]
    assert row.split()[5] == "0.7500"
    assert rest == "1 older ones are not shown; --newest shows more."
    assert [run["run_id"] for run in json.loads(_runs(site, "list", "--json").stdout)] == ["two", "one"]

    shown = _runs(site, "show", "one").stdout
    assert shown.startswith("run one is complete")
    assert "  validation accuracy: 0.5\n" in shown
    assert "0.5 → 0.5" in shown


def test_two_runs_are_compared_as_text_and_as_a_page(site: Path) -> None:
    page = site / "page.html"
    compared = _runs(site, "compare", "one", "two", "--html", str(page))
    assert compared.exit_code == 0, compared.output
    assert "configuration: the same\n" in compared.stdout
    assert "  validation_accuracy  0.5  0.75\n" in compared.stdout
    assert "loss:\n  one  " in compared.stdout
    assert page.read_text(encoding="utf-8").count("<polyline") == 2
    document = json.loads(_runs(site, "compare", "one", "two", "--json").stdout)
    assert document["figures"] == [{"name": "validation_accuracy", "first": "0.5", "second": "0.75"}]


def test_a_run_is_trained_once_more_and_measured_against_the_first(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("reproduce", "one", "--allow-code-difference")
    monkeypatch.setattr(runs_reproduce, "cluster_of", lambda *_, **__: _Cluster())
    same = _runs(site, *words, "--run-id", "same")
    assert same.exit_code == 0, same.output
    assert same.stdout == "Run same has the same weights as one, bit for bit.\n"

    monkeypatch.setattr(runs_reproduce, "cluster_of", lambda *_, **__: _Cluster(accuracy=0.25))
    other = _runs(site, *words, "--run-id", "other")
    assert other.exit_code == 22, other.output
    assert other.stdout.splitlines() == [
        "Run other is not bit for bit one.",
        "  The logged losses differ from step 5 on.",
        "  A probability of the golden examples differs by up to 0.25.",
        "  validation accuracy: 0.5 and 0.25",
        "What may have made the difference:",
        "  - nothing that the two records show",
    ]
    told = json.loads(_runs(site, *words, "--run-id", "other", "--json").stdout)
    assert (told["is_identical"], told["score_difference"]) == (False, 0.25)


def test_other_data_are_not_trained_from(site: Path, training_lab: Any) -> None:
    pixels = np.zeros((30, 8, 8, 1), np.uint8)
    pixels[:, 0, 0, 0] = np.arange(30)
    training_lab.write_indexed_dataset(site / "other", pixels, np.arange(30) % 2, labels=("dark", "bright"))
    refused = _runs(site, "reproduce", "one", "--data", str(site / "other"), "--allow-code-difference")
    assert isinstance(refused.exception, RefusedError)
    assert "name the same one with --data" in str(refused.exception)
    assert sorted(path.name for path in (site / "runs").iterdir()) == ["one", "two"]


def test_a_variant_is_found_by_its_name(site: Path) -> None:
    variant = site / "runs" / "one" / "variants" / "one-bfloat16"
    variant.mkdir(parents=True)
    for name in ("run.json", "manifest.json"):
        (variant / name).write_bytes((site / "runs" / "one" / name).read_bytes())
    assert str(variant) in _runs(site, "show", "one-bfloat16").stdout
    assert "variant one-bfloat16: `liftgate validate one-bfloat16` judges it" in _runs(site, "show", "one").stdout
