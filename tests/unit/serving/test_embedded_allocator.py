from __future__ import annotations

import ctypes
import platform
import subprocess
import sys

import pytest

# In a process of its own, in a thread, as requests are served: how many pages does each block cost?
FAULTS = """
import resource, sys, threading
from serving.embedded_server.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def work():
    [bytearray(b"x" * 600_000) for _ in range(4)]
    before = faults()
    for _ in range(100):
        [bytearray(b"x" * 600_000) for _ in range(4)]
    print(faults() - before)
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is told")
def test_what_a_request_frees_serves_the_next_one() -> None:
    faults = {
        way: int(subprocess.run([sys.executable, "-c", FAULTS, way], capture_output=True, check=True).stdout)
        for way in ("default", "kept")
    }
    assert faults["default"] > 10_000
    assert faults["kept"] < 1000


def test_without_mallopt_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    from serving.embedded_server.allocator import keep_freed_memory

    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert not keep_freed_memory()
