"""The walls around a candidate and the filter of system calls, tried by small programs without a model."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from artifact_sync.errors import RefusedError
from validation.programs import isolated_child
from validation.programs import isolation as isolation_module
from validation.programs.isolated_child import ProcessLimits
from validation.programs.isolation import Isolation, find_isolation, make_private, make_readable, nobody
from validation.programs.system_calls import call_name, is_filter_known

COPIED = ("__init__", "isolated_child", "system_calls")
LIMITS = ProcessLimits(wall_seconds=30, cpu_seconds=20, memory_bytes=200 << 20, address_bytes=1 << 30)


@pytest.fixture(scope="module")
def walls() -> Isolation:
    try:
        return find_isolation()
    except RefusedError as error:
        pytest.skip(str(error))


def run(walls: Isolation, program: str, *, limits: ProcessLimits = LIMITS, **options: Any) -> dict[str, Any]:
    """Run a Python program behind the walls; it answers by `say`."""
    prelude = "import os, json\ndef say(**what): os.write(3, json.dumps(what).encode())\n"
    command = walls.command((sys.executable, "-c", prelude + program), limits=limits, is_reported=True, **options)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    ending: dict[str, Any] = json.loads(done.stdout)
    ending["said"] = json.loads(ending["answer"]) if ending["answer"] else None
    ending["log"] = done.stderr
    return ending


def test_a_program_behind_the_walls_is_nobody_and_sees_only_what_it_needs(walls: Isolation, tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    (given / "word").write_text("hello")
    (tmp_path / "secret").write_text("secret")
    make_readable(given)
    ending = run(
        walls,
        f"""
home = os.path.expanduser('~{os.environ.get("USER", "root")}')
status = dict(line.split(':', 1) for line in open('/proc/self/status').read().splitlines())
say(user=[os.getuid(), os.getgid(), os.getgroups()], word=open({str(given / "word")!r}).read(),
    seen=[path for path in ({str(tmp_path / "secret")!r}, '/etc/passwd', '/etc/shadow', '/run', '/srv', '/var', '/sys',
    '/home') if os.path.exists(path)], processes=[n for n in os.listdir('/proc') if n.isdigit()],
    environment=sorted(os.environ), capabilities=status['CapEff'].strip(), new=status['NoNewPrivs'].strip(),
    filtered=status['Seccomp'].strip(), host=os.uname().nodename,
    network=[line.split(':')[0].strip() for line in open('/proc/net/dev').read().splitlines()[2:]])
""",
        readable=(given,),
    )
    said = ending["said"]
    assert ending["exit_code"] == 0, ending["log"]
    assert said["user"][:2] == [nobody(), nobody()]
    assert said["word"] == "hello"
    assert said["seen"] == []
    assert len(said["processes"]) <= 4
    assert said["capabilities"] == "0" * 16
    assert (said["new"], said["filtered"]) == ("1", "2")
    assert said["host"] == "isolated"
    assert said["network"] == ["lo"]
    assert not {name for name in said["environment"] if name.startswith(("AWS", "LIFTGATE", "SSH"))}


def test_nothing_can_be_written_but_a_scratch_that_is_looked_through(walls: Isolation, tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    make_readable(given)
    ending = run(
        walls,
        f"""
wrote = []
for place in ('/', '/dev', '/dev/shm', '/usr', '/proc/sys/kernel', {str(given)!r}, {str(Path(sys.prefix))!r}, '/tmp'):
    try:
        open(place + '/mark', 'w').write('x')
        wrote.append(place)
    except OSError:
        pass
os.makedirs('/tmp/deep/er')
open('/tmp/deep/er/file', 'w').close()
try:
    open('/tmp/large', 'wb').write(bytes(2 * {LIMITS.file_bytes}))
except OSError as error:
    wrote.append(error.strerror)
say(wrote=wrote)
""",
        readable=(given,),
    )
    assert ending["said"] == {"wrote": ["/tmp", "File too large"]}
    assert set(ending["written"]) == {"/tmp/mark", "/tmp/deep", "/tmp/deep/er", "/tmp/deep/er/file", "/tmp/large"}
    assert list(given.iterdir()) == []
    assert not Path("/tmp/mark").exists()


def test_the_scratch_holds_no_more_than_its_size(walls: Isolation) -> None:
    program = """
written = 0
try:
    for index in range(200):
        written += open(f'/tmp/{index}', 'wb').write(bytes(1 << 20))
except OSError as error:
    say(written=written >> 20, why=error.strerror)
