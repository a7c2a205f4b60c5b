"""Walls around a program that holds a candidate: no network, nobody's rights, nothing to read but what it needs.

Its place in the flow: trial.py runs the trial behind them, smoke.py the throw-away server. The walls are bubblewrap's
(bwrap, a Debian package that flatpak stands on): namespaces of its own for processes, network, host name and shared
memory, a root that holds the interpreter, the libraries and what it is given, all of it read-only, and a /tmp of a
stated size. Behind them isolated_child.py sets limits and a filter of system calls.

As root the program becomes the user nobody in earnest; else it is nobody in a user namespace.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import artifact_sync
import serving
import validation
from artifact_sync.errors import RefusedError
from validation.programs.isolated_child import Order, ProcessLimits
from validation.programs.system_calls import is_filter_known

SETTING = "may_load_without_isolation"
_SYSTEM_DIRECTORIES = ("/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin")
_SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime")
_SCRATCH = "/tmp"  # noqa: S108  (it is the program's own)
_SCRATCH_BYTES = 64 * 1024**2
_PROBE_SECONDS = 30


@dataclass(frozen=True)
class Isolation:
    """How candidates are held; get it by `find_isolation`.

    Attributes:
        bubblewrap: the program; None where the operator allowed to go without.
        words: what holds a candidate, in a few words for the report.
    """

    bubblewrap: Path | None
    words: str

    def command(
        self,
        program: Sequence[str],
        *,
        limits: ProcessLimits,
        readable: Sequence[Path] = (),
        writable: Sequence[Path] = (),
        scratch: Path | None = None,
        is_reported: bool = False,
    ) -> tuple[str, ...]:
        """Return the command that runs `program` (its first word a full path) behind the walls.

        Words put behind the command are further arguments of the program.

        Args:
            program: the program and its arguments.
            limits: what it may take.
            readable: directories that it may read besides its own libraries, at their own paths.
            writable: directories that it may write; `make_private` makes them fit.
            scratch: its working directory and $TMPDIR where there are no walls.
            is_reported: whether an Ending comes on stdout.
        """
        is_walled = self.bubblewrap is not None
        place = _SCRATCH if is_walled or scratch is None else str(scratch)
        order = Order(
            command=tuple(program),
            limits=limits,
            user=nobody() if is_walled and os.geteuid() == 0 else None,
            scratch=place,
            is_reported=is_reported,
        )
        child = (sys.executable, "-B", "-m", "validation.programs.isolated_child", json.dumps(asdict(order)))
        if self.bubblewrap is None:
            settings = [f"{name}={value}" for name, value in _environment(place).items()]
            return ("/usr/bin/env", "-i", "-C", place, *settings, *child)
        return (str(self.bubblewrap), *_walls(readable, writable), "--", *child)


def find_isolation(*, may_go_without: bool = False) -> Isolation:
    """Return the walls that this machine has, tried once.

    Args:
        may_go_without: the setting `may_load_without_isolation`.

    Raises:
        RefusedError: bubblewrap is missing or does not work here, and going without is not allowed.
    """
    found = shutil.which("bwrap")
    trouble = "is not installed" if found is None else _trouble(found)
    if found is not None and trouble is None:
        who = "the user nobody" if os.geteuid() == 0 else "nobody in a user namespace"
        return Isolation(Path(found), f"bubblewrap, as {who}, without a network{_filter_words()}")
    if may_go_without:
        return Isolation(None, f"no isolation ({SETTING}): limits{_filter_words()}, but the files of this machine open")
    raise RefusedError(
        f"Candidate refused: it is a program, and there is nothing to hold it while it is tried: bubblewrap {trouble}. "
        "Install the Debian package bubblewrap (0.8 or later) and let this user make namespaces, or validate as root. "
        f"Where there is nothing worth protecting, set {SETTING} = true under [validation]; the report says so."
    )


def nobody() -> int:
    """Return the number of the user nobody."""
    try:
        return pwd.getpwnam("nobody").pw_uid
    except KeyError:
        return 65534


def make_readable(directory: Path) -> None:
    """Let the user nobody read a copy; whoever may not reach the directories above it still cannot."""
    for parent, _, files in os.walk(directory):
        Path(parent).chmod(0o755)
        for name in files:
            path = Path(parent, name)
            if not path.is_symlink():
                path.chmod(0o644)


def make_private(directory: Path) -> None:
    """Let the isolated program, and nobody else but this user, write into a directory."""
    directory.chmod(0o700)
    if os.geteuid() == 0:
        os.chown(directory, nobody(), nobody())


def _walls(readable: Sequence[Path], writable: Sequence[Path]) -> Iterator[str]:
    yield from ("--die-with-parent", "--new-session", "--unshare-pid", "--unshare-net", "--unshare-ipc")
    yield from ("--unshare-uts", "--hostname", "isolated", "--unshare-cgroup-try")
    if os.geteuid() == 0:
        # Only to become nobody, which gives these up as well.
        yield from ("--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID")
    else:
        yield from ("--unshare-user", "--disable-userns", "--uid", str(nobody()), "--gid", str(nobody()))
    for directory in map(Path, _SYSTEM_DIRECTORIES):
        if directory.is_symlink():
            yield from ("--symlink", str(directory.readlink()), str(directory))
        elif directory.is_dir():
            yield from ("--ro-bind", str(directory), str(directory))
    yield from ("--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev")
    yield from ("--perms", "1777", "--size", str(_SCRATCH_BYTES), "--tmpfs", _SCRATCH)
    binds = [*(("--ro-bind", path) for path in (*_interpreter(), *readable)), *(("--bind", path) for path in writable)]
    # Made by bubblewrap itself, the directories above would be closed to nobody.
    above = {parent for path in (*(path for _, path in binds), *map(Path, _SYSTEM_FILES)) for parent in path.parents}
    for path in sorted(above - {Path("/"), Path(_SCRATCH), *map(Path, _SYSTEM_DIRECTORIES)}):
        if not any(path.is_relative_to(name) for name in _SYSTEM_DIRECTORIES):
            yield from ("--perms", "0755", "--dir", str(path))
    for name in _SYSTEM_FILES:
        yield from ("--ro-bind-try", name, name)
    for kind, path in binds:
        yield from (kind, str(path), str(path))
    yield from ("--remount-ro", "/", "--chdir", _SCRATCH, "--clearenv")
    for name, value in _environment(_SCRATCH).items():
        yield from ("--setenv", name, value)


def _interpreter() -> Iterator[Path]:
    """Yield the directories with Python, its packages, and the three packages of ours that are run inside."""
    wanted = [Path(sys.base_prefix), Path(sys.prefix), Path(sys.base_exec_prefix)]
    wanted += [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    wanted += [Path(entry) for entry in sys.path if entry.endswith(("site-packages", "dist-packages"))]
    wanted += [Path(path) for package in (artifact_sync, serving, validation) for path in package.__path__]
    given: list[Path] = [Path(name) for name in _SYSTEM_DIRECTORIES]
    for path in wanted:
        # A link on the way, such as a version manager's, has to be there under its own name as well.
        for form in dict.fromkeys((path.absolute(), path.resolve())):
            if form.is_dir() and not any(form.is_relative_to(other) for other in given):
                given.append(form)
                yield form


def _environment(scratch: str) -> dict[str, str]:
    packages = dict.fromkeys(str(Path(path).absolute().parent) for path in validation.__path__)
    extra = (entry for entry in sys.path if entry.endswith(("site-packages", "dist-packages")))
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": scratch,
        "TMPDIR": scratch,
        "LANG": "C.UTF-8",
        "PYTHONPATH": os.pathsep.join(dict.fromkeys((*packages, *extra))),
        "PYTHONDONTWRITEBYTECODE": "1",
        # Else Python would look for modules in the working directory, which the program can write.
        "PYTHONSAFEPATH": "1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "CUDA_VISIBLE_DEVICES": "",
    }


@cache
def _trouble(program: str) -> str | None:
    """Return why the program is of no use here; None when it is."""
    command = (program, *_walls((), ()), "--", "/usr/bin/env", "true")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"does not run here ({error})"
    said = done.stderr.strip().splitlines()
    return None if done.returncode == 0 else f"does not work here ({said[-1] if said else f'exit {done.returncode}'})"


def _filter_words() -> str:
    return ", with a filter of system calls" if is_filter_known() else ""
