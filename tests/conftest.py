"""What holds for every test: marks come from the folder, HOME is empty, no TensorFlow chatter; and shared fixtures."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

_TESTS = Path(__file__).parent
_REPOSITORY = _TESTS.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with the name of its folder under tests/."""
    for item in items:
        folder = item.path.relative_to(_TESTS).parts[0]
        if (_TESTS / folder).is_dir():
            item.add_marker(folder)


class _GroupScheduling(LoadScopeScheduling):
    """Gives tests that share something dear to one worker, one after another.

    That is a whole folder's machines, world or servers, or else a module's server, models or browser. The marks
    of xdist are not read by its version 3.8 beside pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        path = Path(nodeid.partition("::")[0])
        if path.parts[1] in ("unit", "faults"):
            return nodeid
        shares_folder = path.parts[1] == "e2e" or path.parent.name in ("hosts", "serving")
        return (path.parent if shares_folder else path).as_posix()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
    """Schedule whole groups where the command line asks for groups."""
    return _GroupScheduling(config, log) if config.getvalue("dist") == "loadgroup" else None


@pytest.fixture(autouse=True)
def isolated_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test an empty HOME and no LIFTGATE_ or AWS_ settings of the person who runs it."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    for name in list(os.environ):
        if name.startswith(("LIFTGATE_", "AWS_", "XDG_")):
            monkeypatch.delenv(name)
    return home


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the source tree."""
    return _REPOSITORY


def _load(name: str) -> ModuleType:
    """Load tests/<name>.py: with importmode=importlib the tests folder is on no path."""
    if name not in sys.modules:
        path = _TESTS / f"{name}.py"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        # Set before it runs: dataclasses look their module up by name.
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


SignedSite = _load("signed_site").SignedSite
EmergencySite = _load("emergency_site").EmergencySite
# Imported by name in tests/faults; site_sweep imports kill_lab and soak.
for _name in ("soak", "kill_lab", "site_sweep", "race_lab"):
    _load(_name)


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """A directory where nothing waits for a disk: these tests are about order and signatures."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
        yield Path(directory)


@pytest.fixture
def site(memory_path: Path) -> SignedSite:
    """A site where one of alice and bob must approve, with nothing released."""
    return SignedSite(memory_path).initialise()


@pytest.fixture
def emergency_site(memory_path: Path) -> EmergencySite:
    """The same with a break-glass key."""
    return EmergencySite(memory_path).initialise()


@pytest.fixture
def strict_site(memory_path: Path) -> SignedSite:
    """A site where both alice and bob must approve."""
    return SignedSite(memory_path, threshold=2).initialise()


@pytest.fixture(scope="session")
def training_lab() -> ModuleType:
    """The module tests/training_lab.py."""
    return _load("training_lab")


@pytest.fixture(scope="session")
def digits_dir(training_lab: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset folder with scikit-learn's digits."""
    directory: Path = tmp_path_factory.mktemp("digits") / "dataset"
    training_lab.write_digits(directory)
    return directory


@pytest.fixture
def training(training_lab: ModuleType, digits_dir: Path, tmp_path: Path) -> Any:
    """A quick training of the digits, into runs of its own."""
    config_path = tmp_path / "training.toml"
    config_path.write_text(training_lab.QUICK)
    return training_lab.Training(digits_dir, config_path, tmp_path / "runs")


@pytest.fixture(scope="session")
def photo_tools() -> ModuleType:
    """The module tests/photo_corpus.py: `picture`, `encoded`, `exif` and more."""
    return _load("photo_corpus")


@pytest.fixture(scope="session")
def corpus(photo_tools: ModuleType) -> tuple[Any, ...]:
    """Every kind of photo, good and hostile."""
    kinds: tuple[Any, ...] = photo_tools.photo_corpus()
    return kinds


@pytest.fixture(scope="session")
def grpc_lab() -> ModuleType:
    """The module tests/grpc_lab.py."""
    return _load("grpc_lab")


@pytest.fixture(scope="session")
def tls_authority() -> ModuleType:
    """The module tests/tls_authority.py."""
    return _load("tls_authority")


@pytest.fixture(scope="session")
def report_samples() -> ModuleType:
    """The module tests/report_samples.py."""
    return _load("report_samples")


@pytest.fixture(scope="session")
def ledger_lab() -> ModuleType:
    """The module tests/ledger_lab.py."""
    return _load("ledger_lab")


@pytest.fixture(scope="session")
def hostile_kinds() -> ModuleType:
    """The module tests/hostile_models.py."""
    return _load("hostile_models")
