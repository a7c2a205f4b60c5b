"""What differs between two runs: in code, data, configuration, environment, hardware and figures.

Its place in the flow: `liftgate runs compare` prints it or draws it as a page; `reproduction` asks it
why two runs that should be the same are not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from artifact_sync.errors import NotFoundError
from artifact_sync.records import RunRecord
from artifact_sync.run_folder import RunFolder
from training_cluster.datasets.data_manifest import DataManifest, load_data_manifest
from training_cluster.runs.curves import Curve, read_curves

ABSENT = "–"
"""Stands where one of the two runs has no such thing."""


@dataclass(frozen=True)
class Difference:
    """One thing that is not the same, as text."""

    name: str
    first: str
    second: str


@dataclass(frozen=True)
class Comparison:
    """Two complete runs side by side.

    Attributes:
        records: their run.json.
        differences: by what they concern, in the order in which one should look; empty where nothing differs.
        figures: all figures of either, whether or not they differ.
        curves: of either, by figure.
        remarks: what could not be compared.
    """

    records: tuple[RunRecord, RunRecord]
    differences: Mapping[str, tuple[Difference, ...]]
    figures: tuple[Difference, ...]
    curves: tuple[Mapping[str, Curve], Mapping[str, Curve]]
    remarks: tuple[str, ...]


def compare_runs(first: RunFolder, second: RunFolder) -> Comparison:
    """Return what differs between two complete runs.

    Raises:
        NotFoundError: one of them is not complete.
        RecordError: a record is malformed.
    """
    records = (first.read_run(), second.read_run())
    manifests = (_data(first), _data(second))
    one, other = records
    remarks = [
        f"Run {folder.run_id} has no account of its data; only the digests of the datasets are compared."
        for folder, manifest in zip((first, second), manifests, strict=True)
        if manifest is None and one.data_manifest_sha256 != other.data_manifest_sha256
    ]
    return Comparison(
        records=records,
        differences={
            "code": _differences(_code(one), _code(other)),
            "data": _differences(_data_account(one, manifests[0]), _data_account(other, manifests[1])),
            "configuration": _differences(flattened(one.config), flattened(other.config)),
            "environment": _differences(one.environment, other.environment),
            "hardware": _differences(one.hardware, other.hardware),
        },
        figures=_pairs(_numbers(one.metrics), _numbers(other.metrics)),
        curves=(read_curves(first.path), read_curves(second.path)),
        remarks=tuple(remarks),
    )


def flattened(table: Mapping[str, Any], *, prefix: str = "") -> dict[str, str]:
    """Return nested tables as dotted keys with their values as text."""
    flat: dict[str, str] = {}
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            flat |= flattened(value, prefix=f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return flat


def _code(record: RunRecord) -> dict[str, str]:
    return {"commit": record.code_commit, "changed beside the commit": "yes" if record.code_dirty else "no"}


def _data(folder: RunFolder) -> DataManifest | None:
    try:
        return load_data_manifest(folder.path)
    except NotFoundError:
        return None


def _data_account(record: RunRecord, manifest: DataManifest | None) -> dict[str, str]:
    account = {"dataset": record.data_manifest_sha256[:16], "labels": ", ".join(record.labels)}
    contract = record.input_contract
    account["pixels"] = f"{contract.height}x{contract.width}x{contract.channels}"
    if manifest is None:
        return account
    account |= {
        "examples": f"{manifest.count:,}",
        "photos": manifest.sources_sha256[:16],
        "held back": manifest.guard_sha256[:16],
        "rejected": str(len(manifest.rejects)),
        "excluded": str(len(manifest.excluded)),
        "duplicates": str(len(manifest.duplicates)),
        "from feedback": str(manifest.feedback_count),
    }
    account |= {f"examples of {label}": f"{count:,}" for label, count in manifest.example_counts.items()}
    for column, counts in manifest.slice_counts.items():
        account |= {f"examples of {column} {value}": f"{count:,}" for value, count in counts.items()}
    sources: Mapping[str, str] = getattr(manifest, "sources", {})
    return account | {f"source {name}": digest[:16] for name, digest in sources.items()}


def _numbers(figures: Mapping[str, float]) -> dict[str, str]:
    return {name: f"{value:.6g}" for name, value in figures.items()}


def _differences(first: Mapping[str, str], second: Mapping[str, str]) -> tuple[Difference, ...]:
    return tuple(pair for pair in _pairs(first, second) if pair.first != pair.second)


def _pairs(first: Mapping[str, str], second: Mapping[str, str]) -> tuple[Difference, ...]:
    return tuple(_pair(first, second))


def _pair(first: Mapping[str, str], second: Mapping[str, str]) -> Iterator[Difference]:
    for name in sorted(first.keys() | second.keys()):
        yield Difference(name, first.get(name, ABSENT), second.get(name, ABSENT))
