"""What a program under judgement may ask of Linux: a filter of system calls (seccomp) without extra packages.

Its place in the flow: isolated_child.py puts `PROGRAM` on before it starts a program; trial_child.py adds `PREDICT`
before it touches a model. Filters add up, are inherited, and cannot be taken off again.

A thread may be started, a process may not; a socket may be a Unix socket or, while predicting, none. These calls end
in SIGSYS: trial_child.py says which one it was. What no model needs (mounts, tracing, keys, io_uring ...) answers
EPERM, since libraries ask for some of it and live without.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

_ALLOW, _TRAP, _KILL, _ERRNO = 0x7FFF0000, 0x00030000, 0x80000000, 0x00050000
_EPERM, _ENOSYS = 1, 38
_LOAD, _JUMP_EQUAL, _JUMP_GREATER_EQUAL, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16
_CLONE_THREAD, _AF_UNIX = 0x00010000, 1
_X32 = 0x40000000
_PR_SET_NO_NEW_PRIVS, _SECCOMP_SET_MODE_FILTER, _FILTER_FLAG_TSYNC = 38, 1, 1
_SIGSYS, _SA_SIGINFO = 31, 4
_SIGINFO_NUMBER_AT = 24

# Number on x86_64 and on aarch64 (asm/unistd_64.h, asm-generic/unistd.h); None: it does not exist there.
_CALLS: dict[str, tuple[int | None, int | None]] = {
    "clone": (56, 220),
    "clone3": (435, 435),
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "kexec_load": (246, 104),
    "open_by_handle_at": (304, 265),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
}
_ARCHITECTURES = {"x86_64": (0xC000003E, 0, 317), "aarch64": (0xC00000B7, 1, 277)}
"""What audit.h calls it, its column in _CALLS, the number of seccomp(2) itself."""

_NEW_PROCESS = ("fork", "vfork")
_SOMETIMES = (*_NEW_PROCESS, "clone", "clone3", "execve", "execveat", "socket", "socketpair", "connect")
_NEVER = tuple(name for name in _CALLS if name not in _SOMETIMES)


@dataclass(frozen=True)
class Filter:
    """Which calls end the program (`trapped`), and whether Unix sockets are left to it."""

    trapped: tuple[str, ...]
    has_unix_sockets: bool


PROGRAM = Filter(trapped=_NEW_PROCESS, has_unix_sockets=True)
"""For a whole program: it computes in one process and is spoken to over a Unix socket."""

PREDICT = Filter(
    trapped=(*_NEW_PROCESS, "execve", "execveat", "socket", "socketpair", "connect"), has_unix_sockets=False
)
"""For a process that holds a model and answers through a pipe."""


def is_filter_known() -> bool:
    """Return whether the calls of this machine's processor are known here."""
    return platform.system() == "Linux" and platform.machine() in _ARCHITECTURES


def put_on(chosen: Filter) -> bool:
    """Filter the calls of this process, all its threads and everything that it starts, for good.

    Returns:
        whether it is on; False where the processor's calls are not known here.

    Raises:
        OSError: the kernel refuses it.
    """
    if not is_filter_known():
        return False
    architecture, column, seccomp = _ARCHITECTURES[platform.machine()]
    program = b"".join(_program(chosen, architecture, column))
    libc = ctypes.CDLL(None, use_errno=True)
    code = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: a count and a pointer, with the compiler's padding between them.
    head = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.syscall(
        seccomp, _SECCOMP_SET_MODE_FILTER, _FILTER_FLAG_TSYNC, head
    ):
        raise OSError(ctypes.get_errno(), "the kernel takes no filter of system calls (seccomp)")
    return True


def call_name(number: int) -> str:
    """Return the name of a system call of this machine, for people."""
    column = _ARCHITECTURES[platform.machine()][1] if is_filter_known() else 0
    return next((name for name, numbers in _CALLS.items() if numbers[column] == number), f"number {number}")


def tell_of_refused_calls(tell: Callable[[str], None]) -> None:
    """Call `tell` with the name of a call that a filter refuses, then end the process by SIGSYS' exit code.

    Python's own signal handlers run in the main thread only, when it gets to it; the C library's run where the call
    was made, which may be a thread of the model's library.
    """

    def handle(_signal: int, information: int, _context: int) -> None:
        tell(call_name(ctypes.c_int.from_address(information + _SIGINFO_NUMBER_AT).value))
        os._exit(128 + _SIGSYS)

    kind = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    handler = kind(handle)
    _KEPT.append(handler)
    # struct sigaction of glibc: the handler, a mask of 128 bytes, flags, a restorer that the library fills in.
    action = struct.pack("@P128siP", ctypes.cast(handler, ctypes.c_void_p).value, b"", _SA_SIGINFO, 0)
    if ctypes.CDLL(None, use_errno=True).sigaction(_SIGSYS, action, None):
        raise OSError(ctypes.get_errno(), "no handler can be set for SIGSYS")


_KEPT: list[Any] = []
"""The handler must outlive the call that sets it."""


def _program(chosen: Filter, architecture: int, column: int) -> Iterator[bytes]:
    """Yield the filter's instructions (struct sock_filter, 8 bytes each)."""
    yield from (_load(_ARCHITECTURE_AT), _jump(_JUMP_EQUAL, architecture, over_if_true=1), _return(_KILL))
    yield _load(_NUMBER_AT)
    if column == 0:
        # x86_64 knows every call a second time, as x32; nobody needs them.
        yield from (_jump(_JUMP_GREATER_EQUAL, _X32, over_if_false=1), _return(_ERRNO | _EPERM))
    yield from _rules(chosen, column)
    yield _return(_ALLOW)


def _rules(chosen: Filter, column: int) -> Iterator[bytes]:
    def numbers(names: Sequence[str]) -> Iterator[int]:
        for name in names:
            number = _CALLS[name][column]
            if number is not None:
                yield number

    for number in numbers(chosen.trapped):
        yield from (_jump(_JUMP_EQUAL, number, over_if_false=1), _return(_TRAP))
    for number in numbers(_NEVER):
        yield from (_jump(_JUMP_EQUAL, number, over_if_false=1), _return(_ERRNO | _EPERM))
    # A filter cannot look into clone3's argument, which lies in memory; told that there is none, the C library
    # takes clone.
    (clone3,) = numbers(["clone3"])
    yield from (_jump(_JUMP_EQUAL, clone3, over_if_false=1), _return(_ERRNO | _ENOSYS))
    (clone,) = numbers(["clone"])
    yield from _unless(clone, _JUMP_SET, _CLONE_THREAD)
    if chosen.has_unix_sockets:
        (socket,) = numbers(["socket"])
        yield from _unless(socket, _JUMP_EQUAL, _AF_UNIX)


def _unless(number: int, jump: int, value: int) -> Iterator[bytes]:
    """Yield a trap for a call whose first argument is not (or does not hold) `value`."""
    yield _jump(_JUMP_EQUAL, number, over_if_false=4)
    yield _load(_FIRST_ARGUMENT_AT)
    yield _jump(jump, value, over_if_true=1)
    yield _return(_TRAP)
    yield _load(_NUMBER_AT)


def _load(offset: int) -> bytes:
    return struct.pack("=HBBI", _LOAD, 0, 0, offset)


def _jump(code: int, value: int, *, over_if_true: int = 0, over_if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, over_if_true, over_if_false, value)


def _return(value: int) -> bytes:
    return struct.pack("=HBBI", _RETURN, 0, 0, value)