"""
    ending = run(walls, program)
    assert ending["said"]["why"] == "No space left on device"
    assert ending["said"]["written"] <= 64
    assert len(ending["written"]) == 20


@pytest.mark.parametrize(
    ("program", "stopped_for"),
    [("held = []\nwhile True: held.append(bytearray(b'x') * (1 << 20))", "memory"), ("while True: pass", "time")],
)
def test_what_takes_too_much_is_ended(walls: Isolation, program: str, stopped_for: str) -> None:
    limits = ProcessLimits(wall_seconds=2, cpu_seconds=60, memory_bytes=100 << 20, address_bytes=1 << 30)
    started = time.monotonic()
    ending = run(walls, program, limits=limits)
    assert ending["stopped_for"] == stopped_for
    assert ending["signal"] == signal.SIGKILL
    assert ending["memory_bytes"] < 200 << 20
    assert time.monotonic() - started < 30


def test_processor_time_descriptors_and_address_space_end(walls: Isolation) -> None:
    limits = ProcessLimits(wall_seconds=30, cpu_seconds=1, memory_bytes=100 << 20, address_bytes=100 << 20)
    assert run(walls, "while True: pass", limits=limits)["cpu_seconds"] < 3
    ending = run(
        walls,
        """
held, why = [], []
try:
    while True: held.append(os.open('/dev/null', os.O_RDONLY))
except OSError as error:
    why.append(error.strerror)
try:
    bytearray(1 << 40)
except MemoryError:
    why.append('no memory')
os.close(held.pop())
say(why=why, files=len(held))
""",
        limits=limits,
    )
    assert ending["said"]["why"] == ["Too many open files", "no memory"]
    assert ending["said"]["files"] < limits.open_files


@pytest.mark.skipif(not is_filter_known(), reason="the system calls of this processor are not known")
@pytest.mark.parametrize(
    "program",
    [
        "os.fork()",
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_STREAM)",
        "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
        "import subprocess; subprocess.run(['/bin/true'])",
    ],
)
def test_processes_and_sockets_end_a_program(walls: Isolation, program: str) -> None:
    ending = run(walls, program + "\nsay(survived=True)")
    assert ending["signal"] == signal.SIGSYS
    assert ending["said"] is None


@pytest.mark.skipif(not is_filter_known(), reason="the system calls of this processor are not known")
def test_threads_and_unix_sockets_are_left_and_the_rest_is_not_permitted(walls: Isolation) -> None:
    ending = run(
        walls,
        """
import ctypes, socket, threading
seen = []
thread = threading.Thread(target=lambda: seen.append('thread'))
thread.start()
thread.join()
socket.socketpair()[0].close()
socket.socket(socket.AF_UNIX).bind('/tmp/socket')
libc = ctypes.CDLL(None, use_errno=True)
for name, call in (('unshare', lambda: libc.unshare(0x10000000)), ('ptrace', lambda: libc.ptrace(0, 0, 0, 0)),
                   ('mount', lambda: libc.mount(b'none', b'/tmp', b'tmpfs', 0, None))):
    assert call() == -1
    seen.append([name, ctypes.get_errno()])
say(seen=seen)
""",
    )
    assert ending["said"]["seen"] == ["thread", ["unshare", 1], ["ptrace", 1], ["mount", 1]], ending["log"]


@pytest.mark.skipif(not is_filter_known(), reason="the system calls of this processor are not known")
@pytest.mark.parametrize(
    ("program", "call"),
    [
        ("import socket; socket.socket(socket.AF_UNIX)", "socket"),
        ("import socket; socket.socketpair()", "socketpair"),
        ("os.execv('/bin/true', ['/bin/true'])", "execve"),
        ("os.fork()", "fork|clone"),
        ("import threading; t = threading.Thread(target=os.fork); t.start(); t.join()", "fork|clone"),
    ],
)
def test_a_process_with_a_model_says_which_call_ended_it(walls: Isolation, program: str, call: str) -> None:
    prelude = "from validation.programs.system_calls import *\n"
    prelude += "tell_of_refused_calls(lambda c: say(call=c))\nput_on(PREDICT)\n"
    ending = run(walls, prelude + program)
    assert ending["said"]["call"] in call.split("|")
    assert ending["exit_code"] == 128 + signal.SIGSYS


@pytest.mark.skipif(os.geteuid() != 0, reason="who is not root runs every other test of this file so")
def test_walls_that_somebody_without_rights_builds_hold_as_well(walls: Isolation, monkeypatch: Any) -> None:
    with tempfile.TemporaryDirectory() as directory:
        programs = Path(isolated_child.__file__).parent
        copied = Path(directory, "validation", "programs")
        copied.mkdir(parents=True)
        for source in (programs.parent / "__init__.py", *(programs / f"{name}.py" for name in COPIED)):
            shutil.copyfile(source, Path(directory, source.relative_to(programs.parents[1])))
        make_readable(Path(directory))
        monkeypatch.setattr(os, "geteuid", nobody)
        # This machine's own interpreter may lie in root's home; Debian's can be reached by everybody.
        monkeypatch.setattr(isolation_module, "_interpreter", lambda: iter([Path(directory)]))
        monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
        monkeypatch.setattr(isolation_module.validation, "__path__", [f"{directory}/validation"])
        program = """
