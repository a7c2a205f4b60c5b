"""TensorFlow's C library, as far as it takes to load a SavedModel and to run it.

Its place in the flow: session.py alone uses it. The C interface is the one that TensorFlow keeps
stable; its libraries come with TensorFlow's wheel, and loading them without its Python package
takes 0.3 s instead of 6 s and 50 MB of private memory instead of 500 MB.

Two ways of calling matter. `slow` functions give Python's lock back while they run, so that other
threads go on; `quick` ones take less than a lock's hand-over and keep it.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from serving.embedded_server.status import Code, StatusError

Pointer = ctypes.c_void_p


class Buffer(ctypes.Structure):
    """TF_Buffer."""

    _fields_ = (("data", Pointer), ("length", ctypes.c_size_t), ("data_deallocator", Pointer))


class Output(ctypes.Structure):
    """TF_Output: one output of one operation."""

    _fields_ = (("operation", Pointer), ("index", ctypes.c_int))


class TensorFlowLibrary:
    """The functions that are needed, with their types; get it by `tensorflow_library()`."""

    def __init__(self, directory: Path) -> None:
        # Order matters: the second finds the symbols of the first, which must be visible to all.
        paths = [str(directory / name) for name in ("libtensorflow_framework.so.2", "libtensorflow_cc.so.2")]
        framework, library = (ctypes.CDLL(path, mode=ctypes.RTLD_LOCAL) for path in paths)
        quick_framework, quick_library = (ctypes.PyDLL(path) for path in paths)

        def slow(name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
            return _declared((library, framework), name, result, arguments)

        def quick(name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
            return _declared((quick_library, quick_framework), name, result, arguments)

        int64s, outputs, pointers = (ctypes.POINTER(kind) for kind in (ctypes.c_int64, Output, Pointer))
        self.version = quick("TF_Version", ctypes.c_char_p)
        self.new_status = quick("TF_NewStatus", Pointer)
        self.delete_status = quick("TF_DeleteStatus", None, Pointer)
        self.status_code = quick("TF_GetCode", ctypes.c_int, Pointer)
        self.status_message = quick("TF_Message", ctypes.c_char_p, Pointer)
        self.new_buffer = quick("TF_NewBuffer", ctypes.POINTER(Buffer))
        self.new_buffer_from_string = quick(
            "TF_NewBufferFromString", ctypes.POINTER(Buffer), ctypes.c_char_p, ctypes.c_size_t
        )
        self.delete_buffer = quick("TF_DeleteBuffer", None, ctypes.POINTER(Buffer))
        self.new_graph = quick("TF_NewGraph", Pointer)
        self.delete_graph = slow("TF_DeleteGraph", None, Pointer)
        self.operation_by_name = quick("TF_GraphOperationByName", Pointer, Pointer, ctypes.c_char_p)
        self.new_session_options = quick("TF_NewSessionOptions", Pointer)
        self.delete_session_options = quick("TF_DeleteSessionOptions", None, Pointer)
        self.set_config = quick("TF_SetConfig", None, Pointer, ctypes.c_char_p, ctypes.c_size_t, Pointer)
        self.new_session = slow("TF_NewSession", Pointer, Pointer, Pointer, Pointer)
        self.load_session_from_saved_model = slow(
            "TF_LoadSessionFromSavedModel",
            Pointer,  # the session
            Pointer,  # options
            ctypes.POINTER(Buffer),  # run options
            ctypes.c_char_p,  # directory
            ctypes.POINTER(ctypes.c_char_p),  # tags
            ctypes.c_int,
            Pointer,  # graph, filled
            ctypes.POINTER(Buffer),  # MetaGraphDef, filled
            Pointer,  # status
        )
        self.session_run = slow(
            "TF_SessionRun",
            None,
            Pointer,  # session
            ctypes.POINTER(Buffer),  # run options
            *(outputs, pointers, ctypes.c_int),  # inputs
            *(outputs, pointers, ctypes.c_int),  # outputs
            *(pointers, ctypes.c_int),  # targets
            ctypes.POINTER(Buffer),  # run metadata
            Pointer,  # status
        )
        self.close_session = slow("TF_CloseSession", None, Pointer, Pointer)
        self.delete_session = slow("TF_DeleteSession", None, Pointer, Pointer)
        self.allocate_tensor = quick("TF_AllocateTensor", Pointer, ctypes.c_int, int64s, ctypes.c_int, ctypes.c_size_t)
        self.delete_tensor = quick("TF_DeleteTensor", None, Pointer)
        self.tensor_type = quick("TF_TensorType", ctypes.c_int, Pointer)
        self.tensor_rank = quick("TF_NumDims", ctypes.c_int, Pointer)
        self.tensor_dimension = quick("TF_Dim", ctypes.c_int64, Pointer, ctypes.c_int)
        self.tensor_size_bytes = quick("TF_TensorByteSize", ctypes.c_size_t, Pointer)
        self.tensor_data = quick("TF_TensorData", Pointer, Pointer)
        self.init_string = quick("TF_StringInit", None, Pointer)
        self.copy_string = quick("TF_StringCopy", None, Pointer, ctypes.c_char_p, ctypes.c_size_t)
        self.string_data = quick("TF_StringGetDataPointer", Pointer, Pointer)
        self.string_size = quick("TF_StringGetSize", ctypes.c_size_t, Pointer)
        self.free_string = quick("TF_StringDealloc", None, Pointer)

    def check(self, status: Any) -> None:
        """Raise the StatusError that a TF_Status holds, if it holds one."""
        code = self.status_code(status)
        if code:
            message = self.status_message(status).decode("utf-8", errors="replace")
            raise StatusError(Code(code) if code in list(Code) else Code.UNKNOWN, message)


@cache
def tensorflow_library() -> TensorFlowLibrary:
    """Return the one library of this process, loaded at the first call.

    Raises:
        StatusError: TensorFlow is not installed.
    """
    found = importlib.util.find_spec("tensorflow")
    locations = list(found.submodule_search_locations or ()) if found is not None else []
    if not locations:
        raise StatusError(
            Code.FAILED_PRECONDITION,
            "TensorFlow is not installed in this environment: install Liftgate with its extra `embedded`, "
            "or run tensorflow_model_server instead.",
        )
    return TensorFlowLibrary(Path(locations[0]))


def _declared(
    libraries: tuple[ctypes.CDLL, ctypes.CDLL], name: str, result: Any, arguments: tuple[Any, ...]
) -> Callable[..., Any]:
    first, second = libraries
    function: Any = getattr(first, name, None) or getattr(second, name)
    function.restype, function.argtypes = result, list(arguments)
    declared: Callable[..., Any] = function
    return declared
