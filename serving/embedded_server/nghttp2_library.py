"""libnghttp2, the reference library for HTTP/2, as far as a server needs it.

Its place in the flow: http2_session.py alone uses it. Struct layouts, callback types and constants
of nghttp2.h stand here and nowhere else.

Three decisions make the binding cheap. `PyDLL` keeps Python's lock during a call: each one takes
microseconds and calls back into Python, so giving the lock away would cost more than the work.
The callbacks are plain functions shared by all sessions; C hands each of them the Python object of
its session (`py_object` as user data), so no closure is made for a connection. Names and values
of headers arrive as `c_char_p`, that is, as bytes objects that C's side of ctypes has made.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any, Final

from serving.embedded_server.status import failed_precondition

_SONAME = "libnghttp2.so.14"
_Pointer = ctypes.c_void_p
_PointerPointer = ctypes.POINTER(_Pointer)
_Size = ctypes.c_size_t
_Self = ctypes.py_object


class FrameHeader(ctypes.Structure):
    """nghttp2_frame_hd, with which every nghttp2_frame begins."""

    _fields_ = (
        ("length", _Size),
        ("stream_id", ctypes.c_int32),
        ("type", ctypes.c_uint8),
        ("flags", ctypes.c_uint8),
        ("reserved", ctypes.c_uint8),
    )


class HeaderBlock:
    """Header fields in C's form, made once and submitted many times; nghttp2 copies what it is given."""

    def __init__(self, fields: Iterable[tuple[bytes, bytes]]) -> None:
        pairs = list(fields)
        self.count = len(pairs)
        self.array = (_NameValue * self.count)(
            *(_NameValue(name, value, len(name), len(value), 0) for name, value in pairs)
        )


class Http2:
    """Constants of HTTP/2 (RFC 9113) and nghttp2's error codes, as far as they are used."""

    DATA: Final = 0
    HEADERS: Final = 1
    PING: Final = 6
    WINDOW_UPDATE: Final = 8
    END_STREAM: Final = 0x1
    ACK: Final = 0x1

    MAX_CONCURRENT_STREAMS: Final = 3
    INITIAL_WINDOW_SIZE: Final = 4
    MAX_FRAME_SIZE: Final = 5
    MAX_HEADER_LIST_SIZE: Final = 6

    NO_ERROR: Final = 0
    CANCEL: Final = 8

    # nghttp2: what a data source says about the bytes that it has written.
    DATA_EOF: Final = 0x1
    DATA_NO_END_STREAM: Final = 0x2
    # nghttp2: what a callback may return.
    DEFERRED: Final = -508
    REFUSE_STREAM: Final = -521