import ctypes, os
status = dict(line.split(':', 1) for line in open('/proc/self/status').read().splitlines())
open('/tmp/mark', 'w').close()
unshared = ctypes.CDLL(None).unshare(0x10000000)
os.write(3, f"{os.getuid()} {status['CapEff'].strip()} {unshared} {os.path.exists('/etc/passwd')}".encode())
"""
        command = walls.command(("/usr/bin/python3", "-c", program), limits=LIMITS, is_reported=True)
        done = subprocess.run(
            command, user=nobody(), group=nobody(), extra_groups=[], capture_output=True, check=True, cwd="/"
        )
    ending = json.loads(done.stdout)
    assert ending["answer"] == f"{nobody()} {'0' * 16} -1 False", done.stderr
    assert ending["written"] == ["/tmp/mark"]


def test_modules_are_not_looked_for_where_the_program_writes(walls: Isolation) -> None:
    program = """
open('/tmp/colorsys.py', 'w').write('raise SystemExit(9)')
import colorsys, sys
say(path=sys.path, found=colorsys.__file__)
"""
    said = run(walls, program)["said"]
    assert not {"", "/tmp"} & set(said["path"])
    assert not said["found"].startswith("/tmp")


def test_killing_the_outermost_process_ends_everything_inside(walls: Isolation) -> None:
    command = walls.command(
        (sys.executable, "-c", "import os, time; os.write(3, b'x'); time.sleep(600) # a-mark-of-this-test"),
        limits=ProcessLimits(wall_seconds=None, cpu_seconds=None),
        is_reported=True,
    )
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def inside() -> list[Path]:
        mark = b"time.sleep(600) # a-mark-of-this-test"
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if mark in path.read_bytes():
                    found.append(path)
            except OSError:
                continue
        return found

    with process:
        deadline = time.monotonic() + 20
        while len(inside()) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(inside()) >= 3
        process.kill()
    while inside() and time.monotonic() < deadline + 10:
        time.sleep(0.05)
    assert inside() == []


def test_a_machine_without_bubblewrap_refuses_and_says_the_way_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RefusedError, match="bubblewrap is not installed") as refused:
        find_isolation()
    assert "may_load_without_isolation = true under [validation]" in str(refused.value)
    bare = find_isolation(may_go_without=True)
    assert bare.bubblewrap is None
    assert bare.words.startswith("no isolation (may_load_without_isolation)")


def test_a_bubblewrap_that_may_not_make_namespaces_is_as_good_as_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "bwrap"
    program.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(RefusedError, match=r"does not work here \(bwrap: No permissions to create new namespace\)"):
        find_isolation()
    assert find_isolation(may_go_without=True).bubblewrap is None


def test_without_walls_limits_and_the_filter_are_still_there(tmp_path: Path) -> None:
    bare = Isolation(bubblewrap=None, words="none")
    ending = run(bare, "open('mark', 'w').close()\nsay(environment=sorted(os.environ))", scratch=tmp_path)
    assert ending["written"] == [str(tmp_path / "mark")]
    assert "PYTHONPATH" in ending["said"]["environment"]
    assert not {name for name in ending["said"]["environment"] if name.startswith(("AWS", "LIFTGATE", "SSH", "USER"))}
    if is_filter_known():
        assert run(bare, "os.fork()", scratch=tmp_path)["signal"] == signal.SIGSYS


def test_directories_for_the_program_are_open_to_it_and_to_nobody_else(tmp_path: Path) -> None:
    readable, private = tmp_path / "readable", tmp_path / "private"
    (readable / "inner").mkdir(parents=True, mode=0o700)
    (readable / "inner/file").write_text("x")
    (readable / "inner/file").chmod(0o600)
    private.mkdir()
    make_readable(readable)
    make_private(private)
    assert stat.S_IMODE((readable / "inner/file").stat().st_mode) == 0o644
    assert stat.S_IMODE((readable / "inner").stat().st_mode) == 0o755
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert private.stat().st_uid == (nobody() if os.geteuid() == 0 else os.geteuid())


def test_calls_have_names() -> None:
    if is_filter_known():
        assert call_name(41 if os.uname().machine == "x86_64" else 198) == "socket"
    assert call_name(100_000) == "number 100000"
    assert isolation_module.SETTING == "may_load_without_isolation"
