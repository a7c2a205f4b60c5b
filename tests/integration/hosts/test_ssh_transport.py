"""SshTransport against a real sshd on a machine of its own."""

from __future__ import annotations

import hashlib
import time
import urllib.request
from contextlib import closing
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from artifact_sync.errors import CapacityError, IntegrityError, SettingsError, TrainingError, TrustError
from artifact_sync.records import FileEntry, Manifest
from training_cluster.hosts.port_forward import PortForward
from training_cluster.hosts.ssh import SshHost, SshTransport


@pytest.fixture(scope="module")
def machine(shared_lab: Any) -> Any:
    return shared_lab.boot("gpu1")


@pytest.fixture
def host(machine: Any, tmp_path: Path) -> SshHost:
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(machine.known_hosts_line)
    return SshHost("gpu1", "127.0.0.1", machine.port, "trainer", known_hosts, machine.identity_file)


@pytest.fixture
def remote_run(machine: Any, tmp_path: Path) -> tuple[PurePosixPath, Manifest]:
    """A folder of three files on the machine, one of 3 MB, and its digests."""
    folder = PurePosixPath("/srv/liftgate", tmp_path.name)
    files = {"export/weights": b"w" * 3_000_000, "manifest.json": b"{}", "progress.jsonl": b"step"}
    entries = []
    machine.run(f"mkdir -p {folder}/export; head -c 3000000 /dev/zero | tr '\\0' w > {folder}/export/weights")
    machine.run(f"printf '{{}}' > {folder}/manifest.json; printf step > {folder}/progress.jsonl")
    for name, data in sorted(files.items()):
        entries.append(FileEntry(path=name, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest()))
    return folder, Manifest(files=tuple(entries))


def test_a_command_gets_its_words_as_they_are(host: SshHost) -> None:
    with SshTransport(host) as transport:
        result = transport.run(["printf", "%s|", "two words", "$HOME", "`id`", "a'b"])

    assert (result.exit_code, result.stdout) == (0, "two words|$HOME|`id`|a'b|")


def test_a_failing_command_gives_its_exit_code_and_its_complaint(host: SshHost) -> None:
    with SshTransport(host) as transport:
        result = transport.run(["sh", "-c", "echo no >&2; exit 7"])

    assert (result.exit_code, result.stderr) == (7, "no\n")


def test_a_host_whose_key_is_not_pinned_is_refused_with_its_fingerprint(host: SshHost, machine: Any) -> None:
    host.known_hosts.write_text("")

    with pytest.raises(TrustError, match="its key is not pinned") as refusal, SshTransport(host):
        pass

    fingerprint = machine.run("ssh-keygen -lf /etc/ssh/liftgate_host_key").stdout.split()[1]
    assert fingerprint in str(refusal.value)
    assert machine.known_hosts_line.strip() in str(refusal.value)
    assert host.known_hosts.read_text() == ""


def test_a_host_whose_key_has_changed_is_refused_with_both_fingerprints(
    host: SshHost, machine: Any, tmp_path: Path, machines: Any
) -> None:
    other = tmp_path / "other"
    machines.keygen(other)
    key_type, key, *_ = other.with_suffix(".pub").read_text().split()
    host.known_hosts.write_text(f"[127.0.0.1]:{machine.port} {key_type} {key}\n")

    with pytest.raises(TrustError, match=r"shows the key SHA256:\S+, but SHA256:\S+ is pinned"), SshTransport(host):
        pass


def test_a_missing_known_hosts_file_is_a_wrong_setting(host: SshHost) -> None:
    with (
        pytest.raises(SettingsError, match="Pin the host's key"),
        SshTransport(replace(host, known_hosts=Path("/nowhere"))),
    ):
        pass


def test_a_refused_user_is_told_which_key_to_authorise(host: SshHost) -> None:
    with pytest.raises(TrainingError, match="refuses user nobody"), SshTransport(replace(host, user="nobody")):
        pass


def test_an_unreachable_host_is_told_by_name_and_address(host: SshHost) -> None:
    with (
        pytest.raises(TrainingError, match=r"gpu1 cannot be reached at 127\.0\.0\.1:1 "),
        SshTransport(replace(host, port=1)),
    ):
        pass


def test_a_folder_is_fetched_with_the_last_file_last(
    host: SshHost, remote_run: tuple[PurePosixPath, Manifest], tmp_path: Path
) -> None:
    folder, manifest = remote_run
    seen: list[tuple[int, bool]] = []
    local = tmp_path / "local"

    def note(done: int, _total: int) -> None:
        seen.append((done, (local / "manifest.json").exists()))

    with SshTransport(host) as transport:
        moved = transport.fetch_directory(folder, local, manifest=manifest, last="manifest.json", progress=note)

    assert moved == manifest.size_bytes
    assert seen == [(3_000_000, False), (3_000_004, False), (3_000_006, True)]
    assert sorted(path.name for path in local.rglob("*")) == ["export", "manifest.json", "progress.jsonl", "weights"]


