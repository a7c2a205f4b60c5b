from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from artifact_sync.errors import IntegrityError, LiftgateError, NotFoundError, RefusedError
from artifact_sync.labelled_photo import LabelledPhoto
from artifact_sync.manifest import build_manifest
from artifact_sync.records import Evidence, InputContract, ReleaseRecord, RunRecord, VersionRecord
from artifact_sync.run_folder import RunFolder
from validation.case import Champion, TrainingPhotos, open_case
from validation.checks.policy import HoldoutRule, Policy
from validation.photos.holdout import Holdout, PhotoDecoder, freeze_holdout

NOW = datetime(2026, 11, 20, 6, 0, tzinfo=UTC)
CONTRACT = InputContract(height=4, width=4, channels=3)
Open = Callable[..., Any]


@pytest.fixture
def holdout(tmp_path: Path, photos: Callable[..., list[LabelledPhoto]], decoder: PhotoDecoder) -> Holdout:
    return freeze_holdout(photos(20), labels=("cat", "dog"), out_dir=tmp_path / "holdout", decoder=decoder)


@pytest.fixture
def run(export: Path) -> RunFolder:
    folder = RunFolder(export.parent)
    folder.run_json.write_bytes(run_record().to_json())
    folder.manifest_json.write_bytes(build_manifest(export).to_json())
    return folder


def run_record(**changes: Any) -> RunRecord:
    fields: dict[str, Any] = {
        "run_id": "run-7c1f",
        "model": "pets",
        "trained_by": "ana",
        "started_at": NOW,
        "finished_at": NOW,
        "code_commit": "0f4073f",
        "code_dirty": False,
        "data_manifest_sha256": "c" * 64,
        "config": {},
        "config_sha256": "b" * 64,
        "seed": 1,
        "is_deterministic": True,
        "environment": {},
        "hardware": {},
        "metrics": {},
        "labels": ("cat", "dog"),
        "input_contract": CONTRACT,
    }
    return RunRecord(**{**fields, **changes})


@pytest.fixture
def champion(run: RunFolder) -> Champion:
    version = VersionRecord(
        model="pets",
        version=2,
        manifest=run.read_manifest(),
        lineage=run.read_run().lineage(),
        input_contract=CONTRACT,
        labels=("cat", "dog"),
        evidence=Evidence(
            report_sha256="a" * 64,
            verdict_sha256="a" * 64,
            policy_sha256="a" * 64,
            holdout_sha256="a" * 64,
            champion_version=1,
        ),
        created_at=NOW,
    )
    release = ReleaseRecord(
        model="pets",
        number=3,
        kind="promotion",
        stable=2,
        reason="better",
        by="ana",
        previous_sha256="e" * 64,
        created_at=NOW,
    )
    return Champion(version=version, directory=run.export, release=release)


@pytest.fixture
def open_it(run: RunFolder, holdout: Holdout, make_policy: Callable[..., Policy]) -> Open:
    def call(**changes: Any) -> Any:
        arguments: dict[str, Any] = {
            "holdout": holdout,
            "policy": make_policy(floor=0.5),
            "champion": None,
            "first": True,
            "training": None,
        }
        return open_case(run, **{**arguments, **changes})

    return call


def refusal(kind: type[LiftgateError], call: Callable[[], Any], *, exit_code: int) -> str:
    with pytest.raises(kind) as refused:
        call()
    assert refused.value.exit_code == exit_code
    return str(refused.value)


def test_without_a_champion_one_has_to_say_that_this_is_the_first(open_it: Open, run: RunFolder) -> None:
    text = refusal(RefusedError, lambda: open_it(first=False), exit_code=3)
    assert "no champion is known for pets" in text
    assert "say so with --first" in text
    assert not run.report_json.exists()


def test_first_is_refused_where_something_is_served(open_it: Open, champion: Champion) -> None:
    text = refusal(RefusedError, lambda: open_it(champion=champion, first=True), exit_code=3)
    assert "release 3 serves version 2 of pets. Leave out --first" in text


