"""The story of docs/architecture.md in order, then what must not happen in it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from liftgate.demo.services import Services, start_model_server
from liftgate.demo.sites import Site
from liftgate.demo.traffic import Traffic, classify, post

from .conftest import World


def test_the_story(world: World) -> None:
    training, services = world.training, world.services
    jpegs = [data for data, _ in world.photos[:50]]

    # Release 1 answers people.
    answer = classify(world.address, jpegs[0])
    assert answer["version"] == 1
    assert len(answer["request_id"]) == 32

    # A better model is shown to be better, and nobody can promote it before it is approved.
    world.train("better")
    verdict = training.run("validate", "better", "--json").document
    assert (verdict["outcome"], verdict["champion"]["version"]) == ("better", 1)
    hurried = training.run("promote", "better", expected=[3])
    assert "has 0 of 1 approvals (missing: 1 of approver)" in hurried.stderr
    training.run("approve", "better", "--because", "Better on the holdout")

    # It is reloaded while photos keep coming, and none of them is lost.
    with Traffic(world.address, jpegs) as traffic:
        services.wait_for("traffic", lambda: traffic.answered_by(1) > 50)
        training.run("promote", "better", "--by", "operator")
        services.wait_for("release 2", lambda: world.is_served(2, version=2))
        services.wait_for("answers of version 2", lambda: traffic.answered_by(2) > 50)
    assert traffic.counts.failed == 0, traffic.counts.first_failure
    assert set(traffic.counts.versions) == {1, 2}

    # A person corrects an answer; the next dataset has it.
    answer = classify(world.address, jpegs[1])
    correction = {"request_id": answer["request_id"], "label": world.photos[1][1], "keep_photo": True}
    post(f"{world.address}/api/v1/feedback", json.dumps(correction).encode(), content_type="application/json")
    services.wait_for("the correction", lambda: any(True for _ in world.registry.feedback()))
    words = ("dataset", "build", "--photos", "photos", "--size", "8x8x1", "--json", "--out")
    plain = training.run(*words, "without-feedback", "--no-feedback").document
    built = training.run(*words, "with-feedback").document
    # The photo was one of the holdout: it is counted as left out, never trained on.
    assert (built["feedback"], built["excluded"] - plain["excluded"]) in {(1, 0), (0, 1)}

    # Back: only a label moves, and again nothing is lost.
    with Traffic(world.address, jpegs) as traffic:
        services.wait_for("traffic", lambda: traffic.answered_by(2) > 20)
        training.run("rollback", "--because", "Practice", "--by", "operator")
        services.wait_for("release 3", lambda: world.is_served(3, version=1))
        services.wait_for("answers of version 1", lambda: traffic.answered_by(1) > 20)
    assert traffic.counts.failed == 0, traffic.counts.first_failure

    # Everything can be looked up afterwards.
    history = training.run("history", "--json").document
    assert [entry["release"]["kind"] for entry in history] == ["rollback", "promotion", "promotion"]
    (trace,) = training.run("trace", "better", "--json").document
    assert (trace["version"]["version"], trace["releases"]) == (2, [2])
    status = training.run("status", "--json").document
    assert [(host["host"], host["serving_version"]) for host in status["hosts"]] == [("serving-host-1", 1)]


def test_a_worse_model_does_not_pass_the_gate(world: World) -> None:
    world.train("worse")
    judged = world.training.run("validate", "worse", expected=[20])
    assert judged.stdout.startswith("not better: run worse against version ")
    refused = world.training.run("approve", "worse", "--because", "It is new", expected=[3])
    assert "the verdict on run worse is 'not better'" in refused.stderr
    refused = world.training.run("promote", "worse", expected=[3])
    assert "Promotion refused" in refused.stderr


def test_rows_that_cannot_be_used_are_listed_by_line(world: World) -> None:
    folder = world.training.folder
    (folder / "broken.png").write_bytes(b"no photo at all")
    (folder / "rows.csv").write_text("path,label\nbroken.png,digit-1\nmissing.png,digit-2\nbroken.png,\n")
    refused = world.training.run(
        "dataset", "build", "--photos", "rows.csv", "--out", "never", "--no-feedback", expected=[9]
    )
    assert "rows.csv:3: there is no file" in refused.stderr
    assert "rows.csv:4: it has no label" in refused.stderr
    assert not (folder / "never").exists()


@pytest.mark.parametrize(
    ("words", "exit_code", "message"),
    [
        (("validate", "first", "--first"), 3, "--first says that nothing is served"),
        (("validate", "first", "--policy", "nowhere.toml"), 3, "there is no policy"),
        (("validate", "no-such-run"), 4, "There is no run 'no-such-run'"),
        (("approve", "first", "--because", " "), 3, "it has no reason"),
        (("rollback", "--to", "77", "--because", "x"), 3, "version 77"),
        (("rollback",), 2, "Missing option '--because'"),
        (("promote", "first", "--key", "keys/approver"), 3, "the key of approver is not the releaser's"),
        (("keys", "init", "--root", "keys/root", "--approver", "keys/approver", "--releaser", "keys/releaser"), 3,
         "has signed metadata already"),
        (("keys", "new", "approver", "--directory", "keys", "--no-passphrase"), 7, "never overwritten"),
        (("train", "--training-config", "nowhere.toml"), 2, "nowhere.toml"),
        (("dataset", "build", "--photos", "photos", "--size", "8x8"), 2, "HEIGHTxWIDTHxCHANNELS"),
        (("trace", "version", "99"), 4, "means nothing that photos ever had"),
        (("--config", "nowhere.toml", "status"), 2, "No settings file at nowhere.toml"),
    ],
)  # fmt: skip
def test_a_refusal_says_why_and_ends_with_its_exit_code(
    world: World, words: tuple[str, ...], exit_code: int, message: str
) -> None:
    refused = world.training.run(*words, expected=[exit_code])
    assert message in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_changed_holdout_is_refused_by_name(world: World) -> None:
    copy = world.training.folder / "changed-holdout"
    shutil.copytree(world.training.folder / "holdout", copy)
    photo = next((copy / "photos").iterdir())
    photo.write_bytes(photo.read_bytes() + b"x")
    refused = world.training.run("validate", "first", "--holdout", copy.name, expected=[5])
    assert photo.name in refused.stderr


def test_nobody_approves_a_run_that_they_trained(world: World) -> None:
    own = world.training.run("keys", "new", "trainer", "--directory", "keys", "--no-passphrase", expected=[0, 7])
    assert own.exit_code in {0, 7}
    refused = world.training.run("approve", "first", "--because", "Mine", "--key", "keys/trainer", expected=[3])
    assert "the key of trainer is not a trusted approver's" in refused.stderr


def test_a_training_host_that_is_not_fit_is_named_with_every_failure(world: World) -> None:
    inventory = world.training.folder / "unfit"
    inventory.mkdir(exist_ok=True)
    (inventory / "hosts.yml").write_text(
        "training_hosts:\n  hosts:\n    gpu1:\n      ansible_connection: local\n"
        "      training_run_is_in_place: true\n      training_run_python: /nowhere/bin/python\n"
    )
    settings = (world.training.folder / "liftgate.toml").read_text()
    local = str(Path(__file__).parents[2] / "ansible" / "inventories" / "local")
    (world.training.folder / "unfit.toml").write_text(settings.replace(local, str(inventory)))
    (world.training.folder / "unfit-training.toml").write_text("")
    words = ("--config", "unfit.toml", "train", "--run-id", "unfit", "--training-config", "unfit-training.toml")
    refused = world.training.run(*words, expected=[11])
    assert "gpu1" in refused.stderr
    assert "Put these right, or take the host out of the inventory" in refused.stderr


def test_a_tampered_version_is_refused_by_a_new_host(world: World) -> None:
    record = world.registry
    key = record.version_key(1)
    with record.store.open(key) as stream:
        files = json.loads(stream.read())["manifest"]["files"]
    blob = record.blob_key(next(entry["sha256"] for entry in files if entry["path"] == "saved_model.pb"))
    with record.store.open(blob) as stream:
        good = stream.read()
    folder = world.serving.folder.with_name("second-host")
    folder.mkdir()
    settings = (world.serving.folder / "liftgate.toml").read_text()
    socket = world.socket.with_name("second-host.sock")
    (folder / "liftgate.toml").write_text(settings.replace(str(world.socket), str(socket)))
    shutil.copyfile(world.training.folder / "root.json", folder / "root.json")
    host = Site(folder, world.serving.environment, world.serving.narrator)
    record.store.replace(blob, good[:-1] + bytes([good[-1] ^ 1]))
    try:
        with Services(host) as services:
            start_model_server(services, socket, models_dir=folder / "models")
            tick = host.run("agent", "--once", "--json", expected=[0, 5])
    finally:
        record.store.replace(blob, good)
    # Version 2 may be the released one by now; then this host never asks for the changed blob.
    if tick.document["served"] != {"stable": 2}:
        assert tick.exit_code == 5
        assert "saved_model.pb" in tick.document["detail"]
        assert not list((folder / "models" / "photos").glob("[0-9]*"))
