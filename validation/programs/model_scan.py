"""A SavedModel is a program: whether this one does no more than classify.

Its place in the flow: validate.py scans every candidate before trial.py loads it. The file is read by
messages of our own and by no code of the model's; TensorFlow is not imported.

The scan refuses unknown files, links, sizes over the limits, operations off the lists of scan_graph.py,
what scan_calls.py finds in how functions call each other, and a signature that is not the input
contract's. An asset is refused whatever its name: pixels need no vocabulary, and a file that is read
when the model is loaded is one way more to be read from. What the scan cannot see (weights that are
NaN, variables that are missing, time and memory) shows in the trial.

The object graph is not read: no server follows it, and it can only name functions of the library,
which are all looked at.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError

from artifact_sync.errors import RefusedError
from artifact_sync.records import InputContract
from artifact_sync.run_folder import GOLDEN_EXAMPLES_PATH
from validation.programs.protos import saved_model_pb2 as pb
from validation.programs.scan_calls import call_findings
from validation.programs.scan_graph import constant_elements, graph_findings, reachable_operations
from validation.programs.scan_parts import NotAMessageError, count_parts

_UINT8, _FLOAT = 4, 1
"""tensorflow.DataType's numbers."""

REQUIRED_FILES = ("saved_model.pb", "variables/variables.index")
_ALLOWED_FILES = re.compile(
    r"saved_model\.pb|fingerprint\.pb|variables/variables\.index|variables/variables\.data-\d{5}-of-\d{5}"
    rf"|assets\.extra/(labels\.json|tf_serving_warmup_requests)|{re.escape(GOLDEN_EXAMPLES_PATH)}"
)
_ALLOWED_DIRECTORIES = frozenset({"variables", "assets", "assets.extra"})


@dataclass(frozen=True)
class ScanLimits:
    """What an export may hold at most.

    Attributes:
        graph_bytes: of a file that is parsed.
        graph_parts: what parsing may unfold it to: nodes, attributes, inputs, names (MobileNetV2: 41,275).
        constant_elements: numbers in all constants together.
        file_bytes: of any other file.
        files: their number.
    """

    graph_bytes: int = 256 * 1024 * 1024
    graph_parts: int = 1_000_000
    constant_elements: int = 256 * 1024 * 1024
    file_bytes: int = 16 * 1024**3
    files: int = 1024


@dataclass(frozen=True)
class ScanReport:
    """What a scan without findings saw: the operations that serving can run."""

    operations: frozenset[str]


def scan_export(
    directory: Path, *, contract: InputContract, classes: int, limits: ScanLimits = ScanLimits()
) -> ScanReport:
    """Return what the SavedModel in `directory` can do.

    Args:
        directory: the export.
        contract: the input that its signature must take.
        classes: the number of scores that its signature must give.
        limits: sizes.

    Raises:
        RefusedError: it holds or can do something that a classifier does not need; all findings are listed.
    """
    findings = list(_file_findings(directory, limits))
    if findings:
        raise _refused(directory, findings)
    meta_graph = _parse(directory, limits)
    findings = [
        *graph_findings(meta_graph),
        *call_findings(meta_graph),
        *_signature_findings(meta_graph, contract, classes),
    ]
    elements = constant_elements(meta_graph)
    if elements > limits.constant_elements:
        findings.append(f"its constants unfold to {elements:,} numbers, more than {limits.constant_elements:,}")
    if findings:
        raise _refused(directory, findings)
    return ScanReport(operations=reachable_operations(meta_graph))


def _file_findings(directory: Path, limits: ScanLimits) -> Iterator[str]:
    if directory.is_symlink():
        yield "the export itself is a link"
    seen: dict[str, int] = {}
    for parent, directories, files in os.walk(directory):
        for name in (*directories, *files):
            path = Path(parent, name)
            relative = path.relative_to(directory).as_posix()
            status = path.lstat()
            trouble = _trouble(relative, status)
            if trouble is not None:
                yield trouble
            elif stat.S_ISREG(status.st_mode):
                seen[relative] = status.st_size
        if len(seen) > limits.files:
            yield f"it has more than {limits.files} files"
            return
    yield from (f"{name} is missing" for name in REQUIRED_FILES if name not in seen)
    if not any(name.startswith("variables/variables.data-") for name in seen):
        yield "variables/variables.data-… is missing"
    for name, size_bytes in seen.items():
        limit = limits.graph_bytes if name.endswith(".pb") else limits.file_bytes
        if size_bytes > limit:
            yield f"{name} has {size_bytes:,} bytes, more than {limit:,}"


