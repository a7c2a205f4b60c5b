"""Classifications and regressions: which tensors a signature means by them, and how their values are written.

Its place in the flow: Classify, Regress and MultiInference ask it before the graph runs and after;
the rules and the wording of the refusals are TensorFlow Serving's.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import numpy.typing as npt

from serving.embedded_server.dtypes import data_type_of
from serving.embedded_server.examples import ExampleOutputs, ExampleTensors
from serving.embedded_server.status import StatusError, invalid_argument
from serving.protos import tfs_pb2

CLASSIFY_METHOD = "tensorflow/serving/classify"
REGRESS_METHOD = "tensorflow/serving/regress"

_INPUTS, _OUTPUTS = "inputs", "outputs"
_CLASSES, _SCORES = "classes", "scores"


def classification_tensors(signature: tfs_pb2.SignatureDef, *, is_method_name_checked: bool) -> ExampleTensors:
    """Return the tensors of a classification: classes, scores or both.

    Raises:
        StatusError: INVALID_ARGUMENT: the signature is not one of a classification.
    """
    if is_method_name_checked and signature.method_name != CLASSIFY_METHOD:
        raise _other_method("classification", CLASSIFY_METHOD, signature)
    if len(signature.inputs) != 1:
        raise invalid_argument("Expected one input Tensor.")
    if len(signature.outputs) not in (1, 2):
        raise invalid_argument(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    if _INPUTS not in signature.inputs:
        raise invalid_argument(f"No classification inputs found in SignatureDef: {signature}")
    aliases = [alias for alias in (_CLASSES, _SCORES) if alias in signature.outputs]
    if not aliases:
        raise invalid_argument(
            f'Expected classification signature outputs to contain at least one of "{_CLASSES}" or "{_SCORES}". '
            f"Signature was: {signature}"
        )
    return _tensors(signature, aliases)


def regression_tensors(signature: tfs_pb2.SignatureDef, *, is_method_name_checked: bool) -> ExampleTensors:
    """Return the tensors of a regression.

    Raises:
        StatusError: INVALID_ARGUMENT: the signature is not one of a regression.
    """
    if is_method_name_checked and signature.method_name != REGRESS_METHOD:
        raise _other_method("regression", REGRESS_METHOD, signature)
    if len(signature.inputs) != 1:
        raise invalid_argument("Expected one input Tensor.")
    if len(signature.outputs) != 1:
        raise invalid_argument("Expected one output Tensor.")
    if _INPUTS not in signature.inputs:
        raise invalid_argument(f"No regression inputs found in SignatureDef: {signature}")
    if _OUTPUTS not in signature.outputs:
        raise invalid_argument(f"No regression outputs found in SignatureDef: {signature}")
    return _tensors(signature, [_OUTPUTS])


def fill_classifications(
    signature: tfs_pb2.SignatureDef, outputs: ExampleOutputs, result: tfs_pb2.ClassificationResult
) -> None:
    """Write one Classifications for each Example.

    Raises:
        StatusError: INVALID_ARGUMENT: the graph's outputs are not of the shapes and types of a classification.
    """
    classes = _class_matrix(signature, outputs, _CLASSES, tfs_pb2.DT_STRING)
    scores = _class_matrix(signature, outputs, _SCORES, tfs_pb2.DT_FLOAT)
    if classes is not None and scores is not None and classes.shape[1] != scores.shape[1]:
        raise invalid_argument(
            f"Tensors class and score should match in dim_size(1). Got {classes.shape[1]} vs. {scores.shape[1]}"
        )
    labels = None if classes is None else _labels(classes)
    values = None if scores is None else scores.tolist()
    for index in range(outputs.count):
        add = result.classifications.add().classes.add
        if labels is None and values is not None:
            for score in values[index]:
                add(score=score)
        elif labels is not None and values is None:
            for label in labels[index]:
                add(label=label)
        elif labels is not None and values is not None:
            for label, score in zip(labels[index], values[index], strict=True):
                add(label=label, score=score)


def fill_regressions(
    signature: tfs_pb2.SignatureDef, outputs: ExampleOutputs, result: tfs_pb2.RegressionResult
) -> None:
    """Write one Regression for each Example.

    Raises:
        StatusError: INVALID_ARGUMENT: the graph's output is not of the shape and type of a regression.
    """
    array = outputs.tensors[signature.outputs[_OUTPUTS].name]
    if array.ndim not in (1, 2) or (array.ndim == 2 and array.shape[1] != 1):
        raise invalid_argument(
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] "
            f"but got {_shape_text(array.shape)}"
        )
    if len(array) != outputs.count:
        raise invalid_argument(f"Input batch size did not match output batch size: {outputs.count} vs. {len(array)}")
    if data_type_of(array.dtype) != tfs_pb2.DT_FLOAT:
        raise invalid_argument(f"Expected output Tensor of DT_FLOAT.  Got: {_type_text(array)}")
    result.regressions.extend(tfs_pb2.Regression(value=value) for value in array.ravel().tolist())


def _tensors(signature: tfs_pb2.SignatureDef, aliases: Iterable[str]) -> ExampleTensors:
    return ExampleTensors(
        input_name=signature.inputs[_INPUTS].name,
        output_names=tuple(signature.outputs[alias].name for alias in aliases),
    )


def _other_method(kind: str, method: str, signature: tfs_pb2.SignatureDef) -> StatusError:
    return invalid_argument(f"Expected {kind} signature method_name to be {method}. Was: {signature.method_name}")


def _class_matrix(
    signature: tfs_pb2.SignatureDef, outputs: ExampleOutputs, alias: str, data_type: tfs_pb2.DataType
) -> npt.NDArray[Any] | None:
    if alias not in signature.outputs:
        return None
    array = outputs.tensors[signature.outputs[alias].name]
    if array.ndim != 2:
        raise invalid_argument(f"Expected Tensor shape: [batch_size num_classes] but got {_shape_text(array.shape)}")
    if data_type_of(array.dtype) != data_type:
        raise invalid_argument(
            f"Expected {alias} Tensor of {tfs_pb2.DataType.Name(data_type)}. Got: {_type_text(array)}"
        )
    if len(array) != outputs.count:
        raise invalid_argument(f"Expected {alias} output batch size of {outputs.count}. Got: {len(array)}")
    return array


def _labels(classes: npt.NDArray[Any]) -> list[list[str]]:
    rows = classes.tolist()
    try:
        # Most rows have the same names.
        texts = {name: name.decode() for name in set(itertools.chain.from_iterable(rows))}
    except UnicodeDecodeError as error:
        # A message's string has to be UTF-8: the real server sends what no client can read.
        raise invalid_argument(
            f"Expected classes Tensor of UTF-8 text. Got: {error.object[:64]!r}; use Predict, which answers with bytes"
        ) from None
    return [[texts[name] for name in row] for row in rows]


def _shape_text(shape: tuple[int, ...]) -> str:
    return "[" + ",".join(str(size) for size in shape) + "]"


def _type_text(array: npt.NDArray[Any]) -> str:
    return tfs_pb2.DataType.Name(data_type_of(array.dtype))
