"""Breaking the glass by the command, from the keys to what history shows; with and without a terminal."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from artifact_sync.canonical import sha256_hex
from artifact_sync.manifest import build_manifest
from artifact_sync.records import InputContract, RunRecord
from artifact_sync.run_folder import RunFolder
from validation.programs.protos import saved_model_pb2 as pb

WORDS = "break the glass for run-a"


def liftgate(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "liftgate", *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)


def at_a_terminal(*words: str, cwd: Path, typed: str) -> subprocess.CompletedProcess[str]:
    """Run a verb whose stdin and stderr are a terminal at which somebody types."""
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "r+b", buffering=0) as keyboard:
        keyboard.write(f"{typed}\n".encode())
        command = [sys.executable, "-m", "liftgate", *words]
        done = subprocess.run(command, cwd=cwd, stdin=theirs, stderr=theirs, stdout=subprocess.PIPE, check=False)
        os.close(theirs)
        shown = b""
        try:
            while chunk := keyboard.read(4096):
                shown += chunk
        except OSError:
            # The other end is closed: all was read.
            pass
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), shown.decode())


def write_run(site: Path, run_id: str, *, operation: str = "Softmax") -> RunFolder:
    """Write a complete run whose graph is one call of one operation."""
    run = RunFolder(site / "runs" / run_id)
    (run.export / "variables").mkdir(parents=True)
    (run.export / "saved_model.pb").write_bytes(graph_of(operation))
    (run.export / "variables/variables.index").write_bytes(run_id.encode())
    (run.export / "variables/variables.data-00000-of-00001").write_bytes(b"data")
    now = datetime.now(UTC).replace(microsecond=0)
    record = RunRecord(
        run_id=run_id,
        model="photos",
        trained_by="tara",
        started_at=now - timedelta(hours=1),
        finished_at=now,
        code_commit="0" * 40,
        code_dirty=False,
        data_manifest_sha256=sha256_hex(b"data"),
        config={},
        config_sha256=sha256_hex(b"config"),
        seed=1,
        is_deterministic=True,
        environment={},
        hardware={},
        metrics={},
        labels=("cat", "dog"),
        input_contract=InputContract(height=4, width=4, channels=3),
    )
    run.run_json.write_bytes(record.to_json())
    run.manifest_json.write_bytes(build_manifest(run.export).to_json())
    return run


def graph_of(operation: str) -> bytes:
    model = pb.SavedModel(saved_model_schema_version=1)
    graph = model.meta_graphs.add()
    graph.meta_info_def.tags.append("serve")
    graph.graph_def.node.add(name="pixels", op="Placeholder")
    graph.graph_def.node.add(name="scores", op=operation, input=["pixels"])
    signature = graph.signature_def["serving_default"]
    tensors = (
        (signature.inputs["pixels"], "pixels:0", 4, (-1, 4, 4, 3)),
        (signature.outputs["probabilities"], "scores:0", 1, (-1, 2)),
    )
    for tensor, name, dtype, shape in tensors:
        tensor.name, tensor.dtype = name, dtype
        for size in shape:
            tensor.tensor_shape.dim.add(size=size)
    data: bytes = model.SerializeToString()
    return data


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Keys and a bucket; the private half of the break-glass key lies elsewhere while trust is set up."""
    (tmp_path / "liftgate.toml").write_text(
        f'model = "photos"\n[store]\nurl = "dir:{tmp_path}/bucket"\n[trust]\nmetadata_dir = "trust"\n'
        'root_path = "root.json"\n[keys]\nreleaser = "releaser"\n[training]\nruns_dir = "runs"\n'
    )
    (tmp_path / "safe").mkdir()
    for name in ("root", "alice", "releaser", "safe/glass"):
        folder, _, plain = name.rpartition("/")
        made = liftgate("keys", "new", plain, "--directory", folder or ".", "--no-passphrase", cwd=tmp_path)
        assert made.returncode == 0, made.stderr
    words = ("--root", "root", "--approver", "alice", "--releaser", "releaser")
    done = liftgate("keys", "init", *words, "--break-glass", "safe/glass.public.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "break-glass" in done.stdout
    return tmp_path


def break_glass(site: Path, run_id: str, *words: str, key: str = "safe/glass") -> subprocess.CompletedProcess[str]:
    because = ("--because", "all answers are cat", "--by", "gail")
    return liftgate("break-glass", run_id, *because, "--key", key, *words, cwd=site)


def test_the_story_of_an_emergency(site: Path) -> None:
    write_run(site, "run-a")
    asked = break_glass(site, "run-a")
    assert asked.returncode == 2
    assert "there is no terminal to type the words 'break the glass for run-a' at" in asked.stderr
    assert liftgate("status", cwd=site).stdout == "Nothing is released yet.\n"

    done = break_glass(site, "run-a", "--yes")
    assert done.returncode == 0, done.stderr
    assert "TO EVERYBODY, PAST THE GATE, THE APPROVERS AND THE ERROR BUDGET" in done.stderr
    shout = (
        "BREAK-GLASS: VERSION 900000 (run run-a) WENT PAST THE GATE AND THE APPROVERS with release 1, by gail; "
        "IT WAS NEVER JUDGED. Because: all answers are cat"
    )
    assert shout in done.stdout
    status = liftgate("status", cwd=site)
    assert status.stdout.startswith(f"{shout}\n")
    assert "(BREAK-GLASS by gail," in status.stdout
    assert shout in liftgate("history", cwd=site).stdout
    assert shout in liftgate("trace", "run-a", cwd=site).stdout
    told = json.loads(liftgate("status", "--json", cwd=site).stdout)
    assert (told["release"]["kind"], told["emergency"]["version"], told["emergency"]["verdict"]) == (
        "break-glass",
        900_000,
        "none",
    )
    assert json.loads(liftgate("history", "--json", cwd=site).stdout)[0]["emergency"]["by"] == "gail"

    again = json.loads(break_glass(site, "run-a", "--yes", "--json").stdout)
    assert (again["version"], again["release"]["number"]) == (900_000, 1)


def test_a_person_types_the_words(site: Path) -> None:
    write_run(site, "run-a")
    words = ("break-glass", "run-a", "--because", "fire", "--by", "gail", "--key", "safe/glass")
    wrong = at_a_terminal(*words, cwd=site, typed="yes")
    assert wrong.returncode == 3, wrong.stderr
    assert "Nothing was changed." in wrong.stderr
    assert not (site / "bucket" / "photos" / "releases").exists()
    right = at_a_terminal(*words, cwd=site, typed=WORDS)
    assert right.returncode == 0, right.stderr
    assert right.stdout.startswith("Release 1: stable is version 900000, nothing was released.")


def test_what_it_refuses_it_names(site: Path) -> None:
    write_run(site, "run-a")
    write_run(site, "run-reads-files", operation="ReadFile")
    hostile = break_glass(site, "run-reads-files", "--yes")
    assert hostile.returncode == 3
    assert "ReadFile" in hostile.stderr
    other = break_glass(site, "run-a", "--yes", key="releaser")
    assert other.returncode == 3
    assert "is not the trusted break-glass key (that is glass's)" in other.stderr
    assert liftgate("status", cwd=site).stdout == "Nothing is released yet.\n"


def test_the_key_is_shown_and_taken_away(site: Path) -> None:
    write_run(site, "run-a")
    shown = json.loads(liftgate("keys", "show", "--json", cwd=site).stdout)
    assert [key["name"] for key in shown["break_glass"]] == ["glass"]
    both = liftgate("keys", "rotate", "--break-glass", "safe/glass", "--no-break-glass", cwd=site)
    assert both.returncode == 2
    keys = ("--key", "root", "--key", "alice", "--key", "releaser")
    gone = liftgate("keys", "rotate", "--no-break-glass", *keys, cwd=site)
    assert gone.returncode == 0, gone.stderr
    assert "break-glass" not in gone.stdout
    refused = break_glass(site, "run-a", "--yes")
    assert refused.returncode == 3
    assert "keys rotate --break-glass KEY" in refused.stderr
    back = liftgate("keys", "rotate", "--break-glass", "safe/glass.public.json", *keys, cwd=site)
    assert back.returncode == 0, back.stderr
    assert break_glass(site, "run-a", "--yes").returncode == 0
