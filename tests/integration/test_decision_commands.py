"""approve, reject, revoke, approvals, history and trace as people and machines really start them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from artifact_sync.trust.keys import KeyFile

CONFIG = """model = "photos"
[store]
url = "dir:{path}/bucket"
[trust]
metadata_dir = "trust"
root_path = "root.json"
[keys]
approver = "keys/alice"
releaser = "keys/releaser"
[training]
runs_dir = "runs"
"""


@pytest.fixture
def site(memory_path: Path) -> Any:
    from signed_site import SignedSite

    site = SignedSite(memory_path)
    for name in ("alice", "bob", "releaser"):
        site.keys[name] = KeyFile(site.path / "keys" / name).create(name=name, ask_passphrase=None)
    site.initialise()
    (site.path / "root.json").write_bytes(site.root_bytes)
    (site.path / "liftgate.toml").write_text(CONFIG.format(path=site.path))
    return site


def liftgate(site, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **options.pop("environment", {})}
    given = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    command = [sys.executable, "-m", "liftgate", *words]
    return subprocess.run(command, cwd=site.path, env=environment, text=True, check=False, timeout=240, **given)


def decisions(site) -> int:
    return sum(1 for _ in site.store.list("photos/decisions/"))


def test_the_story_of_a_no_that_was_taken_back(site) -> None:
    site.run("run-a")
    approved = liftgate(site, "approve", "run-a", "--because", "fewer mistakes")
    assert approved.returncode == 0, approved.stderr
    evidence = approved.stderr.splitlines()
    assert evidence[0].startswith("The verdict on run-a is 'better', decided ")
    assert "Run run-a, a first model, answers 90.0" in approved.stderr
    assert "  better      accuracy: 0.90 against 0.88, p = 0.01" in evidence
    assert "Budget: try 1 of the holdout, at level" in approved.stderr
    assert evidence[-1] == f"The report to look at: {site.path}/runs/run-a/report.html"
    assert "1 of 1 approvals: run `liftgate promote run-a`." in approved.stdout

    rejected = liftgate(site, "reject", "run-a", "--key", "keys/bob", "--because", "it fails\nat night", "--json")
    assert json.loads(rejected.stdout)["decision"]["reason"] == "it fails\nat night"
    refused = liftgate(site, "promote", "run-a", "--by", "rita")
    assert refused.returncode == 3
    assert "run run-a is rejected (bob on " in refused.stderr
    shown = liftgate(site, "approvals", "run-a")
    assert "bob REJECTED, " in shown.stdout
    assert "\n    | at night\n" in shown.stdout
    told = json.loads(liftgate(site, "approvals", "run-a", "--json").stdout)
    assert (told["can_be_promoted"], told["rejected_by"]) == (False, ["bob"])
    assert [entry["kind"] for entry in told["decisions"]] == ["approval", "rejection"]

    assert liftgate(site, "revoke", "run-a", "--key", "keys/bob", "--because", "my camera was broken").returncode == 0
    assert liftgate(site, "promote", "run-a", "--by", "rita").returncode == 0
    late = liftgate(site, "reject", "run-a", "--because", "too late")
    assert (late.returncode, "it is what is served" in late.stderr) == (3, True)
    history = liftgate(site, "history")
    assert "(taken back) bob REJECTED, " in history.stdout
    assert "bob took it back, " in history.stdout
    assert "(try 1 of its budget)" in history.stdout
    (entry,) = json.loads(liftgate(site, "history", "--json").stdout)
    kinds = [decision["kind"] for decision in entry["decisions"]]
    assert kinds == ["approval", "rejection", "revocation", "promotion"]
    assert (entry["warnings"], entry["evidence"]["ledger_number"]) == ([], 1)
    trace = liftgate(site, "trace", "run-a")
    assert "  budget          try 1, " in trace.stdout
    (version,) = json.loads(liftgate(site, "trace", "run-a", "--json").stdout)
    assert (version["is_spending_there"], len(version["decisions"])) == (True, 4)


@pytest.mark.parametrize("verb", ["approve", "reject", "revoke"])
@pytest.mark.parametrize(
    ("reason", "word"),
    [("x" * 100_000, "has 100000 characters, at most 10000"), ("a\x1b[2Jb", "U+001B"), ("\n", "it has no reason")],
)
def test_a_reason_that_is_refused_leaves_nothing(site, verb: str, reason: str, word: str) -> None:
    run = site.run("run-a")
    done = liftgate(site, verb, "run-a", "--because", reason)
    assert (done.returncode, done.stdout) == (3, "")
    assert word in done.stderr
    assert "\x1b" not in done.stderr
    assert (decisions(site), run.approvals.exists()) == (0, False)


def test_without_any_stream_it_does_its_work(site) -> None:
    site.run("run-a")
    words = f"{sys.executable} -m liftgate approve run-a --because fine <&- >&- 2>&-"
    assert subprocess.run(["bash", "-c", words], cwd=site.path, check=False, timeout=240).returncode == 0
    assert decisions(site) == 1


def test_evidence_that_nobody_can_read_is_no_evidence(site) -> None:
    site.run("run-a")
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = liftgate(site, "approve", "run-a", "--because", "fine", stderr=writer)
    finally:
        os.close(writer)
    assert done.returncode != 0
    assert decisions(site) == 0


def test_a_reader_who_leaves_early_is_no_error_of_what_was_done(site) -> None:
    site.run("run-a")
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = liftgate(site, "approve", "run-a", "--because", "fine", stdout=writer)
    finally:
        os.close(writer)
    assert (done.returncode, decisions(site)) == (0, 1)


def test_a_locked_key_never_waits_for_a_terminal_that_is_not_there(site) -> None:
    site.run("run-a")
    KeyFile(site.path / "keys" / "locked").create(name="locked", ask_passphrase=lambda sentence: "correct horse")
    done = liftgate(site, "approve", "run-a", "--because", "fine", "--key", "keys/locked", start_new_session=True)
    assert (done.returncode, decisions(site)) == (2, 0)
    assert "there is no terminal to ask for its passphrase. Set LIFTGATE_KEY_PASSPHRASE" in done.stderr


def test_in_ascii_and_without_colour_every_sign_is_spelled_out(site) -> None:
    site.run("run-a")
    plain = {"PYTHONIOENCODING": "ascii", "NO_COLOR": "1", "TERM": "dumb", "CI": "true"}
    approved = liftgate(site, "approve", "run-a", "--because", "besser 🙂 \u2028x", "--json", environment=plain)
    assert approved.returncode == 0, approved.stderr
    assert json.loads(approved.stdout)["reason"] == "besser 🙂 \u2028x"
    shown = liftgate(site, "approvals", "run-a", environment=plain)
    assert "besser \\U0001f642 \\u2028x" in shown.stdout


@pytest.mark.parametrize("name", ["run\na", "run\x1b[31m", "../run-a", "r" * 300])
def test_a_name_that_is_none_is_told_in_one_line(site, name: str) -> None:
    site.run("run-a")
    for verb in ("approvals", "trace"):
        done = liftgate(site, verb, name)
        assert done.returncode == 4, done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert "\x1b" not in done.stderr