def test_a_champion_that_is_not_what_the_release_serves_is_refused(open_it: Open, champion: Champion) -> None:
    other = replace(champion, version=champion.version.model_copy(update={"model": "cars"}))
    text = refusal(RefusedError, lambda: open_it(champion=other, first=False), exit_code=3)
    assert "run run-7c1f trained pets, and the champion handed in is version 2 of cars" in text
    moved = replace(champion, release=champion.release.model_copy(update={"stable": 1}))
    text = refusal(RefusedError, lambda: open_it(champion=moved, first=False), exit_code=3)
    assert "where release 3 serves version 1" in text


def test_what_is_served_already_is_not_judged_against_itself(open_it: Open, champion: Champion) -> None:
    text = refusal(RefusedError, lambda: open_it(champion=champion, first=False), exit_code=3)
    assert "run run-7c1f is what version 2 serves already" in text
    assert "liftgate trace run-7c1f" in text


def test_another_holdout_than_the_policys_is_refused(
    open_it: Open, holdout: Holdout, make_policy: Callable[..., Policy]
) -> None:
    policy = make_policy(floor=0.5).model_copy(update={"holdout": HoldoutRule(sha256="f" * 64)})
    text = refusal(RefusedError, lambda: open_it(policy=policy), exit_code=3)
    assert f"written for the holdout {'f' * 64}" in text
    assert holdout.sha256 in text


def test_training_on_the_holdout_is_refused_with_the_photos(open_it: Open, holdout: Holdout) -> None:
    leaked = holdout.record.items[4].sha256
    text = refusal(
        RefusedError, lambda: open_it(training=TrainingPhotos(frozenset({leaked, "0" * 64}), None)), exit_code=3
    )
    assert f"trained on 1 of the holdout's 20 photos ({leaked})" in text


def test_foreign_labels_are_refused_by_name(open_it: Open, run: RunFolder) -> None:
    run.run_json.write_bytes(run_record(labels=("cat", "fox")).to_json())
    (run.export / "assets.extra/labels.json").write_bytes(b'["cat", "fox"]')
    text = refusal(RefusedError, open_it, exit_code=3)
    assert "It does not know: dog. The holdout does not know: fox." in text


def test_scores_under_the_wrong_names_are_refused(open_it: Open, run: RunFolder) -> None:
    (run.export / "assets.extra/labels.json").write_bytes(b'["dog", "cat"]')
    text = refusal(RefusedError, open_it, exit_code=3)
    assert "the scores would be read under the wrong names" in text


def test_a_run_that_is_not_complete_is_refused(open_it: Open, run: RunFolder) -> None:
    run.manifest_json.unlink()
    text = refusal(NotFoundError, open_it, exit_code=4)
    assert "Run run-7c1f has no manifest.json" in text


def test_an_export_that_is_not_its_manifests_is_refused(open_it: Open, run: RunFolder) -> None:
    (run.export / "variables/variables.data-00000-of-00001").write_bytes(b"swapped")
    text = refusal(IntegrityError, open_it, exit_code=5)
    assert "variables/variables.data-00000-of-00001" in text


def test_a_program_that_came_with_a_manifest_of_its_own_is_refused(open_it: Open, run: RunFolder) -> None:
    (run.export / "loader.py").write_text("print('hello')")
    run.manifest_json.write_bytes(build_manifest(run.export).to_json())
    text = refusal(RefusedError, open_it, exit_code=3)
    assert "the file 'loader.py' does not belong in an export" in text
    assert not run.verdict_json.exists()


def test_a_policy_without_a_floor_is_refused_for_a_first_model_before_anything_is_measured(
    open_it: Open, make_policy: Callable[..., Policy]
) -> None:
    text = refusal(RefusedError, lambda: open_it(policy=make_policy()), exit_code=3)
    assert "a first model has no champion to beat, and the policy sets no floor" in text
