"""The use case behind `liftgate validate`: measure a candidate against its champion and decide.

Its place in the flow: after training, before approval. It reads a complete run, the champion that
is served, the frozen holdout and the policy, and leaves in the run folder

    policy.json   report.json   report.html   verdict.json (last: its presence means judged)

A second call with the same inputs returns what the first one decided and measures nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from artifact_sync.clock import Clock
from artifact_sync.durable import fsync_directory, write_durably
from artifact_sync.errors import RecordError, RefusedError
from artifact_sync.manifest import verify_manifest
from artifact_sync.records import GoldenExamples, ReleaseRecord, RunRecord, VersionRecord
from artifact_sync.run_folder import GOLDEN_EXAMPLES_PATH, RunFolder
from validation.evaluate import Progress, label_columns
from validation.gate import judge
from validation.holdout import Holdout, PhotoDecoder
from validation.measure import ModelOnDisk, measure
from validation.model_scan import scan_export
from validation.policy import Policy
from validation.policy_fit import refuse_unfit_policy
from validation.report import Report
from validation.report_page import render_page
from validation.settings import ValidationSettings
from validation.verdict import ChampionReference, Verdict

_LISTED = 5


@dataclass(frozen=True)
class Champion:
    """The version that the newest release serves as stable, and where its verified files lie."""

    version: VersionRecord
    directory: Path
    release: ReleaseRecord

    @property
    def reference(self) -> ChampionReference:
        """What the verdict says of it."""
        return ChampionReference(
            release=self.release.number,
            version=self.version.version,
            manifest_sha256=self.version.manifest.sha256,
        )


def validate_run(
    run: RunFolder,
    *,
    holdout: Holdout,
    policy: Policy,
    champion: Champion | None,
    first: bool,
    decoder: PhotoDecoder,
    clock: Clock,
    settings: ValidationSettings | None = None,
    training_sha256s: AbstractSet[str] | None = None,
    progress: Progress | None = None,
) -> tuple[Report, Verdict]:
    """Judge a run, write report and verdict into its folder, and return both.

    Args:
        run: a complete run.
        holdout: the frozen photos, their digests checked by `load_holdout`.
        policy: what the candidate must show.
        champion: what is served now; None when nothing is.
        first: the operator says that nothing is served yet, so floors and limits alone decide.
        decoder: an open DecodePool.
        clock: for latencies and the time of the decision.
        settings: how the measuring is done.
        training_sha256s: digests of the photos the candidate was trained on, where they are known.
        progress: told how many of how many photos are answered.

    Raises:
        RefusedError: no or a needless champion, another holdout than the policy's, training photos
            in the holdout, foreign labels, a candidate that is not only a classifier or does not load.
        NotFoundError: the run is not complete.
        IntegrityError: an export is not what its manifest says.
    """
    record = run.read_run()
    _check_flow(record, policy=policy, holdout=holdout, champion=champion, first=first)
    refuse_unfit_policy(policy, labels=holdout.record.labels, is_first=champion is None)
    _check_leakage(holdout, training_sha256s)
    candidate = _candidate_on_disk(run, record)
    rival = None if champion is None else _champion_on_disk(champion)
    _check_exports(candidate, rival, holdout=holdout)
    scan_export(run.export, contract=record.input_contract, classes=len(record.labels))
    # Everything that the report says beside what is measured.
    given = {
        "run_id": record.run_id,
        "model": record.model,
        "lineage": record.lineage(),
        "champion_reference": None if champion is None else champion.reference,
        "training_photos_checked": None if training_sha256s is None else len(training_sha256s),
    }
    known = _known_decision(run, given, candidate=candidate, holdout=holdout, policy=policy)
    if known is not None:
        return known
    measured = measure(
        candidate,
        champion=rival,
        holdout=holdout,
        decoder=decoder,
        clock=clock,
        settings=settings or ValidationSettings(),
        progress=progress,
    )
    report = Report.model_validate({**measured, **given, "measured_at": clock.now()})
    verdict = judge(report, policy=policy, decided_at=clock.now())
    _write(run, report, verdict, policy=policy, holdout=holdout, decoder=decoder)
    return report, verdict


def _check_flow(record: RunRecord, *, policy: Policy, holdout: Holdout, champion: Champion | None, first: bool) -> None:
    if champion is None and not first:
        raise RefusedError(
            f"Validation refused: no champion is known for {record.model}, so there is nothing to be better than. "
            "If nothing is served yet, say so with --first; else make the releases readable (`liftgate doctor`)."
        )
    if champion is not None and first:
        raise RefusedError(
            f"Validation refused: --first says that nothing is served, but release {champion.release.number} "
            f"serves version {champion.version.version} of {champion.version.model}. Leave out --first."
        )
    if champion is not None and (champion.version.model, champion.version.version) != (
        record.model,
        champion.release.stable,
    ):
        raise RefusedError(
            f"Validation refused: run {record.run_id} trained {record.model}, and the champion handed in is version "
            f"{champion.version.version} of {champion.version.model}, where release {champion.release.number} "
            f"serves version {champion.release.stable}. Look again at what is served."
        )
    if policy.holdout.sha256 not in (None, holdout.sha256):
        raise RefusedError(
            f"Validation refused: the policy was written for the holdout {policy.holdout.sha256}, and "
            f"{holdout.path} is {holdout.sha256}. Use that holdout, or write the demands anew for this one."
        )


def _check_leakage(holdout: Holdout, training_sha256s: AbstractSet[str] | None) -> None:
    leaked = sorted(holdout.photo_sha256s & (training_sha256s or frozenset()))
    if leaked:
        raise RefusedError(
            f"Validation refused: the candidate was trained on {len(leaked)} of the holdout's "
            f"{len(holdout.record.items)} photos ({', '.join(leaked[:_LISTED])}{' …' if leaked[_LISTED:] else ''}), "
            "so its answers to them show nothing. Build the dataset without them and train again."
        )


def _candidate_on_disk(run: RunFolder, record: RunRecord) -> ModelOnDisk:
    return ModelOnDisk(
        directory=run.export,
        manifest=run.read_manifest(),
        labels=record.labels,
        contract=record.input_contract,
        golden=_read_golden(run.export, labels=record.labels),
    )


def _champion_on_disk(champion: Champion) -> ModelOnDisk:
    return ModelOnDisk(
        directory=champion.directory,
        manifest=champion.version.manifest,
        labels=champion.version.labels,
        contract=champion.version.input_contract,
        golden=None,
    )


def _check_exports(candidate: ModelOnDisk, champion: ModelOnDisk | None, *, holdout: Holdout) -> None:
    for name, model in (("candidate", candidate), ("champion", champion)):
        if model is not None:
            label_columns(model.labels, holdout_labels=holdout.record.labels, name=name)
            verify_manifest(model.directory, model.manifest)


def _read_golden(export: Path, *, labels: tuple[str, ...]) -> GoldenExamples | None:
    labels_path, golden_path = export / "assets.extra" / "labels.json", export / GOLDEN_EXAMPLES_PATH
    if labels_path.is_file():
        try:
            written = json.loads(labels_path.read_bytes())
        except ValueError:
            written = "no JSON"
        if written != list(labels):
            raise RefusedError(
                f"Validation refused: {labels_path} says {written}, run.json says {list(labels)}: the scores would "
                "be read under the wrong names. Export the run again."
            )
    return GoldenExamples.from_json(golden_path.read_bytes()) if golden_path.is_file() else None


def _known_decision(
    run: RunFolder, given: Mapping[str, object], *, candidate: ModelOnDisk, holdout: Holdout, policy: Policy
) -> tuple[Report, Verdict] | None:
    """Return the decision that lies in the run folder if it rests on these very inputs."""
    with suppress(FileNotFoundError, RecordError):
        verdict = Verdict.from_json(run.verdict_json.read_bytes())
        report = Report.from_json(run.report_json.read_bytes())
        inputs = (candidate.manifest.sha256, holdout.sha256, policy.sha256)
        judged = (verdict.candidate_manifest_sha256, verdict.holdout_sha256, verdict.policy_sha256)
        is_about_these = all(getattr(report, name) == value for name, value in given.items())
        if inputs == judged and is_about_these and verdict.report_sha256 == report.sha256:
            return report, verdict
    return None


def _write(
    run: RunFolder, report: Report, verdict: Verdict, *, policy: Policy, holdout: Holdout, decoder: PhotoDecoder
) -> None:
    page = render_page(report, verdict, policy=policy, holdout=holdout, decoder=decoder)
    # An older verdict must not stand beside a newer report, not even after a crash.
    run.verdict_json.unlink(missing_ok=True)
    fsync_directory(run.path)
    write_durably(run.policy_json, policy.to_json())
    write_durably(run.report_json, report.to_json())
    write_durably(run.report_html, page.encode("utf-8"))
    write_durably(run.verdict_json, verdict.to_json())
