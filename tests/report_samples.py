"""Reports of every kind that a gate writes, simulated: what the report page is tested and looked at with.

Run as a program it writes their pages: python tests/report_samples.py FOLDER. Loaded by fixtures;
importing it costs numpy, scipy and Pillow.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from artifact_sync.canonical import sha256_hex
from artifact_sync.errors import PhotoError
from artifact_sync.records import InputContract, Lineage
from serving.photo import decode_photo
from validation.checks.policy import Policy
from validation.checks.verdict import BudgetUse, ChampionReference, Reason, Verdict
from validation.figures.proportions import proportion_interval
from validation.figures.statistics import PairedCounts, difference_interval
from validation.photos.holdout import Holdout, HoldoutItem, HoldoutRecord
from validation.reports.report import (
    CalibrationBin,
    ChangedPhoto,
    ClassMeasurements,
    LabelOrder,
    LatencyMs,
    MetricComparison,
    ModelMeasurements,
    NearDuplicate,
    Report,
    RiskPoint,
    SliceMeasurements,
    SuspectLabel,
    TrialRecord,
)
from validation.reports.report_page import render_page

# Many classes have the same few counts.
_share_interval = cache(proportion_interval)
_gain_interval = cache(difference_interval)

NOW = datetime(2026, 11, 20, 6, 0, tzinfo=UTC)
SIZE = 96


class Decoder:
    """The photo contract without child processes."""

    def decode_many(self, photos: Iterable[bytes], contract: InputContract) -> Iterator[NDArray[np.uint8] | PhotoError]:
        for data in photos:
            try:
                yield decode_photo(data, contract)
            except PhotoError as error:
                yield error


class DrawnHoldout(Holdout):
    """A holdout whose photos are drawn when they are read: a shape and a colour for each class."""

    def read_photo(self, item: HoldoutItem) -> bytes:
        index = self.record.labels.index(item.label)
        seed = int(item.sha256[:8], 16)
        if item.source == "broken":
            return b"no photo at all"
        stream = io.BytesIO()
        _draw(index, seed, is_noise=item.source == "noise").save(stream, format="PNG")
        return stream.getvalue()


def _draw(index: int, seed: int, *, is_noise: bool) -> Image.Image:
    random = np.random.default_rng(seed)
    if is_noise:
        return Image.fromarray(random.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8))
    sky = tuple(int(part) for part in random.integers(120, 230, 3))
    image = Image.new("RGB", (SIZE, SIZE), sky)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 66, SIZE, SIZE), fill=tuple(part // 2 for part in sky))
    hue = Image.new("HSV", (1, 1), ((37 * index) % 256, 200, 210)).convert("RGB").getpixel((0, 0))
    left, top = (int(part) for part in random.integers(12, 30, 2))
    box = (left, top, left + 48, top + 48)
    kind = index % 4
    if kind == 0:
        draw.ellipse(box, fill=hue)
    elif kind == 1:
        draw.rectangle(box, fill=hue)
    elif kind == 2:
        draw.polygon([(left, top + 48), (left + 24, top), (left + 48, top + 48)], fill=hue)
    else:
        draw.pieslice(box, 30, 330, fill=hue)
    return image


@dataclass(frozen=True)
class Sample:
    """Everything that a page is made of."""

    report: Report
    verdict: Verdict
    policy: Policy
    holdout: Holdout

    def page(self) -> str:
        return render_page(self.report, self.verdict, policy=self.policy, holdout=self.holdout, decoder=Decoder())

    def changed(self, *, report: dict[str, Any] | None = None, verdict: dict[str, Any] | None = None) -> Sample:
        """The same with other fields, not checked."""
        return replace(
            self,
            report=self.report.model_copy(update=report or {}),
            verdict=self.verdict.model_copy(update=verdict or {}),
        )


POLICY: dict[str, Any] = {
    "accuracy": {"test": "superiority", "alpha": 0.05, "minimum_photos": 500, "floor": 0.8},
    "per_class": {"minimum_photos": 20, "margin": 0.05, "recall_floor": 0.6},
    "per_slice": {"minimum_photos": 50, "margin": 0.04},
    "metrics": [
        {"name": "macro_f1", "test": "superiority"},
        {"name": "log_loss", "test": "non-inferiority", "margin": 0.02},
        {"name": "mean_cost", "test": "non-inferiority", "margin": 0.1, "floor": 2.0},
    ],
    "costs": {"wrong": 1.0},
    "limits": {
        "size_bytes": 60_000_000,
        "load_seconds": 10.0,
        "memory_bytes": 900_000_000,
        "latency_p50_ms": 30.0,
        "latency_p95_ms": 40.0,
        "latency_p95_ratio": 1.5,
    },
}


def build(
    labels: tuple[str, ...],
    *,
    photos: int,
    sealed: int = 0,
    skill: tuple[float, float | None] = (1.0, 0.8),
    outcome: str = "better",
    seed: int = 5,
    source: str = "folder:x",
    policy: dict[str, Any] | None = None,
) -> Sample:
    """Simulate both models' scores for the photos that are shown; `skill` is how far the right score stands out."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, len(labels), photos + sealed)
    items = _items(truth, labels, shown=photos, random=random, source=source)
    holdout = DrawnHoldout(path=Path("/nowhere"), record=HoldoutRecord(labels=labels, items=items))
    shown = np.array([item.is_open for item in items])
    seen, truth = [item for item in items if item.is_open], holdout.truth[shown]
    scores = [None if one is None else _scores(truth, len(labels), skill=one, random=random) for one in skill]
    report = _report(holdout, seen, truth, *scores, sealed=sealed)
    rule = Policy.model_validate(policy or POLICY)
    return Sample(report=report, verdict=_verdict(report, rule, outcome), policy=rule, holdout=holdout)


