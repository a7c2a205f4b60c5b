"""REST's answers: outputs as JSON in the row or the columnar format, laid out as the real server does.

Its place in the flow: the last step of a REST request. Floats are written so that reading them back
as the same type gives the same number, with ".0" so that they stay floats.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from serving.embedded_server.dtypes import data_type_of, type_name
from serving.embedded_server.status import invalid_argument

_INDENT = "    "

Outputs = Mapping[str, npt.NDArray[Any]]


def predict_body(outputs: Outputs, *, layout: Literal["row", "columnar"]) -> str:
    """Return the body of a predict answer.

    Raises:
        StatusError: INVALID_ARGUMENT: rows cannot be made of these shapes, or a type has no JSON.
    """
    return _row_body(outputs) if layout == "row" else _columnar_body(outputs)


def error_body(message: str) -> str:
    """Return the body of every refusal."""
    return f'{{\n{_INDENT}"error": {json.dumps(message, ensure_ascii=False)}\n}}'


def _row_body(outputs: Outputs) -> str:
    _check_batch(outputs)
    columns = {name: _row_texts(name, array) for name, array in outputs.items()}
    if len(columns) == 1:
        rows = ", ".join(next(iter(columns.values())))
        return f'{{\n{_INDENT}"predictions": [{rows}\n{_INDENT}]\n}}'
    rows_of_all = zip(*columns.values(), strict=True)
    objects = [_object(dict(zip(columns, row, strict=True)), level=2) for row in rows_of_all]
    rows = ",".join(f"\n{_INDENT * 2}{text}" for text in objects)
    return f'{{\n{_INDENT}"predictions": [{rows}\n{_INDENT}]\n}}'


def _columnar_body(outputs: Outputs) -> str:
    level = 1 if len(outputs) == 1 else 2
    texts = {name: _indented(_nested(array), _writer(name, array), level) for name, array in outputs.items()}
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


def _row_texts(name: str, array: npt.NDArray[Any]) -> list[str]:
    write = _writer(name, array)
    return [_one_line(row, write) for row in _nested(array)]


def _nested(array: npt.NDArray[Any]) -> Any:
    # float32 would be widened to Python's double by tolist, and show digits that it does not have.
    return array.astype(object).tolist() if array.dtype.kind == "O" else _items(array)


def _items(array: npt.NDArray[Any]) -> Any:
    return [_items(part) for part in array] if array.ndim else array[()]


def _one_line(value: Any, write: Callable[[Any], str]) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_one_line(item, write) for item in value) + "]"
    return write(value)


def _indented(value: Any, write: Callable[[Any], str], level: int) -> str:
    if not isinstance(value, list):
        return write(value)
    if not value:
        return "[]"
    items = ",".join(f"\n{_INDENT * (level + 1)}{_indented(item, write, level + 1)}" for item in value)
    return f"[{items}\n{_INDENT * level}]"


def _object(texts: Mapping[str, str], *, level: int) -> str:
    items = ",".join(f"\n{_INDENT * (level + 1)}{json.dumps(name)}: {text}" for name, text in texts.items())
    return f"{{{items}\n{_INDENT * level}}}"


def _writer(name: str, array: npt.NDArray[Any]) -> Callable[[Any], str]:
    match array.dtype.kind:
        case "f":
            return _decimal
        case "i" | "u":
            return lambda value: str(int(value))
        case "b":
            return lambda value: "true" if value else "false"
        case "O" if name.endswith("_bytes"):
            return lambda value: json.dumps({"b64": base64.b64encode(value).decode()})
        case "O":
            return lambda value: json.dumps(value.decode("utf-8", errors="replace"), ensure_ascii=False)
        case _:
            found = type_name(data_type_of(array.dtype))
            raise invalid_argument(f"Failed to write JSON value for tensor type: {found}")


def _decimal(value: np.floating[Any]) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    text = f"{value:.6g}"
    if type(value)(text) != value:
        text = f"{value:.{17 if value.dtype.itemsize == 8 else 9}g}"
    return text if "." in text or "e" in text else f"{text}.0"