def test_a_fetch_that_was_cut_off_moves_only_what_is_missing(
    host: SshHost, remote_run: tuple[PurePosixPath, Manifest], tmp_path: Path
) -> None:
    folder, manifest = remote_run
    weights = manifest.files[0]
    partial = tmp_path / "local" / ".partial" / weights.sha256
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"w" * 2_000_000)

    with SshTransport(host) as transport:
        moved = transport.fetch_directory(folder, tmp_path / "local", manifest=manifest)
        again = transport.fetch_directory(folder, tmp_path / "local", manifest=manifest)

    assert (moved, again) == (1_000_006, 0)


def test_a_fetched_file_with_another_digest_is_refused_and_fetched_anew_the_next_time(
    host: SshHost, remote_run: tuple[PurePosixPath, Manifest], tmp_path: Path
) -> None:
    folder, manifest = remote_run
    partial = tmp_path / "local" / ".partial" / manifest.files[0].sha256
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"x" * 2_000_000)

    with SshTransport(host) as transport:
        with pytest.raises(IntegrityError, match=r"export/weights from host gpu1 refused: it has 3000000 bytes"):
            transport.fetch_directory(folder, tmp_path / "local", manifest=manifest)
        assert not (tmp_path / "local" / "export").exists()
        assert transport.fetch_directory(folder, tmp_path / "local", manifest=manifest) == manifest.size_bytes


def test_a_folder_that_does_not_fit_is_not_begun(host: SshHost, tmp_path: Path) -> None:
    huge = Manifest(files=(FileEntry(path="huge", size_bytes=1 << 60, sha256="0" * 64),))

    with SshTransport(host) as transport, pytest.raises(CapacityError, match="Make room"):
        transport.fetch_directory(PurePosixPath("/srv"), tmp_path / "local", manifest=huge)


def test_a_command_is_heard_line_by_line_and_learns_when_nobody_listens_any_more(host: SshHost, machine: Any) -> None:
    command = ["sh", "-c", "echo $$ > /tmp/heard; echo one; echo two; read -r line; echo left > /tmp/heard"]

    with SshTransport(host) as transport, closing(transport.stream(command)) as lines:
        assert [next(lines), next(lines)] == ["one", "two"]
        assert machine.run("cat /tmp/heard").stdout != "left\n"

    for _ in range(100):
        if machine.run("cat /tmp/heard").stdout == "left\n":
            return
        time.sleep(0.05)
    pytest.fail("the command still waits for its input")


def test_a_command_that_fails_or_falls_silent_while_it_is_heard_is_told(host: SshHost) -> None:
    with SshTransport(host) as transport:
        with pytest.raises(TrainingError, match=r"ended with exit code 3: no such run"):
            list(transport.stream(["sh", "-c", "echo no such run >&2; exit 3"]))
        with pytest.raises(TrainingError, match="could not hear `sleep`"):
            list(transport.stream(["sleep", "5"], silence_seconds=0.2))


def test_a_port_here_leads_to_a_port_of_the_hosts_loopback(host: SshHost, machine: Any, tmp_path: Path) -> None:
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "big").write_bytes(bytes(range(256)) * 4096)
    machine.copy(tmp_path / "pages", "/srv/pages")
    serve = "import http.server as h, functools as f; s = h.HTTPServer(('127.0.0.1', 0), f.partial("
    serve += "h.SimpleHTTPRequestHandler, directory='/srv/pages')); print(s.server_port, flush=True); s.serve_forever()"
    with SshTransport(host) as transport, closing(transport.stream(["python3", "-c", serve])) as lines:
        with PortForward(transport, remote_port=int(next(lines))) as forward:
            address = f"http://127.0.0.1:{forward.port}"
            assert urllib.request.urlopen(f"{address}/big", timeout=10).read() == bytes(range(256)) * 4096
            with pytest.raises(SettingsError, match=f"Port {forward.port} of this machine cannot be used"):
                PortForward(transport, remote_port=1, local_port=forward.port).__enter__()
        with pytest.raises(OSError, match="refused"):
            urllib.request.urlopen(address, timeout=10)


def test_a_host_that_loses_power_in_the_middle_is_told(host: SshHost, lab: Any, tmp_path: Path) -> None:
    machine = lab.boot("gpu9")
    known_hosts = tmp_path / "known_hosts_of_gpu9"
    known_hosts.write_text(machine.known_hosts_line)
    with SshTransport(
        replace(host, name="gpu9", port=machine.port, known_hosts=known_hosts, identity_file=machine.identity_file)
    ) as transport:
        machine.power_off()

        with pytest.raises(TrainingError, match="Host gpu9: could not run"):
            transport.run(["sleep", "100"])