def _items(
    truth: NDArray[np.int64], labels: tuple[str, ...], *, shown: int, random: np.random.Generator, source: str
) -> tuple[HoldoutItem, ...]:
    digests = sorted(sha256_hex(f"{index}/{len(truth)}".encode()) for index in range(len(truth)))
    is_open = set(random.permutation(len(truth))[:shown].tolist())
    devices, sites = ("phone", "tablet", "inspection camera"), ("Lyon", "Graz", "Łódź", "北京", "القاهرة")
    return tuple(
        HoldoutItem(
            sha256=digest,
            extension="png",
            label=labels[label],
            source=source,
            slices={"device": devices[index % 7 % 3], "site": sites[index % 11 % 5]},
            is_open=index in is_open,
        )
        for index, (digest, label) in enumerate(zip(digests, truth, strict=True))
    )


def _scores(
    truth: NDArray[np.int64], classes: int, *, skill: float, random: np.random.Generator
) -> NDArray[np.float64]:
    logits = random.normal(size=(len(truth), classes))
    hardness = random.random(len(truth))[:, None] + 0.4
    logits[np.arange(len(truth)), truth] += skill + np.log(classes)
    logits[np.arange(len(truth)), (truth + 1) % classes] += 1.5
    scores = np.exp(logits / hardness * 0.7)
    return np.asarray(scores / scores.sum(axis=1, keepdims=True))