def _trouble(relative: str, status: os.stat_result) -> str | None:
    """Return what is wrong with one entry of an export, leaving its content aside."""
    if stat.S_ISDIR(status.st_mode):
        is_known = relative in _ALLOWED_DIRECTORIES
        return None if is_known else f"the directory {relative!r} does not belong in an export"
    if not stat.S_ISREG(status.st_mode):
        return f"{relative!r} is a link or a special file"
    if not _ALLOWED_FILES.fullmatch(relative):
        return f"the file {relative!r} does not belong in an export"
    if status.st_nlink > 1:
        return f"{relative!r} has another name elsewhere (a hard link), under which it can be changed: copy it"
    return None


def _parse(directory: Path, limits: ScanLimits) -> pb.MetaGraph:
    content = _read(directory / "saved_model.pb", limits.graph_bytes)
    try:
        parts = count_parts(content, pb.SavedModel, limit=limits.graph_parts)
        if parts > limits.graph_parts:
            raise _refused(directory, [f"saved_model.pb unfolds to more than {limits.graph_parts:,} parts"])
        model = pb.SavedModel.FromString(content)
    except (NotAMessageError, DecodeError) as error:
        raise _refused(directory, [f"saved_model.pb is not a SavedModel ({error})"]) from None
    if len(model.meta_graphs) != 1 or list(model.meta_graphs[0].meta_info_def.tags) != ["serve"]:
        raise _refused(directory, ['it must hold one meta graph with the tag "serve" and no other'])
    return model.meta_graphs[0]


def _read(path: Path, limit: int) -> bytes:
    """Return a file's content; it may have become another one since the files were looked at."""
    try:
        with open(path, "rb", opener=_open_plainly) as stream:
            content = stream.read(limit + 1)
    except OSError as error:
        raise _refused(path.parent, [f"{path.name} cannot be read ({error.strerror})"]) from None
    if len(content) > limit:
        raise _refused(path.parent, [f"{path.name} has more than {limit:,} bytes"])
    return content


def _open_plainly(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _signature_findings(meta_graph: pb.MetaGraph, contract: InputContract, classes: int) -> Iterator[str]:
    name = contract.signature_name
    signature = meta_graph.signature_def.get(name)
    if signature is None:
        yield f"there is no signature {name!r}"
        return
    if sorted(signature.inputs) != [contract.input_name]:
        yield f"the signature takes {sorted(signature.inputs)} instead of [{contract.input_name!r}]"
    elif _tensor(signature.inputs[contract.input_name]) != (
        _UINT8,
        (-1, contract.height, contract.width, contract.channels),
    ):
        yield (
            f"the input {contract.input_name!r} is not uint8 "
            f"[batch, {contract.height}, {contract.width}, {contract.channels}]"
        )
    if contract.scores_name not in signature.outputs:
        yield f"the signature does not give {contract.scores_name!r}"
    elif _tensor(signature.outputs[contract.scores_name]) != (_FLOAT, (-1, classes)):
        yield f"the output {contract.scores_name!r} is not float32 [batch, {classes}]"


def _tensor(info: pb.TensorInfo) -> tuple[int, tuple[int, ...] | None]:
    shape = None if info.tensor_shape.unknown_rank else tuple(dim.size for dim in info.tensor_shape.dim)
    return info.dtype, shape


def _refused(directory: Path, findings: list[str]) -> RefusedError:
    listed = "\n  - ".join(findings)
    return RefusedError(
        f"Candidate refused: the export {directory} is not only a classifier:\n  - {listed}\n"
        "Export it with Liftgate's own training; if an operation is needed and harmless, add it to the list in "
        "validation/programs/scan_graph.py."
    )
