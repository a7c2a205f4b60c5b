"""The bytes by which HAProxy asks a model server over gRPC whether a model can be used.

Its place in the flow: the health check in the role's haproxy.cfg sends them. HAProxy 2.6 can send a
body over HTTP/2 only as text, and a gRPC message begins with zero bytes, so the check speaks the
frames itself: the client's preface and settings, one GetModelStatus, and the end of the request.
"""

from __future__ import annotations

from collections.abc import Callable

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS = 0, 1, 4
_END_STREAM, _END_HEADERS = 1, 4
_PATH = "/tensorflow.serving.ModelService/GetModelStatus"
# Whole entries of HPACK's static table, then names of it whose value follows.
_METHOD_POST, _SCHEME_HTTP, _SCHEME_HTTPS = b"\x83", b"\x86", b"\x87"
_AUTHORITY_IS, _PATH_IS, _CONTENT_TYPE_IS = b"\x01", b"\x04", b"\x0f\x10"
_NEW_NAME = b"\x00"


def model_status_question(model: str, *, is_encrypted: bool = True) -> str:
    """Return, in hexadecimal, a whole HTTP/2 connection that asks for the status of `model`."""
    headers = (
        _METHOD_POST
        + (_SCHEME_HTTPS if is_encrypted else _SCHEME_HTTP)
        + (_PATH_IS + _counted(_PATH))
        + (_AUTHORITY_IS + _counted("model-server"))
        + (_CONTENT_TYPE_IS + _counted("application/grpc"))
        + (_NEW_NAME + _counted("te") + _counted("trailers"))
    )
    name = b"\x0a" + _counted(model)  # ModelSpec.name
    message = b"\x0a" + _counted(name)  # GetModelStatusRequest.model_spec
    body = b"\x00" + len(message).to_bytes(4, "big") + message  # not compressed, length, message
    frames = _frame(_SETTINGS, 0, 0, b"") + _frame(_HEADERS, _END_HEADERS, 1, headers)
    return (_PREFACE + frames + _frame(_DATA, _END_STREAM, 1, body)).hex()


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def _counted(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    if len(data) > 126:
        raise ValueError(f"{text!r} is too long for a health check: at most 126 bytes.")
    return bytes([len(data)]) + data


class FilterModule:
    """Where Ansible finds the filters of the role."""

    def filters(self) -> dict[str, Callable[..., str]]:
        """Return the filters by their names in templates."""
        return {"model_status_question": model_status_question}
