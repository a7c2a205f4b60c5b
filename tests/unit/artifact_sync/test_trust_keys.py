from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from artifact_sync.errors import AlreadyExistsError, NotFoundError, SettingsError
from artifact_sync.trust.keys import KeyFile, PublicKey, SigningKey, passphrase_source

SECRET = "correct horse"


def ask(_: str) -> str:
    return SECRET


@pytest.fixture
def key_file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "keys" / "alice.pem")


def test_a_key_is_encrypted_private_and_signs_after_loading(key_file: KeyFile) -> None:
    made = key_file.create(name="alice", ask_passphrase=ask)
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in key_file.path.read_bytes()
    assert stat.S_IMODE(key_file.path.stat().st_mode) == 0o600
    loaded = key_file.load(ask_passphrase=ask)
    assert loaded.public == made.public == key_file.public()
    assert loaded.sign(b"payload") == made.sign(b"payload")


def test_a_key_never_shows_itself(key_file: KeyFile) -> None:
    key = key_file.create(name="alice", ask_passphrase=None)
    assert repr(key) == "SigningKey(name='alice')"
    assert "PRIVATE" not in key_file.public_path.read_text()


def test_an_unencrypted_key_asks_nobody(key_file: KeyFile) -> None:
    key_file.create(name="alice", ask_passphrase=None)
    assert key_file.load(ask_passphrase=None).public.name == "alice"


def test_a_key_is_never_overwritten(key_file: KeyFile) -> None:
    key_file.create(name="alice", ask_passphrase=None)
    before = key_file.path.read_bytes()
    with pytest.raises(AlreadyExistsError, match="never overwritten"):
        key_file.create(name="alice", ask_passphrase=None)
    assert key_file.path.read_bytes() == before


def test_a_wrong_passphrase_is_told(key_file: KeyFile) -> None:
    key_file.create(name="alice", ask_passphrase=ask)
    with pytest.raises(SettingsError, match="passphrase is wrong") as caught:
        key_file.load(ask_passphrase=lambda _: "wrong battery")
    assert "battery" not in str(caught.value)


def test_without_a_terminal_the_variable_is_named(key_file: KeyFile) -> None:
    key_file.create(name="alice", ask_passphrase=ask)
    with pytest.raises(SettingsError, match="Set LIFTGATE_KEY_PASSPHRASE"):
        key_file.load(ask_passphrase=None)


def test_an_empty_passphrase_is_refused_and_nothing_is_left(key_file: KeyFile) -> None:
    with pytest.raises(SettingsError, match="empty passphrase"):
        key_file.create(name="alice", ask_passphrase=lambda _: "")
    assert not key_file.path.exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_key_that_others_can_reach_is_refused(key_file: KeyFile, mode: int) -> None:
    key_file.create(name="alice", ask_passphrase=None)
    key_file.path.chmod(mode)
    with pytest.raises(SettingsError, match="chmod 600"):
        key_file.load(ask_passphrase=None)


def test_a_missing_key_is_told_with_the_way_to_make_one(key_file: KeyFile) -> None:
    with pytest.raises(NotFoundError, match="liftgate keys new"):
        key_file.load(ask_passphrase=None)


def test_another_kind_of_key_is_refused(key_file: KeyFile) -> None:
    key_file.create(name="alice", ask_passphrase=None)
    rsa = generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    key_file.path.write_bytes(rsa)
    with pytest.raises(SettingsError, match="not an Ed25519 key"):
        key_file.load(ask_passphrase=None)


def test_halves_that_do_not_belong_together_are_refused(key_file: KeyFile, tmp_path: Path) -> None:
    key_file.create(name="alice", ask_passphrase=None)
    other = KeyFile(tmp_path / "other.pem")
    other.create(name="alice", ask_passphrase=None)
    key_file.public_path.write_bytes(other.public_path.read_bytes())
    with pytest.raises(SettingsError, match="do not belong together"):
        key_file.load(ask_passphrase=None)


def test_the_environment_goes_before_the_prompt() -> None:
    source = passphrase_source({"LIFTGATE_KEY_PASSPHRASE": "from outside"}, prompt=ask)
    assert source is not None
    assert source("?") == "from outside"
    assert passphrase_source({}, prompt=ask) is ask
    assert passphrase_source({}, prompt=None) is None


def test_a_public_key_survives_its_own_bytes(key_file: KeyFile) -> None:
    public = key_file.create(name="alice", ask_passphrase=None).public
    assert PublicKey.from_json(public.to_json()) == public
    assert isinstance(key_file.load(ask_passphrase=None), SigningKey)
