"""Whole judgements on a real model server: Keras models, real photos, the throw-away server."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from artifact_sync.canonical import sha256_hex
from artifact_sync.clock import SystemClock
from artifact_sync.directory_store import DirectoryStore
from artifact_sync.errors import BudgetSpentError, RefusedError
from artifact_sync.labelled_photo import LabelledPhoto
from artifact_sync.manifest import build_manifest
from artifact_sync.records import (
    Evidence,
    InputContract,
    Manifest,
    ReleaseRecord,
    RunRecord,
    VersionRecord,
)
from artifact_sync.registry import Registry
from artifact_sync.run_folder import RunFolder
from serving.decode_pool import DecodePool
from validation.budgets.ledger import BudgetLedger
from validation.case import Case, Champion, open_case
from validation.checks.policy import BudgetRule, Policy
from validation.checks.verdict import Verdict
from validation.photos.holdout import Holdout, freeze_holdout
from validation.reports.report import Report
from validation.settings import ValidationSettings
from validation.validate import Bench, Rehearsal, rehearse, validate_run

CHROMIUM = Path("/usr/bin/chromium")
LABELS = ("red", "green", "blue")
CONTRACT = InputContract(height=16, width=16, channels=3)
NOW = datetime(2026, 11, 20, 6, 0, tzinfo=UTC)
SETTINGS = ValidationSettings(latency_sample=20)
POLICY = Policy.model_validate(
    {
        "accuracy": {"test": "superiority", "alpha": 0.05, "minimum_photos": 100, "floor": 0.4},
        "per_class": {"minimum_photos": 20, "recall_floor": 0.02},
        "limits": {"size_bytes": 10_000_000, "load_seconds": 60, "latency_p95_ratio": 50},
    }
)


@dataclass(frozen=True)
class Judges:
    """What every judgement here shares; each bucket has a budget of its own."""

    holdout: Holdout
    decoder: DecodePool
    root: Path

    def case(self, run: RunFolder, champion: Champion | None, *, policy: Policy = POLICY) -> Case:
        first = champion is None
        return open_case(run, holdout=self.holdout, policy=policy, champion=champion, first=first, training=None)

    def bench(self, bucket: Path) -> Bench:
        registry = Registry(DirectoryStore(bucket), model="colours")
        ledger = BudgetLedger(registry, self.holdout.record, seen_path=None)
        return Bench(decoder=self.decoder, clock=SystemClock(), ledger=ledger, settings=SETTINGS, by="ana")

    def judge(self, run: RunFolder, champion: Champion | None, *, bucket: Path) -> tuple[Report, Verdict]:
        return validate_run(self.case(run, champion), bench=self.bench(bucket))


@pytest.fixture(scope="module")
def judges(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judges]:
    """Three hundred photos whose class is their strongest colour, by a margin that varies."""
    root = tmp_path_factory.mktemp("judging")
    (root / "photos").mkdir()
    random = np.random.default_rng(1)
    photos = []
    for index in range(300):
        pixels = random.integers(60, 120, (16, 16, 3))
        pixels[..., index % 3] += random.integers(4, 60)
        path = root / "photos" / f"{index}.png"
        Image.fromarray(pixels.astype(np.uint8)).save(path)
        photos.append(LabelledPhoto(path=path, label=LABELS[index % 3], source=f"folder:{index}"))
    with DecodePool(workers=2) as decoder:
        holdout = freeze_holdout(photos, labels=LABELS, out_dir=root / "holdout", decoder=decoder)
        yield Judges(holdout=holdout, decoder=decoder, root=root)


@pytest.fixture(scope="module")
def train(judges: Judges) -> Callable[..., RunFolder]:
    """Make a complete run whose model prefers red by `bias`: with 0 it is right nearly always."""
    import keras

    from training_cluster.config.tables import ExportTable
    from training_cluster.exports.run_export import TrainedModel, export_run

    def make(name: str, *, bias: float, labels: tuple[str, ...] = LABELS) -> RunFolder:
        run = RunFolder(judges.root / name)
        if run.is_complete:
            return run
        model = keras.Sequential(
            [
                keras.layers.Input((16, 16, 3), dtype="uint8"),
                keras.layers.Rescaling(1 / 255.0),
                keras.layers.GlobalAveragePooling2D(),
                keras.layers.Dense(3),
            ]
        )
        order = [LABELS.index(label) for label in labels]
        kernel, biases = np.eye(3)[:, order] * 40, np.array([bias, 0.0, 0.0])[order]
        model.layers[-1].set_weights([kernel, biases])
        sample = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
        run.path.mkdir()
        trained = TrainedModel(model, "colours", CONTRACT, labels, lambda: [(sample, np.zeros(8, np.int64))])
        export_run(trained, folder=run, table=ExportTable(), report=lambda _: None)
        complete(run, labels=labels)
        return run

    return make


def complete(run: RunFolder, *, labels: tuple[str, ...] = LABELS) -> None:
    record = RunRecord(
        run_id=run.run_id,
        model="colours",
        trained_by="ana",
        started_at=NOW,
        finished_at=NOW,
        code_commit="0f4073f",
        code_dirty=False,
        data_manifest_sha256="c" * 64,
        config={},
        config_sha256="b" * 64,
        seed=1,
        is_deterministic=True,
        environment={},
        hardware={},
        metrics={},
        labels=labels,
        input_contract=CONTRACT,
    )
    run.run_json.write_bytes(record.to_json())
    run.manifest_json.write_bytes(build_manifest(run.export).to_json())


def copy_of(run: RunFolder, name: str) -> RunFolder:
    copied = RunFolder(run.path.with_name(name))
    shutil.copytree(run.export, copied.export)
    complete(copied)
    return copied


def served(run: RunFolder) -> Champion:
    version = VersionRecord(
        model="colours",
        version=1,
        manifest=Manifest.from_json(run.manifest_json.read_bytes()),
        lineage=run.read_run().lineage(),
        input_contract=CONTRACT,
        labels=LABELS,
        evidence=Evidence(
            report_sha256="a" * 64,
            verdict_sha256="a" * 64,
            policy_sha256="a" * 64,
            holdout_sha256="a" * 64,
            champion_version=None,
        ),
        created_at=NOW,
    )
    release = ReleaseRecord(
        model="colours",
        number=1,
        kind="promotion",
        stable=1,
        reason="first",
        by="ana",
        previous_sha256=None,
        created_at=NOW,
    )
    return Champion(version=version, directory=run.export, release=release)


def test_a_first_model_that_reaches_the_floors_goes_through(
    judges: Judges, train: Callable[..., RunFolder], tmp_path: Path
) -> None:
    run = train("run-first", bias=4.0)
    report, verdict = judges.judge(run, None, bucket=tmp_path)
    assert verdict.outcome == "better"
    assert verdict.champion is None
    assert report.champion is None
    assert report.candidate.golden_difference is not None
    assert report.candidate.golden_difference < 1e-3
    assert Verdict.from_json(run.verdict_json.read_bytes()) == verdict
    assert Report.from_json(run.report_json.read_bytes()) == report
    assert sha256_hex(run.report_json.read_bytes()) == verdict.report_sha256
    assert sha256_hex(run.policy_json.read_bytes()) == verdict.policy_sha256


def test_a_better_model_is_better_and_a_second_call_says_the_same_without_measuring(
    judges: Judges, train: Callable[..., RunFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    champion, run = served(train("run-first", bias=4.0)), train("run-better", bias=0.0)
    report, verdict = judges.judge(run, champion, bucket=tmp_path)
    assert verdict.outcome == "better", verdict.reasons
    assert verdict.champion == champion.reference
    assert report.paired is not None
    # Thirty of the three hundred photos are open, and only of these anything is told.
    assert (report.scope, report.photos, report.sealed_photos) == ("open", 30, 270)
    assert report.paired.candidate_only == len(report.fixed) > 2
    assert verdict.budget is not None
    assert (verdict.budget.number, verdict.budget.level, verdict.budget.is_opened) == (1, 0.025, False)
    page = run.report_html.read_text()
    assert "is shown to be better than version 1" in page
    before = {path: path.read_bytes() for path in run.path.iterdir() if path.is_file()}
    monkeypatch.setattr("validation.validate.measure", None)
    assert judges.judge(run, champion, bucket=tmp_path) == (report, verdict)
    assert {path: path.read_bytes() for path in run.path.iterdir() if path.is_file()} == before


def test_a_worse_model_is_not_better(judges: Judges, train: Callable[..., RunFolder], tmp_path: Path) -> None:
    _, verdict = judges.judge(train("run-worse", bias=4.0), served(train("run-better", bias=0.0)), bucket=tmp_path)
    assert verdict.outcome == "not better"
    assert "it is shown to be worse" in verdict.reasons[0].statement


def test_labels_in_another_order_are_read_by_name(
    judges: Judges, train: Callable[..., RunFolder], tmp_path: Path
) -> None:
    turned = train("run-turned", bias=0.0, labels=("blue", "red", "green"))
    report, verdict = judges.judge(turned, served(train("run-first", bias=4.0)), bucket=tmp_path)
    assert verdict.outcome == "better"
    assert report.candidate_accuracy > 0.95


def test_weights_that_are_not_numbers_are_found_out(
    judges: Judges, train: Callable[..., RunFolder], tmp_path: Path
) -> None:
    import tensorflow as tf

    run = copy_of(train("run-first", bias=4.0), "run-nan")
    prefix = str(run.export / "variables/variables")
    names = [name for name, _ in tf.train.list_variables(prefix)]
    reader = tf.train.load_checkpoint(prefix)
    tensors = [reader.get_tensor(name) for name in names]
    poisoned = [np.full_like(t, np.nan) if getattr(t, "dtype", None) == np.float32 else t for t in tensors]
    tf.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.constant(tensor) for tensor in poisoned],
    )
    complete(run)
    with pytest.raises(RefusedError, match="none of its answers is a number"):
        judges.judge(run, served(train("run-first", bias=4.0)), bucket=tmp_path)
    assert not run.verdict_json.exists()


def test_a_candidate_that_no_server_loads_is_refused(
    judges: Judges, train: Callable[..., RunFolder], tmp_path: Path
) -> None:
    run = copy_of(train("run-first", bias=4.0), "run-cut")
    (run.export / "variables/variables.index").write_bytes(b"")
    complete(run)
    with pytest.raises(RefusedError, match="did not stand its trial"):
        judges.judge(run, None, bucket=tmp_path)
    assert not run.verdict_json.exists()


def test_a_rehearsal_decides_nothing_and_spends_nothing(
    judges: Judges, train: Callable[..., RunFolder], tmp_path: Path
) -> None:
    run = copy_of(train("run-better", bias=0.0), f"run-{tmp_path.name}")
    champion, bench = served(train("run-first", bias=4.0)), judges.bench(tmp_path)
    rehearsal = rehearse(judges.case(run, champion), bench=bench)
    assert isinstance(rehearsal, Rehearsal)
    assert rehearsal.report.scope == "open"
    assert not rehearsal.known.is_settled
    assert rehearsal.admission is not None
    assert rehearsal.admission.known is None
    assert bench.ledger.state().spendings == ()
    assert not run.verdict_json.exists()
    assert not run.report_json.exists()


def test_a_worse_model_costs_no_try(judges: Judges, train: Callable[..., RunFolder], tmp_path: Path) -> None:
    champion = served(train("run-better", bias=0.0))
    _, verdict = judges.judge(copy_of(train("run-worse", bias=8.0), f"run-{tmp_path.name}"), champion, bucket=tmp_path)
    assert (verdict.outcome, verdict.budget) == ("not better", None)
    assert judges.bench(tmp_path).ledger.state().spendings == ()


def test_a_judgement_that_was_cut_off_is_finished_at_the_level_it_began_with(
    judges: Judges, train: Callable[..., RunFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copy_of(train("run-better", bias=0.0), f"run-{tmp_path.name}")
    champion = served(train("run-first", bias=4.0))

    def cut_off(*_: object, **__: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("validation.validate.confirms", cut_off)
        with pytest.raises(KeyboardInterrupt):
            judges.judge(run, champion, bucket=tmp_path)
    assert not run.verdict_json.exists()
    (begun,) = judges.bench(tmp_path).ledger.state().spendings
    assert begun.outcome is None
    _, verdict = judges.judge(run, champion, bucket=tmp_path)
    assert verdict.outcome == "better"
    (ended,) = judges.bench(tmp_path).ledger.state().spendings
    assert ended.entry == begun.entry
    assert verdict.budget is not None
    assert ended.outcome is not None
    assert verdict.budget.entry_sha256 == ended.outcome.sha256


def test_the_last_promotion_opens_the_holdout_and_the_next_candidate_is_told_to_bring_labels(
    judges: Judges, train: Callable[..., RunFolder], tmp_path: Path
) -> None:
    once = POLICY.model_copy(update={"budget": BudgetRule(tries=3, promotions=1)})
    run = copy_of(train("run-better", bias=0.0), f"run-{tmp_path.name}")
    champion, bench = served(train("run-first", bias=4.0)), judges.bench(tmp_path)
    report, verdict = validate_run(judges.case(run, champion, policy=once), bench=bench)
    assert verdict.outcome == "better"
    assert verdict.budget is not None
    assert verdict.budget.is_opened
    assert (report.scope, report.photos, report.sealed_photos) == ("all", 300, 0)
    other = copy_of(train("run-turned", bias=0.0, labels=("blue", "red", "green")), f"other-{tmp_path.name}")
    complete(other, labels=("blue", "red", "green"))
    with pytest.raises(BudgetSpentError, match="new labelled photos"):
        validate_run(judges.case(other, champion, policy=once), bench=bench)
    # To look is still allowed, and now at all photos.
    late = rehearse(judges.case(other, champion, policy=once), bench=bench)
    assert (late.report.scope, late.admission) == ("all", None)


@pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Debian's chromium: apt-get install chromium")
@pytest.mark.parametrize(("width", "scheme"), [(320, "light"), (390, "dark"), (1280, "light")])
def test_the_report_reads_well_from_disk_on_a_phone_and_on_a_desk(
    judges: Judges, train: Callable[..., RunFolder], tmp_path: Path, width: int, scheme: Literal["light", "dark"]
) -> None:
    from playwright.sync_api import sync_playwright

    run = train("run-better", bias=0.0)
    judges.judge(run, served(train("run-first", bias=4.0)), bucket=tmp_path)
    asked: list[str] = []
    said: list[str] = []
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.goto(run.report_html.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        assert page.locator("h1").inner_text().startswith("Run run-better is shown to be better than version 1")
        assert page.locator("figure").count() > 2
        assert page.locator("svg").count() >= len(LABELS)
        assert page.pdf(format="A4").startswith(b"%PDF")
        browser.close()
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert said == []
