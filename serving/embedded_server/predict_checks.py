"""Which inputs and outputs a request names, and whether its signature has them.

Its place in the flow: predict.py asks before it runs a request.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from serving.embedded_server.status import invalid_argument
from serving.protos import tfs_pb2


def check_inputs(signature: tfs_pb2.SignatureDef, request: tfs_pb2.PredictRequest) -> None:
    """Refuse a request that has other inputs than the signature.

    Raises:
        StatusError: INVALID_ARGUMENT.
    """
    sent, expected = set(request.inputs), set(signature.inputs)
    required = expected - set(signature.defaults)
    if len(sent) > len(expected) or len(sent) < len(required):
        raise invalid_argument(
            f"input size does not match signature: {len(sent)}!={len(expected)} len({_set(sent)}) != "
            f"len({_set(expected)}). Sent extra: {_set(sent - expected)}. "
            f"Missing but required: {_set(required - sent)}."
        )
    for alias in sorted(sent - expected):
        raise invalid_argument(
            f"input tensor alias not found in signature: {alias}. Inputs expected to be in the set {_set(expected)}."
        )


def output_aliases(signature: tfs_pb2.SignatureDef, output_filter: Collection[str]) -> list[str]:
    """Return the names of the outputs that are asked for; all of them when none is named.

    Raises:
        StatusError: INVALID_ARGUMENT: there is no such output, or it is named twice.
    """
    if not output_filter:
        return list(signature.outputs)
    aliases: list[str] = []
    for alias in output_filter:
        if alias not in signature.outputs:
            raise invalid_argument(
                f"output tensor alias not found in signature: {alias} "
                f"Outputs expected to be in the set {_set(signature.outputs)}."
            )
        if alias in aliases:
            raise invalid_argument(f"duplicate output tensor alias: {alias}")
        aliases.append(alias)
    return aliases


def _set(names: Iterable[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"
