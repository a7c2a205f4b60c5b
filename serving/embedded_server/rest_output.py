"""REST's answers: outputs as JSON in the row or the columnar format, laid out as the real server does.

Its place in the flow: the last step of a REST request. Floats are written so that reading them back
as the same type gives the same number, with ".0" so that they stay floats. All values of an output
are written first, and then put into their lists, which is far quicker than list by list.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from serving.embedded_server.dtypes import data_type_of, type_name
from serving.embedded_server.status import StatusError, invalid_argument
from serving.protos import tfs_pb2

_INDENT = "    "

Outputs = Mapping[str, npt.NDArray[Any]]


def predict_body(outputs: Outputs, *, layout: Literal["row", "columnar"]) -> str:
    """Return the body of a predict answer.

    Raises:
        StatusError: INVALID_ARGUMENT: rows cannot be made of these shapes, or a type has no JSON.
    """
    if not outputs:
        raise invalid_argument("Cannot convert empty tensor map to JSON")
    return _row_body(outputs) if layout == "row" else _columnar_body(outputs)


def classification_body(result: tfs_pb2.ClassificationResult) -> str:
    """Return the body of a classify answer: for each Example, its labels with their scores.

    Raises:
        StatusError: INVALID_ARGUMENT: there is no result.
    """
    if not result.classifications:
        raise invalid_argument("Cannot convert empty ClassificationResults to JSON")
    rows = []
    for classifications in result.classifications:
        scores = _decimals(np.array([found.score for found in classifications.classes], dtype=np.float32))
        pairs = zip((_quoted(found.label) for found in classifications.classes), scores, strict=True)
        rows.append("[" + ", ".join(f"[{label}, {score}]" for label, score in pairs) + "]")
    return f'{{\n{_INDENT}"results": [{", ".join(rows)}\n{_INDENT}]\n}}'


def regression_body(result: tfs_pb2.RegressionResult) -> str:
    """Return the body of a regress answer: a value for each Example.

    Raises:
        StatusError: INVALID_ARGUMENT: there is no result.
    """
    if not result.regressions:
        raise invalid_argument("Cannot convert empty RegressionResults to JSON")
    values = _decimals(np.array([found.value for found in result.regressions], dtype=np.float32))
    return f'{{\n{_INDENT}"results": [{", ".join(values)}]\n}}'


def error_body(message: str) -> str:
    """Return the body of every refusal."""
    return f'{{\n{_INDENT}"error": {_quoted(message)}\n}}'


def _row_body(outputs: Outputs) -> str:
    _check_batch(outputs)
    columns = {name: _rows_on_one_line(_texts(name, array), array.shape) for name, array in outputs.items()}
    if len(columns) == 1:
        rows = ", ".join(next(iter(columns.values())))
    else:
        rows_of_all = zip(*columns.values(), strict=True)
        objects = [_object(dict(zip(columns, row, strict=True)), level=2) for row in rows_of_all]
        rows = ",".join(f"\n{_INDENT * 2}{text}" for text in objects)
    end = f"\n{_INDENT}]" if rows else "]"
    return f'{{\n{_INDENT}"predictions": [{rows}{end}\n}}'


def _columnar_body(outputs: Outputs) -> str:
    level = 1 if len(outputs) == 1 else 2
    texts = {name: _indented(_texts(name, array), array.shape, level) for name, array in outputs.items()}
    content = next(iter(texts.values())) if len(texts) == 1 else _object(texts, level=1)
    return f'{{\n{_INDENT}"outputs": {content}\n}}'


def _check_batch(outputs: Outputs) -> None:
    expected: int | None = None
    for name, array in outputs.items():
        if not array.ndim:
            raise invalid_argument(f"Tensor name: {name} has no shape information ")
        if expected is not None and len(array) != expected:
            raise invalid_argument(
                f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {expected}"
            )
        expected = len(array)


def _rows_on_one_line(texts: list[str], shape: Sequence[int]) -> list[str]:
    """Return one text for each step of the first dimension."""
    for axis in range(len(shape) - 1, 0, -1):
        texts = ["[" + ", ".join(part) + "]" for part in _parts(texts, shape, axis)]
    return texts


def _indented(texts: list[str], shape: Sequence[int], level: int) -> str:
    for axis in range(len(shape) - 1, -1, -1):
        before, after = f"\n{_INDENT * (level + axis + 1)}", f"\n{_INDENT * (level + axis)}]"
        separator = f",{before}"
        texts = [f"[{before}{separator.join(part)}{after}" if part else "[]" for part in _parts(texts, shape, axis)]
    return texts[0]


def _parts(texts: list[str], shape: Sequence[int], axis: int) -> list[list[str]]:
    count, size = math.prod(shape[:axis]), shape[axis]
    return [texts[index * size : (index + 1) * size] for index in range(count)]


def _object(texts: Mapping[str, str], *, level: int) -> str:
    items = ",".join(f"\n{_INDENT * (level + 1)}{_quoted(name)}: {text}" for name, text in texts.items())
    return f"{{{items}\n{_INDENT * level}}}"


def _texts(name: str, array: npt.NDArray[Any]) -> list[str]:
    """Return every value of an output as JSON, in order."""
    match array.dtype.kind:
        case "f":
            return _decimals(array.ravel())
        case "i" | "u":
            return list(map(str, array.ravel().tolist()))
        case "b":
            return ["true" if value else "false" for value in array.ravel().tolist()]
        case "O" if name.endswith("_bytes"):
            return [f'{{"b64": "{base64.b64encode(value).decode()}"}}' for value in array.ravel().tolist()]
        case "O":
            return [_quoted(value.decode("utf-8", errors="replace")) for value in array.ravel().tolist()]
        case _:
            raise _no_json(array)


def _decimals(values: npt.NDArray[Any]) -> list[str]:
    """Write floats with six digits where that is the same number again, else with as many as it takes."""
    if values.dtype.itemsize < np.dtype(np.float32).itemsize:
        values = values.astype(np.float32)
    numbers = values.tolist()
    texts = ("%.6g " * len(numbers) % tuple(numbers)).split()
    with np.errstate(over="ignore"):
        back = np.array(list(map(float, texts)), dtype=np.float64).astype(values.dtype)
    digits = "%.17g" if values.dtype.itemsize == np.dtype(np.float64).itemsize else "%.9g"
    for index in np.flatnonzero(back != values).tolist():
        texts[index] = digits % numbers[index]
    texts = [text if "." in text or "e" in text else f"{text}.0" for text in texts]
    for index in np.flatnonzero(~np.isfinite(values)).tolist():
        texts[index] = json.dumps(numbers[index])
    return texts


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _no_json(array: npt.NDArray[Any]) -> StatusError:
    return invalid_argument(f"Failed to write JSON value for tensor type: {type_name(data_type_of(array.dtype))}")