def _report(
    holdout: Holdout,
    seen: list[HoldoutItem],
    truth: NDArray[np.int64],
    candidate: NDArray[np.float64],
    champion: NDArray[np.float64] | None,
    *,
    sealed: int,
) -> Report:
    labels = holdout.record.labels
    ours = _answers(candidate)
    theirs = None if champion is None else _answers(champion)
    right = ours == truth
    rival_right = None if theirs is None else theirs == truth
    paired = None if rival_right is None else _paired(right, rival_right)
    counted = [_counted(right, rival_right, truth == index) for index in range(len(labels))]
    slices = [
        SliceMeasurements(column=column, value=value, accuracy_interval=fields.pop("interval"), **fields)
        for column in ("device", "site")
        for value in sorted({item.slices[column] for item in seen})
        for fields in [
            _counted(right, rival_right, np.array([item.slices[column] == value for item in seen], dtype=bool))
        ]
    ]
    measured = _measured(truth, candidate, manifest="a" * 64, scale=1.0)
    rival = None if champion is None else _measured(truth, champion, manifest="d" * 64, scale=0.85)
    return Report(
        run_id="2026-11-20-mobile-v3",
        model="pets",
        lineage=Lineage(
            run_id="2026-11-20-mobile-v3",
            code_commit="0f4073f0c1d2e3f405162738495a6b7c8d9e0f1a",
            code_dirty=False,
            config_sha256="b" * 64,
            data_manifest_sha256="c" * 64,
            trained_by="ana@example.org",
            trained_at=NOW,
        ),
        labels=labels,
        photos=len(seen),
        holdout_sha256=holdout.sha256,
        candidate=measured,
        champion=rival,
        champion_reference=None
        if champion is None
        else ChampionReference(release=3, version=2, manifest_sha256="d" * 64),
        paired=paired,
        gain_interval=None if paired is None else _gain_interval(paired),
        classes=tuple(
            ClassMeasurements(label=label, recall_interval=fields.pop("interval"), **fields)
            for label, fields in zip(labels, counted, strict=True)
        ),
        fixed=_changed(seen, labels, ours, theirs, right, rival_right, is_fixed=True),
        broken=_changed(seen, labels, ours, theirs, right, rival_right, is_fixed=False),
        training_photos_checked=48_000,
        scope="open" if sealed else "all",
        sealed_photos=sealed,
        slices=tuple(slices),
        metrics=tuple(_metrics(measured, rival)),
        suspects=tuple(
            SuspectLabel(
                sha256=item.sha256,
                label=item.label,
                answer=labels[(labels.index(item.label) + 1) % len(labels)],
                candidate_score=0.991,
                champion_score=None if rival is None else 0.973,
                method="agreement" if index else "cleanlab",
            )
            for index, item in enumerate(seen[:5])
        ),
        near_duplicates=tuple(
            NearDuplicate(sha256=item.sha256, label=item.label, training_sha256="e" * 64, distance=index)
            for index, item in enumerate(holdout.record.items[5:8])
        ),
        memory_bytes=612_000_000,
        trial=TrialRecord(
            isolation="bubblewrap: no network, no home directories, as nobody",
            seconds=6.2,
            cpu_seconds=9.8,
            memory_bytes=402_000_000,
        ),
        measured_at=NOW,
    )


