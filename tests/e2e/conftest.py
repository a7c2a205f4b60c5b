"""One small world for the end-to-end tests: both sites, every process real, photos of handwritten digits."""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from artifact_sync.directory_store import DirectoryStore
from artifact_sync.registry import Registry
from liftgate.demo.narration import Narrator
from liftgate.demo.services import Services, answers, start_model_server
from liftgate.demo.sites import Site, make_sites, prepare_folder

REPOSITORY = Path(__file__).parents[2]
TRAINING_DIGITS = 1000
_MODEL = '[model]\narchitecture = "small-cnn"\nwidths = [8, 16]\ndense_units = 32\n'
_CONFIGS = {
    "first": "[optimization]\nepochs = 5\nbatch_size = 32\nlearning_rate = 3e-3\n[data]\nmax_examples = 300\n",
    "better": "[optimization]\nepochs = 12\nbatch_size = 32\nlearning_rate = 3e-3\n",
    "worse": "[optimization]\nepochs = 1\nbatch_size = 32\nlearning_rate = 1e-6\n[data]\nmax_examples = 100\n",
}
POLICY = """\
[accuracy]
test = "superiority"
alpha = 0.05
minimum_photos = 300
floor = 0.10
"""


@dataclass(frozen=True)
class World:
    """Both sites after release 1: the serving site serves version 1 and its front end answers."""

    training: Site
    serving: Site
    services: Services
    registry: Registry
    address: str
    photos: tuple[tuple[bytes, str], ...]
    socket: Path

    def is_served(self, release: int, *, version: int) -> bool:
        """Return whether a host has acknowledged that it serves `version` for `release`."""
        records = self.registry.acknowledgements(release)
        return any(record.outcome == "serving" and record.serving_version == version for record in records)

    def train(self, name: str) -> None:
        """Train one of the three models through the playbook."""
        (self.training.folder / f"{name}.toml").write_text(_MODEL + _CONFIGS[name])
        self.training.run("train", "--run-id", name, "--training-config", f"{name}.toml")


def png(array: np.ndarray) -> bytes:
    """Return a digit [8, 8] of 0 to 16 as a grey PNG, 8 times larger than the model takes it."""
    picture = Image.fromarray((array * 15.9).astype(np.uint8)).resize((64, 64), Image.Resampling.NEAREST)
    encoded = io.BytesIO()
    picture.save(encoded, "PNG")
    return encoded.getvalue()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Build the world once; its tests share it and must not depend on each other's order."""
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp("world") / "demo"
    prepare_folder(folder)
    socket = Path(tempfile.mkdtemp(prefix="liftgate-")) / "serving-host-1.sock"
    home = folder / "home"
    home.mkdir()
    training, serving = make_sites(
        folder,
        store={"url": f"dir:{folder / 'bucket'}"},
        environment={"HOME": str(home)},
        inventory=REPOSITORY / "ansible" / "inventories" / "local",
        socket=socket,
        narrator=Narrator(Console(quiet=True)),
    )
    digits = load_digits()
    pictures = [(png(array), str(label)) for array, label in zip(digits.images, digits.target, strict=True)]
    for number, (data, label) in enumerate(pictures):
        place = training.folder / ("photos" if number < TRAINING_DIGITS else "judged") / f"digit-{label}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.png").write_bytes(data)
    (training.folder / "policy.toml").write_text(POLICY)
    training.run("dataset", "freeze-holdout", "--photos", "judged", "--open-share", "0.2")
    training.run("dataset", "build", "--photos", "photos", "--size", "8x8x1", "--no-feedback")
    for name in ("root", "approver", "releaser"):
        training.run("keys", "new", name, "--directory", "keys", "--no-passphrase")
    training.run("keys", "init", "--root", "keys/root", "--approver", "keys/approver", "--releaser", "keys/releaser")
    shutil.copyfile(training.folder / "root.json", serving.folder / "root.json")
    registry = Registry(DirectoryStore(folder / "bucket"), model="photos")
    photos = tuple((data, f"digit-{label}") for data, label in pictures[TRAINING_DIGITS:])
    with Services(serving) as services:
        unfinished = World(training, serving, services, registry, "", photos, socket)
        unfinished.train("first")
        training.run("validate", "first", "--first")
        training.run("approve", "first", "--because", "Nothing is served yet")
        training.run("promote", "first", "--by", "operator")
        start_model_server(services, socket, models_dir=serving.folder / "models")
        services.start("agent")
        services.wait_for("release 1", lambda: unfinished.is_served(1, version=1))
        services.start("web", "--port", "0")
        log = serving.folder / "web.log"
        services.wait_for("the front end", lambda: "READY " in log.read_text())
        address = log.read_text().partition("READY ")[2].split()[0]
        services.wait_for("a ready front end", lambda: answers(f"{address}/readyz"))
        yield World(training, serving, services, registry, address, photos, socket)
    shutil.rmtree(socket.parent)
