# mypy: disable-error-code=type-arg
from serving.protos import tfs_pb2 as _tfs_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SessionConfig(_message.Message):
    __slots__ = ("intra_op_parallelism_threads", "inter_op_parallelism_threads")
    INTRA_OP_PARALLELISM_THREADS_FIELD_NUMBER: _ClassVar[int]
    INTER_OP_PARALLELISM_THREADS_FIELD_NUMBER: _ClassVar[int]
    intra_op_parallelism_threads: int
    inter_op_parallelism_threads: int
    def __init__(self, intra_op_parallelism_threads: _Optional[int] = ..., inter_op_parallelism_threads: _Optional[int] = ...) -> None: ...

class RunOptions(_message.Message):
    __slots__ = ("timeout_in_ms", "inter_op_thread_pool")
    TIMEOUT_IN_MS_FIELD_NUMBER: _ClassVar[int]
    INTER_OP_THREAD_POOL_FIELD_NUMBER: _ClassVar[int]
    timeout_in_ms: int
    inter_op_thread_pool: int
    def __init__(self, timeout_in_ms: _Optional[int] = ..., inter_op_thread_pool: _Optional[int] = ...) -> None: ...

class SaverDef(_message.Message):
    __slots__ = ("restore_op_name",)
    RESTORE_OP_NAME_FIELD_NUMBER: _ClassVar[int]
    restore_op_name: str
    def __init__(self, restore_op_name: _Optional[str] = ...) -> None: ...

class MetaGraph(_message.Message):
    __slots__ = ("saver_def", "signature_def")
    class SignatureDefEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _tfs_pb2.SignatureDef
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_tfs_pb2.SignatureDef, _Mapping]] = ...) -> None: ...
    SAVER_DEF_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_DEF_FIELD_NUMBER: _ClassVar[int]
    saver_def: SaverDef
    signature_def: _containers.MessageMap[str, _tfs_pb2.SignatureDef]
    def __init__(self, saver_def: _Optional[_Union[SaverDef, _Mapping]] = ..., signature_def: _Optional[_Mapping[str, _tfs_pb2.SignatureDef]] = ...) -> None: ...