class Nghttp2Library:
    """The functions that are needed, with their types; get it by `nghttp2_library()`."""

    def __init__(self, path: str) -> None:
        self._library = ctypes.PyDLL(path)
        integer, stream_id, code = ctypes.c_int, ctypes.c_int32, ctypes.c_uint32
        declared = self._declared
        self._error_text = declared("nghttp2_strerror", ctypes.c_char_p, integer)
        self._new_session = declared("nghttp2_session_server_new2", integer, _PointerPointer, _Pointer, _Self, _Pointer)
        self.delete_session = declared("nghttp2_session_del", None, _Pointer)
        # Bytes that came in, and pointers to bytes that are to go out.
        self.receive = declared("nghttp2_session_mem_recv", ctypes.c_ssize_t, _Pointer, _Pointer, _Size)
        self.send = declared("nghttp2_session_mem_send", ctypes.c_ssize_t, _Pointer, _PointerPointer)
        self.wants_to_read = declared("nghttp2_session_want_read", integer, _Pointer)
        self.wants_to_write = declared("nghttp2_session_want_write", integer, _Pointer)
        self._submit_settings = declared("nghttp2_submit_settings", integer, _Pointer, ctypes.c_uint8, _Pointer, _Size)
        self.set_window_bytes = declared(
            "nghttp2_session_set_local_window_size", integer, _Pointer, ctypes.c_uint8, stream_id, ctypes.c_int32
        )
        self.submit_response = declared(
            "nghttp2_submit_response", integer, _Pointer, stream_id, _Pointer, _Size, _Pointer
        )
        self.submit_trailer = declared("nghttp2_submit_trailer", integer, _Pointer, stream_id, _Pointer, _Size)
        self.resume_data = declared("nghttp2_session_resume_data", integer, _Pointer, stream_id)
        self.submit_reset = declared("nghttp2_submit_rst_stream", integer, _Pointer, ctypes.c_uint8, stream_id, code)
        self.submit_ping = declared("nghttp2_submit_ping", integer, _Pointer, ctypes.c_uint8, ctypes.c_char_p)
        self.submit_shutdown_notice = declared("nghttp2_submit_shutdown_notice", integer, _Pointer)
        self.submit_goaway = declared(
            "nghttp2_submit_goaway", integer, _Pointer, ctypes.c_uint8, stream_id, code, ctypes.c_char_p, _Size
        )
        self.last_stream_id = declared("nghttp2_session_get_last_proc_stream_id", stream_id, _Pointer)

    def error_text(self, code: int) -> str:
        """Return nghttp2's words for one of its error codes."""
        text: bytes = self._error_text(code)
        return text.decode()

    def callbacks(self, functions: Mapping[str, Callable[..., int]]) -> Any:
        """Return nghttp2_session_callbacks of Python functions, by names like "on_header".

        The functions may not raise: ctypes could only print what they raise. They are kept for as
        long as the process lives, so this is for a fixed set of them.
        """
        callbacks = _Pointer()
        self._declared("nghttp2_session_callbacks_new", ctypes.c_int, _PointerPointer)(ctypes.byref(callbacks))
        for name, function in functions.items():
            setter = self._declared(f"nghttp2_session_callbacks_set_{name}_callback", None, _Pointer, _Pointer)
            setter(callbacks, ctypes.cast(_kept(_CALLBACK_TYPES[name](function)), _Pointer))
        return callbacks

    def data_source(self, read: Callable[..., int]) -> Any:
        """Return an nghttp2_data_provider that calls `read`, which may not raise; kept for ever too."""
        return ctypes.pointer(_kept(_DataProvider(None, ctypes.cast(_kept(_READ_TYPE(read)), _Pointer))))

    def options(self, **values: int | tuple[int, int]) -> Any:
        """Return nghttp2_option; what the installed version does not know yet is left out."""
        options = _Pointer()
        self._declared("nghttp2_option_new", ctypes.c_int, _PointerPointer)(ctypes.byref(options))
        for name, value in values.items():
            arguments = value if isinstance(value, tuple) else (value,)
            if hasattr(self._library, f"nghttp2_option_set_{name}"):
                types = [_OPTION_TYPES.get(name, ctypes.c_int)] * len(arguments)
                self._declared(f"nghttp2_option_set_{name}", None, _Pointer, *types)(options, *arguments)
        return options

    def new_session(self, callbacks: Any, options: Any, *, owner: object) -> Any:
        """Return a server's nghttp2_session, whose callbacks get `owner`; the caller keeps `owner` alive."""
        session = _Pointer()
        if self._new_session(ctypes.byref(session), callbacks, owner, options):
            raise MemoryError("nghttp2 could not make a session")
        return session.value

    def submit_settings(self, session: Any, settings: Mapping[int, int]) -> None:
        """Queue a SETTINGS frame."""
        entries = (_SettingsEntry * len(settings))(*(_SettingsEntry(*pair) for pair in settings.items()))
        self._submit_settings(session, 0, entries, len(settings))

    def _declared(self, name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
        function: Any = getattr(self._library, name)
        function.restype, function.argtypes = result, list(arguments)
        declared: Callable[..., Any] = function
        return declared


@cache
def nghttp2_library() -> Nghttp2Library:
    """Return the one library of this process, loaded at the first call.

    Raises:
        StatusError: it is not installed.
    """
    for path in _names():
        try:
            if path:
                return Nghttp2Library(path)
        except (OSError, AttributeError):
            # Not there, or so old that a function is missing; the next name may lead further.
            continue
    raise failed_precondition(
        f"gRPC cannot be served: {_SONAME} was not found. Install it: "
        "`apt install libnghttp2-14` (Debian, Ubuntu), `dnf install libnghttp2` (Fedora), "
        "`brew install libnghttp2` (macOS)."
    )


class _NameValue(ctypes.Structure):
    """nghttp2_nv."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("value", ctypes.c_char_p),
        ("name_length", _Size),
        ("value_length", _Size),
        ("flags", ctypes.c_uint8),
    )


class _SettingsEntry(ctypes.Structure):
    """nghttp2_settings_entry."""

    _fields_ = (("settings_id", ctypes.c_int32), ("value", ctypes.c_uint32))


class _DataProvider(ctypes.Structure):
    """nghttp2_data_provider."""

    _fields_ = (("source", _Pointer), ("read_callback", _Pointer))


_FRAME_TYPE = ctypes.PYFUNCTYPE(ctypes.c_int, _Pointer, _Pointer, _Self)
_CALLBACK_TYPES: Final[dict[str, Any]] = {
    "on_begin_headers": _FRAME_TYPE,
    "on_header": ctypes.PYFUNCTYPE(
        ctypes.c_int,
        _Pointer,  # session
        _Pointer,  # frame
        *(ctypes.c_char_p, _Size),  # name
        *(ctypes.c_char_p, _Size),  # value
        ctypes.c_uint8,  # flags
        _Self,
    ),
    "on_frame_recv": _FRAME_TYPE,
    "on_data_chunk_recv": ctypes.PYFUNCTYPE(
        ctypes.c_int,
        _Pointer,  # session
        ctypes.c_uint8,  # flags
        ctypes.c_int32,  # stream
        *(_Pointer, _Size),  # the bytes
        _Self,
    ),
    "on_stream_close": ctypes.PYFUNCTYPE(ctypes.c_int, _Pointer, ctypes.c_int32, ctypes.c_uint32, _Self),
}
_READ_TYPE: Final[Any] = ctypes.PYFUNCTYPE(
    ctypes.c_ssize_t,
    _Pointer,  # session
    ctypes.c_int32,  # stream
    *(_Pointer, _Size),  # where the bytes go, and how many at most
    ctypes.POINTER(ctypes.c_uint32),  # data flags
    _Pointer,  # source
    _Self,
)
_OPTION_TYPES: Final[dict[str, Any]] = {
    "max_settings": _Size,
    "max_outbound_ack": _Size,
    "max_continuations": _Size,
    "stream_reset_rate_limit": ctypes.c_uint64,
}
_KEPT: Final[list[Any]] = []


def _kept(thing: Any) -> Any:
    # C keeps only an address; without a reference of ours the callback behind it would be freed.
    _KEPT.append(thing)
    return thing


def _names() -> Iterator[str | None]:
    yield _SONAME
    # Only where that one does not do: it starts programs, which a server behind walls may not.
    yield ctypes.util.find_library("nghttp2")
