from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def liftgate(*words: str, cwd: Path, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "liftgate", *words],
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "liftgate.toml").write_text(
        f'model = "photos"\n[store]\nurl = "dir:{tmp_path}/bucket"\n[trust]\nmetadata_dir = "trust"\n'
        'root_path = "root.json"\n[keys]\nreleaser = "releaser"\n'
    )
    return tmp_path


def test_an_error_is_one_message_on_stderr_and_its_exit_code(tmp_path: Path) -> None:
    done = liftgate("status", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("liftgate: No settings file at liftgate.toml.")


def test_an_unknown_verb_and_option_are_usage_errors(tmp_path: Path) -> None:
    assert liftgate("promot", cwd=tmp_path).returncode == 2
    done = liftgate("status", "--frobnicate", cwd=tmp_path)
    assert done.returncode == 2
    assert "No such option" in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_for_the_shell(tmp_path: Path, shell: str) -> None:
    done = liftgate("completion", shell, cwd=tmp_path)
    assert done.returncode == 0
    assert "_LIFTGATE_COMPLETE" in done.stdout


def test_completion_offers_the_verbs(tmp_path: Path) -> None:
    asked = {"_LIFTGATE_COMPLETE": "bash_complete", "COMP_WORDS": "liftgate pro", "COMP_CWORD": "1"}
    assert liftgate(cwd=tmp_path, environment=asked).stdout.strip() == "plain,promote"


def test_keys_are_made_set_up_shown_and_handed_around(site: Path) -> None:
    secret = {"LIFTGATE_KEY_PASSPHRASE": "correct horse"}
    for name in ("root", "alice", "bob", "releaser"):
        made = liftgate("keys", "new", name, cwd=site, environment=secret)
        assert made.returncode == 0, made.stderr
        assert "ENCRYPTED" in (site / name).read_text()

    # Nobody has all keys: the change goes from holder to holder.
    words = ("--root", "root", "--approver", "alice", "--approver", "bob", "--threshold", "2", "--releaser", "releaser")
    drafted = liftgate("keys", "init", *words, "--draft", "change.json", cwd=site)
    assert drafted.returncode == 0, drafted.stderr
    early = liftgate("keys", "publish", "change.json", cwd=site, environment=secret)
    assert early.returncode == 3
    assert "more of the new" in early.stderr
    for name in ("root", "alice", "bob"):
        signed = liftgate("keys", "sign", "change.json", "--key", name, cwd=site, environment=secret)
        assert signed.returncode == 0, signed.stderr
    assert "Nothing is missing" in signed.stdout
    published = liftgate("keys", "publish", "change.json", cwd=site, environment=secret)
    assert published.returncode == 0, published.stderr

    shown = json.loads(liftgate("keys", "show", "--json", cwd=site).stdout)
    assert (shown["approvers"]["threshold"], len(shown["approvers"]["keys"])) == (2, 2)
    assert set(shown["expires"]) == {"root", "targets", "releases", "timestamp"}
    assert liftgate("status", cwd=site).stdout == "Nothing is released yet.\n"
    assert liftgate("history", "--json", cwd=site).stdout == "[]\n"

    # Bob leaves; one approval is enough from now on.
    words = ("--remove-approver", "bob", "--threshold", "1", "--key", "root", "--key", "alice", "--key", "releaser")
    rotated = liftgate("keys", "rotate", *words, cwd=site, environment=secret)
    assert rotated.returncode == 0, rotated.stderr
    shown = json.loads(liftgate("keys", "show", "--json", cwd=site).stdout)
    assert [key["name"] for key in shown["approvers"]["keys"]] == ["alice"]

    refreshed = liftgate("keys", "refresh", cwd=site, environment=secret)
    assert refreshed.returncode == 0, refreshed.stderr
    wrong = liftgate("keys", "refresh", cwd=site, environment={"LIFTGATE_KEY_PASSPHRASE": "wrong"})
    assert wrong.returncode == 2
    assert "the passphrase is wrong" in wrong.stderr


def test_without_a_terminal_nothing_asks(site: Path) -> None:
    done = liftgate("keys", "new", "root", cwd=site)
    assert done.returncode == 2
    assert "LIFTGATE_KEY_PASSPHRASE" in done.stderr


def test_the_doctor_races_the_store_and_says_what_it_found(site: Path) -> None:
    done = liftgate("doctor", "--race", "3", "--json", cwd=site)
    findings = {finding["what"]: finding for finding in json.loads(done.stdout)}
    assert "3 races, one winner each" in findings["store"]["found"]
    assert (findings["trust"]["mark"], done.returncode) == ("bad", 1)
    assert "keys init" in findings["trust"]["found"]


def test_a_missing_run_names_those_that_are_there(site: Path) -> None:
    (site / "runs" / "run-one").mkdir(parents=True)
    done = liftgate("approvals", "run-two", cwd=site)
    assert done.returncode == 4
    assert "The newest there: run-one." in done.stderr


def test_a_missing_extra_is_named_with_its_remedy(site: Path) -> None:
    # A module that cannot be found, as on a host where the extra is not installed.
    (site / "sitecustomize.py").write_text("import sys\nsys.modules['grpc'] = None\n")
    done = liftgate("agent", "--once", cwd=site, environment={"PYTHONPATH": str(site)})
    assert done.returncode == 2
    assert "pip install 'liftgate[serving]'" in done.stderr