def _answers(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the best class of each photo, -1 where there is no finite answer."""
    return np.where(np.isfinite(scores).all(axis=1), scores.argmax(axis=1), -1)


def _paired(right: NDArray[np.bool_], rival_right: NDArray[np.bool_]) -> PairedCounts:
    return PairedCounts(
        n=len(right),
        both_right=int((right & rival_right).sum()),
        candidate_only=int((right & ~rival_right).sum()),
        champion_only=int((~right & rival_right).sum()),
    )


def _counted(
    right: NDArray[np.bool_], rival_right: NDArray[np.bool_] | None, members: NDArray[np.bool_]
) -> dict[str, Any]:
    paired = None if rival_right is None else _paired(right[members], rival_right[members])
    n, count = int(members.sum()), int(right[members].sum())
    return {
        "n": n,
        "candidate_right": count,
        "interval": _share_interval(count, n),
        "paired": paired,
        "gain_interval": None if paired is None else _gain_interval(paired),
    }


def _measured(
    truth: NDArray[np.int64], scores: NDArray[np.float64], *, manifest: str, scale: float
) -> ModelMeasurements:
    answers, classes = _answers(scores), scores.shape[1]
    confusion = np.zeros((classes, classes + 1), dtype=np.int64)
    np.add.at(confusion, (truth, answers), 1)
    is_finite = bool((answers >= 0).all())
    best, right = np.nan_to_num(scores).max(axis=1), answers == truth
    recalls = np.diag(confusion) / np.maximum(1, confusion.sum(axis=1))
    precisions = np.diag(confusion) / np.maximum(1, confusion.sum(axis=0)[:-1])
    bins = np.minimum((best * 15).astype(int), 14)
    order = np.argsort(-best)
    wrong = np.cumsum(~right[order]) / np.arange(1, len(truth) + 1)
    steps = np.unique(np.linspace(1, len(truth), 400).astype(int))
    return ModelMeasurements(
        manifest_sha256=manifest,
        size_bytes=int(41_943_040 * scale),
        load_seconds=3.1 * scale,
        latency_ms=LatencyMs(p50=21.0 * scale, p95=34.5 * scale, p99=47.2 * scale),
        right=int(right.sum()),
        accuracy_interval=_share_interval(int(right.sum()), len(truth)),
        macro_f1=float(np.mean(2 * recalls * precisions / np.maximum(1e-9, recalls + precisions))),
        log_loss=float(-np.log(scores[np.arange(len(truth)), truth] + 1e-12).mean()) if is_finite else None,
        calibration_error=float(abs(best.mean() - right.mean())) if is_finite else None,
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
        non_finite_photos=int((answers < 0).sum()),
        is_constant=not is_finite,
        golden_difference=2.1e-6,
        golden_tolerance=1e-4,
        golden_drift=0.0,
        balanced_accuracy=float(recalls.mean()),
        mean_cost=float((~right).mean() * 3),
        calibration=tuple(
            CalibrationBin(
                low=index / 15,
                high=(index + 1) / 15,
                n=int((bins == index).sum()),
                confidence=float(best[bins == index].mean()),
                accuracy=float(right[bins == index].mean()),
            )
            for index in np.unique(bins)
            if is_finite
        ),
        risk_coverage=tuple(
            RiskPoint(coverage=float(step / len(truth)), risk=float(wrong[step - 1])) for step in steps if is_finite
        ),
    )


def _metrics(ours: ModelMeasurements, theirs: ModelMeasurements | None) -> Iterator[MetricComparison]:
    for name, sign in (("macro_f1", 1), ("balanced_accuracy", 1), ("log_loss", -1), ("mean_cost", -1)):
        if getattr(ours, name) is None:
            continue
        candidate = float(getattr(ours, name))
        champion = None if theirs is None else float(getattr(theirs, name))
        gain = None if champion is None else sign * (candidate - champion)
        interval = None if gain is None else (gain - 0.021, gain + 0.024)
        yield MetricComparison(name=name, candidate=candidate, champion=champion, gain=gain, interval=interval)


def _changed(
    seen: list[HoldoutItem],
    labels: tuple[str, ...],
    ours: NDArray[np.int64],
    theirs: NDArray[np.int64] | None,
    right: NDArray[np.bool_],
    rival_right: NDArray[np.bool_] | None,
    *,
    is_fixed: bool,
) -> tuple[ChangedPhoto, ...]:
    if theirs is None or rival_right is None:
        return ()
    places = np.flatnonzero(right & ~rival_right if is_fixed else rival_right & ~right)[:200]
    return tuple(
        ChangedPhoto(
            sha256=seen[place].sha256,
            label=seen[place].label,
            candidate_answer=None if ours[place] < 0 else labels[ours[place]],
            champion_answer=labels[theirs[place]],
        )
        for place in places
    )


def _verdict(report: Report, policy: Policy, outcome: str) -> Verdict:
    accuracy: dict[str, Any] = {"check": "accuracy, superiority", "outcome": outcome}
    if report.paired is None:
        accuracy["check"] = "accuracy floor"
        figures = f"Accuracy {report.candidate_accuracy:.1%} of {report.photos:,} photos, the floor is 80.0%."
    else:
        figures = (
            f"{report.paired.candidate_only} photos fixed and {report.paired.champion_only} broken of "
            f"{report.photos:,}: exact one-sided McNemar p = 0.0031."
        )
    worst = min(report.classes, key=lambda row: row.paired.gain if row.paired else row.candidate_right / max(1, row.n))
    reasons = [
        Reason(statement=figures, **accuracy),
        Reason(
            check="recall, non-inferiority",
            outcome="cannot tell" if outcome == "cannot tell" else "better",
            statement=f"{worst.label}: recall may have fallen by more than 5 points; about 140 more labels of "
            f"{worst.label} would decide with 80% power.",
            label=worst.label if outcome == "cannot tell" else None,
            more_labels=140 if outcome == "cannot tell" else None,
        ),
        Reason(
            check="finite scores",
            outcome="better",
            statement="0 photos are answered with NaN or infinity; 0.00% are allowed.",
        ),
        Reason(check="size", outcome="better", statement="The export has 41,943,040 bytes; 60,000,000 are allowed."),
        Reason(
            check="latency",
            outcome="better",
            statement="95 % of single photos are answered within 34.5 ms; 40 ms are allowed.",
        ),
    ]
    budget = None
    if report.sealed_photos and outcome != "not better":
        budget = BudgetUse(
            number=4,
            entry_sha256="9" * 64,
            level=0.0025,
            sealed_photos=report.sealed_photos,
            is_confirmed=outcome == "better",
            tries_left=6,
            is_opened=False,
        )
    return Verdict(
        run_id=report.run_id,
        model=report.model,
        outcome=outcome,
        reasons=tuple(reasons),
        candidate_manifest_sha256=report.candidate.manifest_sha256,
        champion=report.champion_reference,
        budget=budget,
        without_suspects=outcome if report.suspects else None,
        holdout_sha256=report.holdout_sha256,
        policy_sha256=policy.sha256,
        report_sha256=report.sha256,
        decided_at=NOW,
    )


def names(count: int) -> tuple[str, ...]:
    words = ("airliner", "beagle", "cauliflower", "dial telephone", "eft", "freight car", "golf ball", "hourglass")
    return tuple(f"{words[index % 8]} {index:03}" for index in range(count))


TEN = ("aeroplane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "lorry")
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "\u202egnp.exe\u202c",
    "line\none\x1b[31m",
    "x" * 10_000,
    "{{ 7 * 7 }} {% raw %}",
    "قطة",
    "👩‍🔬 lab",
)


def two() -> Sample:
    return build(("cat", "dog"), photos=200, sealed=1800, skill=(1.9, 1.5))


def ten() -> Sample:
    return build(TEN, photos=400, sealed=3600, outcome="cannot tell")


def hundred() -> Sample:
    return build(names(100), photos=1000, sealed=9000, skill=(-0.7, -1.0))


def thousand() -> Sample:
    return build(names(1000), photos=2000, sealed=18_000, skill=(-1.8, -2.2))


def first() -> Sample:
    return build(TEN, photos=400, sealed=3600, skill=(1.0, None))


def opened() -> Sample:
    sample = build(TEN, photos=4000)
    budget = BudgetUse(
        number=10,
        entry_sha256="9" * 64,
        level=0.00125,
        sealed_photos=3600,
        is_confirmed=False,
        tries_left=0,
        is_opened=True,
    )
    verdict = {"budget": budget, "outcome": "cannot tell"}
    return sample.changed(report={"near_duplicates": (), "suspects": ()}, verdict={**verdict, "without_suspects": None})


def not_better() -> Sample:
    sample = build(TEN, photos=400, sealed=3600, skill=(0.4, 0.9), outcome="not better")
    limits = {"size_bytes": 30_000_000, "latency_p95_ms": 30.0}
    policy = Policy.model_validate({**POLICY, "limits": {**POLICY["limits"], **limits}})
    return replace(sample, policy=policy)


def nan() -> Sample:
    sample = build(TEN, photos=400, sealed=3600, skill=(float("nan"), 0.9), outcome="not better")
    finite = Reason(
        check="finite scores",
        outcome="not better",
        statement="400 of 400 photos are answered with NaN or infinity; 0.00% are allowed.",
    )
    alone = {"suspects": (), "near_duplicates": None, "training_photos_checked": None, "trial": None, "slices": ()}
    return sample.changed(
        report=alone, verdict={"reasons": (finite, *sample.verdict.reasons), "without_suspects": None}
    )


def disputed() -> Sample:
    """Labels in another order, and labels that both models dispute, so that the outcome hangs on them."""
    sample = build(TEN, photos=400, sealed=3600, skill=(-1.5, 0.9), outcome="cannot tell")
    order = LabelOrder(labels=(*TEN[1:], TEN[0]), accuracy=0.913)
    return sample.changed(report={"label_order": order}, verdict={"budget": None, "without_suspects": "better"})


def hostile() -> Sample:
    return build(HOSTILE, photos=300, sealed=300, source="noise", outcome="cannot tell")


SAMPLES: dict[str, Callable[[], Sample]] = {
    made.__name__: cache(made)
    for made in (two, ten, hundred, thousand, first, opened, not_better, nan, disputed, hostile)
}

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for title, made in SAMPLES.items():
        (folder / f"{title}.html").write_text(made().page(), encoding="utf-8")
