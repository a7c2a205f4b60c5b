"""Training a run once more, and saying how close the second came to the first.

Its place in the flow: `liftgate runs reproduce` asks `plan_reproduction` whether the same can be
trained here at all, starts it on the cluster like any training, and shows `reproduced`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from artifact_sync.errors import RefusedError
from artifact_sync.records import GoldenExamples, RunRecord
from artifact_sync.run_folder import GOLDEN_EXAMPLES_PATH, RunFolder
from training_cluster.config.training_config import TrainingConfig
from training_cluster.runs.comparison import Comparison, compare_runs
from training_cluster.runs.curves import first_difference
from training_cluster.runs.run import CodeState

_WEIGHTS = "variables/variables.data-"


@dataclass(frozen=True)
class ReproductionPlan:
    """What to train.

    Attributes:
        config: the run's configuration, resolved.
        remarks: what is not as it was, in words.
    """

    config: TrainingConfig
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Reproduction:
    """How close the second run came.

    Attributes:
        is_identical: whether the weights of both exports are the same bits.
        score_difference: the largest difference of a probability over the golden examples; None when
            the two runs do not have the same pictures there.
        first_different_step: the first logged step with another loss; None when there is none.
        reasons: what may have made the difference; empty when there is none.
        comparison: all that differs.
    """

    is_identical: bool
    score_difference: float | None
    first_different_step: int | None
    reasons: tuple[str, ...]
    comparison: Comparison


def plan_reproduction(
    record: RunRecord, *, data_manifest_sha256: str, code: CodeState, is_other_code_allowed: bool = False
) -> ReproductionPlan:
    """Return what to train for the same result.

    Args:
        record: the run.
        data_manifest_sha256: the digest of the dataset that is at hand.
        code: the code that would train.
        is_other_code_allowed: go on where only the code is another.

    Raises:
        RefusedError: names everything that keeps this from being the same training.
    """
    refused = []
    if data_manifest_sha256 != record.data_manifest_sha256:
        refused.append(
            f"it was trained from the dataset {record.data_manifest_sha256[:16]}, and this is "
            f"{data_manifest_sha256[:16]}: name the same one with --data"
        )
    config, remarks = _config(record)
    remarks += _code_remarks(record, code)
    if remarks and not is_other_code_allowed:
        refused += remarks
        refused[-1] += f"; check out the commit {record.code_commit[:12]}, or say --allow-code-difference"
    if refused or config is None:
        raise RefusedError(
            f"Run {record.run_id} cannot be trained again as it was:\n  - " + "\n  - ".join(refused or remarks)
        )
    return ReproductionPlan(config, tuple(remarks))


def reproduced(first: RunFolder, second: RunFolder) -> Reproduction:
    """Return how close the complete run `second` came to `first`.

    Raises:
        NotFoundError: one of them is not complete.
    """
    comparison = compare_runs(first, second)
    weights = [
        {entry.path: entry.sha256 for entry in folder.read_manifest().files if entry.path.startswith(_WEIGHTS)}
        for folder in (first, second)
    ]
    is_identical = bool(weights[0]) and weights[0] == weights[1]
    return Reproduction(
        is_identical=is_identical,
        score_difference=_score_difference(first, second),
        first_different_step=first_difference(*comparison.curves),
        reasons=() if is_identical else tuple(_reasons(comparison)),
        comparison=comparison,
    )


def _config(record: RunRecord) -> tuple[TrainingConfig | None, list[str]]:
    try:
        config = TrainingConfig.model_validate(record.config)
    except ValidationError as error:
        keys = ", ".join(".".join(map(str, detail["loc"])) for detail in error.errors())
        return None, [f"this code does not take its configuration ({keys})"]
    if config.sha256 != record.config_sha256:
        return config, ["this code has other keys than its configuration"]
    return config, []


def _code_remarks(record: RunRecord, code: CodeState) -> list[str]:
    remarks = []
    if code.commit != record.code_commit:
        remarks.append(f"its code was {record.code_commit[:20]}, and this is {code.commit[:20]}")
    if record.code_dirty:
        remarks.append("its code had changes that no commit holds")
    if code.is_dirty:
        remarks.append("this code has changes that no commit holds")
    return remarks


def _score_difference(first: RunFolder, second: RunFolder) -> float | None:
    golden = [
        GoldenExamples.from_json((folder.export / GOLDEN_EXAMPLES_PATH).read_bytes()).examples
        for folder in (first, second)
    ]
    if [one.pixels_base64 for one in golden[0]] != [one.pixels_base64 for one in golden[1]]:
        return None
    differences: list[float] = [
        abs(score - other)
        for one, another in zip(*golden, strict=True)
        for score, other in zip(one.scores, another.scores, strict=True)
    ]
    return max(differences)


def _reasons(comparison: Comparison) -> Iterator[str]:
    one, other = comparison.records
    for concern in ("code", "data", "configuration", "environment", "hardware"):
        for difference in comparison.differences[concern]:
            if not difference.name.startswith("export_"):
                yield f"{concern}: {difference.name} was {difference.first} and is {difference.second}"
    if not (one.is_deterministic and other.is_deterministic):
        yield "execution.is_deterministic is false: sums are rounded in the order in which threads come"
    threads = {
        record.environment.get(f"{pool}_threads") for record in (one, other) for pool in ("intra_op", "inter_op")
    }
    if "0" in threads:
        yield "the number of threads is left to TensorFlow (execution.threads = 0), and sums depend on it"
    if any(record.hardware.get("accelerators", "none") != "none" for record in (one, other)):
        yield "some operations on GPUs have no deterministic form"
