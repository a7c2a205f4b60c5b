from __future__ import annotations

from pathlib import Path

import pytest

from artifact_sync.errors import SettingsError
from liftgate.configuration import load_settings

COMPLETE = """\
model = "photos"
[store]
url = "s3://models/liftgate"
region = "eu-central-1"
[trust]
metadata_dir = "trust"
root_path = "/etc/liftgate/root.json"
[keys]
root = ["keys/a", "/keys/b"]
[web]
port = 8080
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "liftgate.toml"
    path.write_text(text)
    return path


def test_a_file_is_read_and_relative_paths_are_relative_to_it(tmp_path: Path) -> None:
    settings = load_settings(written(tmp_path, COMPLETE), environment={})
    assert settings.model == "photos"
    assert settings.trust is not None
    assert settings.trust.metadata_dir == tmp_path / "trust"
    assert settings.trust.root_path == Path("/etc/liftgate/root.json")
    assert settings.keys.root == (tmp_path / "keys/a", Path("/keys/b"))
    assert settings.web.port == 8080


def test_the_environment_goes_before_the_file(tmp_path: Path) -> None:
    environment = {"LIFTGATE_STORE__URL": "dir:/bucket", "LIFTGATE_WEB__PORT": "9090", "LIFTGATE_MODEL": "birds"}
    settings = load_settings(written(tmp_path, COMPLETE), environment=environment)
    assert settings.store is not None
    assert (settings.store.url, settings.web.port, settings.model) == ("dir:/bucket", 9090, "birds")
    assert settings.store.region == "eu-central-1"


def test_variables_of_other_things_are_no_settings(tmp_path: Path) -> None:
    environment = {"LIFTGATE_KEY_PASSPHRASE": "secret", "LIFTGATE_TRACEBACK": "1", "HOME": "/root"}
    assert load_settings(written(tmp_path, COMPLETE), environment=environment).model == "photos"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('model = "photos"\n[stroe]\nurl = "x"', r"Unknown setting stroe .*Did you mean store\?"),
        ('model = "photos"\n[web]\nprot = 1', r"Unknown setting web\.prot .*Did you mean web\.port\?"),
        ('model = "photos"\n[web]\nxyzzy = 1', r"Unknown setting web\.xyzzy .*Known keys: .*port"),
        ('model = "photos"\n[web]\nport = "many"', r"Setting web\.port refused .*found 'many'"),
        ('model = "Not A Name"', r"Setting model refused"),
        ("", r"Setting model refused .*Field required"),
        ("model = ", r"is not TOML"),
        ('model = "photos"\n[store]\nurl = "dir:relative"', r"is relative, so it would mean another place"),
        ('model = "photos"\n[store]\nurl = "ftp://x"', r"is of no known form"),
    ],
)
def test_what_is_wrong_is_named_with_the_way_out(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_settings(written(tmp_path, text), environment={})


def test_an_unknown_variable_is_refused_too(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"Unknown setting store\.ulr .*Did you mean store\.url\?"):
        load_settings(written(tmp_path, COMPLETE), environment={"LIFTGATE_STORE__ULR": "dir:/x"})


def test_no_file_says_how_to_name_one(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"No settings file at .*--config or LIFTGATE_CONFIG"):
        load_settings(tmp_path / "none.toml", environment={})
    named = {"LIFTGATE_CONFIG": str(written(tmp_path, COMPLETE))}
    assert load_settings(None, environment=named).model == "photos"
