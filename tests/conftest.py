"""What holds for every test: marks come from the folder, HOME is empty, no TensorFlow chatter."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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
        # Tests that share machines or a whole world run in one worker, one after another.
        if folder == "e2e" or "hosts" in item.path.parts:
            item.add_marker(pytest.mark.xdist_group(item.path.parent.name))


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
