"""What is to be judged, once it is known that it may be: candidate, champion, holdout, policy, training photos.

Its place in the flow: validate.py opens a case first. Everything that makes a judgement meaningless is
refused here, before a minute is spent on measuring.
"""

from __future__ import annotations

import json
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from artifact_sync.errors import RefusedError
from artifact_sync.manifest import verify_manifest
from artifact_sync.records import GoldenExamples, InputContract, Manifest, ReleaseRecord, RunRecord, VersionRecord
from artifact_sync.run_folder import GOLDEN_EXAMPLES_PATH, RunFolder
from serving.perceptual_hash import PictureHashes
from validation.checks.policy import Policy
from validation.checks.policy_fit import refuse_unfit_policy
from validation.checks.verdict import ChampionReference
from validation.checks.wording import names_text
from validation.evaluate import label_columns
from validation.photos.holdout import Holdout
from validation.programs.model_scan import scan_export


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


@dataclass(frozen=True)
class TrainingPhotos:
    """What is known of the photos that a candidate was trained on.

    Attributes:
        sha256s: the digests of their files.
        pictures: what they look like; None where the dataset was built without.
    """

    sha256s: AbstractSet[str]
    pictures: PictureHashes | None


@dataclass(frozen=True)
class ModelOnDisk:
    """An export whose files match its manifest, and how to talk to it."""

    directory: Path
    manifest: Manifest
    labels: tuple[str, ...]
    contract: InputContract
    golden: GoldenExamples | None


@dataclass(frozen=True)
class Case:
    """One candidate that may be judged.

    Attributes:
        run: the candidate's run.
        record: its run.json.
        candidate: its export.
        champion: what is served now; None for a first model.
        holdout: the frozen photos.
        policy: what the candidate must show.
        training: the photos that it was trained on; None where its dataset is not at hand.
    """

    run: RunFolder
    record: RunRecord
    candidate: ModelOnDisk
    champion: Champion | None
    holdout: Holdout
    policy: Policy
    training: TrainingPhotos | None

    @property
    def champion_model(self) -> ModelOnDisk | None:
        """The champion's export."""
        if self.champion is None:
            return None
        version = self.champion.version
        return ModelOnDisk(
            directory=self.champion.directory,
            manifest=version.manifest,
            labels=version.labels,
            contract=version.input_contract,
            golden=None,
        )


def open_case(
    run: RunFolder,
    *,
    holdout: Holdout,
    policy: Policy,
    champion: Champion | None,
    first: bool,
    training: TrainingPhotos | None,
) -> Case:
    """Return the case of a complete run.

    Raises:
        RefusedError: no or a needless champion, another holdout than the policy's, training photos in the
            holdout, foreign labels, a policy that does not fit, a candidate that is not only a classifier.
        NotFoundError: the run is not complete.
        IntegrityError: an export is not what its manifest says.
    """
    record = run.read_run()
    _check_flow(record, policy=policy, holdout=holdout, champion=champion, first=first)
    refuse_unfit_policy(
        policy, labels=holdout.record.labels, is_first=champion is None, slice_columns=_slice_columns(holdout)
    )
    _check_leakage(holdout, training)
    candidate = ModelOnDisk(
        directory=run.export,
        manifest=run.read_manifest(),
        labels=record.labels,
        contract=record.input_contract,
        golden=_read_golden(run.export, labels=record.labels),
    )
    case = Case(run, record, candidate, champion, holdout, policy, training)
    _check_is_another(candidate, champion, run_id=record.run_id)
    for name, model in (("candidate", candidate), ("champion", case.champion_model)):
        if model is not None:
            label_columns(model.labels, holdout_labels=holdout.record.labels, name=name)
            verify_manifest(model.directory, model.manifest)
    scan_export(run.export, contract=record.input_contract, classes=len(record.labels))
    return case


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


def _check_is_another(candidate: ModelOnDisk, champion: Champion | None, *, run_id: str) -> None:
    if champion is not None and candidate.manifest.sha256 == champion.version.manifest.sha256:
        raise RefusedError(
            f"Validation refused: run {run_id} is what version {champion.version.version} serves already, file for "
            f"file, so it cannot be better, and asking would cost a try. `liftgate trace {run_id}` shows its evidence."
        )


def _check_leakage(holdout: Holdout, training: TrainingPhotos | None) -> None:
    leaked = sorted(holdout.photo_sha256s & (frozenset() if training is None else training.sha256s))
    if leaked:
        raise RefusedError(
            f"Validation refused: the candidate was trained on {len(leaked)} of the holdout's "
            f"{len(holdout.record.items)} photos ({names_text(leaked, most=5)}), "
            "so its answers to them show nothing. Build the dataset without them and train again."
        )


def _slice_columns(holdout: Holdout) -> tuple[str, ...]:
    return tuple(sorted({column for item in holdout.record.items for column in item.slices}))


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
