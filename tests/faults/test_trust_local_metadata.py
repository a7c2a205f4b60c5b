"""A host's memory of the signed metadata: killed at every line, torn, and shared by processes.

Whatever happens to it, the next refresh must work, and an old state must still be recognised.
"""

from __future__ import annotations

import inspect
import os
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType

import pytest
import soak
from kill_lab import in_child, was_killed
from tuf.ngclient import updater

from artifact_sync import durable
from artifact_sync.errors import TrustError
from artifact_sync.trust import local_metadata, reader

TRACED = {inspect.getsourcefile(module) for module in (updater, durable, local_metadata, reader)}
MOST_LINES = 3_000


def refresh_until_killed(site, machine: str, *, line: int) -> bool:
    """Refresh in a child that is killed before its `line`-th line; return whether it ended by itself."""
    left = line

    def before_line(frame: FrameType, event: str, _: object) -> object:
        nonlocal left
        if frame.f_code.co_filename not in TRACED:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return before_line

    def refresh() -> None:
        sys.settrace(before_line)
        site.reader(machine).refresh()

    return not was_killed(in_child(refresh))


def test_killed_at_every_line_a_host_goes_on_and_still_knows_an_old_state(site) -> None:
    site.promote(site.approved_run("run-a"))
    old = site.registry.read_metadata("timestamp.json")
    host = site.reader("host")
    host.refresh()
    site.promote(site.approved_run("run-b"))
    new = site.registry.read_metadata("timestamp.json")
    shutil.copytree(site.path / "host", site.path / "host-before", symlinks=True)
    kills, at = 0, soak.every(8)
    for line in range(at.first, MOST_LINES, at.step):
        if refresh_until_killed(site, "host", line=line):
            break
        kills += 1
        assert host.refresh().release_numbers == (1, 2), f"killed before line {line}"
        shutil.rmtree(site.path / "host")
        shutil.copytree(site.path / "host-before", site.path / "host", symlinks=True)
    else:
        pytest.fail("the refresh never ended")
    print(f"{kills} kills, {at}")
    assert kills >= soak.fewest(100, step=8)
    assert host.refresh().release_numbers == (1, 2)
    assert [path.name for path in (site.path / "host" / "photos").glob("tmp*")] == []
    site.registry.replace_timestamp(old)
    with pytest.raises(TrustError, match="a rollback"):
        host.refresh()
    site.registry.replace_timestamp(new)
    host.refresh()


@pytest.mark.parametrize("content", [b"", b"{", b"\0" * 512], ids=["empty", "cut", "zeros"])
def test_a_torn_file_is_fetched_again(site, content: bytes) -> None:
    site.promote(site.approved_run("run-a"))
    site.reader("host").refresh()
    directory = site.path / "host" / "photos"
    files = sorted(path for path in directory.rglob("*.json") if not path.is_symlink())
    assert {path.name for path in files} == {
        "1.root.json",
        "releases.json",
        "snapshot.json",
        "targets.json",
        "timestamp.json",
    }
    for path in files:
        path.write_bytes(content)
        assert site.reader("host").refresh().release_numbers == (1,), path
        assert path.read_bytes() != content


def test_leftovers_of_a_killed_refresh_are_removed(site) -> None:
    site.reader("host").refresh()
    leftover = site.path / "host" / "photos" / "tmpab12cd34"
    leftover.write_bytes(b"half")
    site.reader("host").refresh()
    assert not leftover.exists()


def test_a_missing_link_to_the_root_is_made_again(site) -> None:
    site.reader("host").refresh()
    Path(site.path / "host" / "photos" / "root.json").unlink()
    assert site.reader("host").refresh().roles == site.roles


def test_processes_share_a_directory_while_releases_come(site) -> None:
    site.promote(site.approved_run("run-a"))
    site.reader("host").refresh()

    def refresh() -> None:
        for _ in range(30):
            site.reader("host").refresh()

    children = [in_child(refresh) for _ in range(3)]
    for _ in range(5):
        site.publisher().renew(now=site.now, is_forced=True)
    assert [was_killed(child) for child in children] == [False, False, False]
    host = site.reader("host")
    assert host.refresh().release_numbers == (1,)
    assert host.seen_snapshot_number() == 7
