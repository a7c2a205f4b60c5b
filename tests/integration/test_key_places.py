"""Keys that lie elsewhere, signed with for real: OpenSSH's agent and SoftHSM's token."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from artifact_sync.errors import SettingsError
from artifact_sync.trust.keys import KeyFile, PublicKey
from liftgate.cli import liftgate

SOFTHSM = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN = "491625"


@dataclass(frozen=True)
class Place:
    """Somewhere that keeps the key "alice", and the words that tell `keys new` of it."""

    words: tuple[str, ...]
    pin: str | None


def verify(public: PublicKey, payload: bytes, signature: str) -> None:
    Ed25519PublicKey.from_public_bytes(bytes.fromhex(public.ed25519)).verify(bytes.fromhex(signature), payload)


def keys_new(folder: Path, *words: str) -> Result:
    return CliRunner().invoke(liftgate, ["keys", "new", "alice", "--directory", str(folder), *words])


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """An agent of OpenSSH that holds alice's key and an older one of another kind."""
    socket = f"/tmp/liftgate-agent-{os.getpid()}.sock"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL)
    monkeypatch.setenv("SSH_AUTH_SOCK", socket)
    try:
        for kind, comment in (("ecdsa", "elliptic"), ("ed25519", "alice@laptop")):
            path = tmp_path / comment
            subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", comment, "-f", path], check=True)
            for _ in range(100):
                if subprocess.run(["ssh-add", "-q", path], check=False, capture_output=True).returncode == 0:
                    break
        yield Place(("--ssh-agent", "alice@laptop"), None)
    finally:
        process.terminate()
        process.wait()
        Path(socket).unlink(missing_ok=True)


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A token of SoftHSM with an Ed25519 key made on it; a process loads the library, and its settings, once."""
    if not SOFTHSM.exists() or shutil.which("pkcs11-tool") is None:
        pytest.skip("SoftHSM and opensc are not installed: run `make system`")
    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder / 'tokens'}\nlog.level = ERROR\n")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SOFTHSM2_CONF", str(folder / "softhsm2.conf"))
        words = ("--init-token", "--free", "--label", "approvals", "--pin", PIN, "--so-pin", "77777777")
        subprocess.run(["softhsm2-util", *words], check=True, capture_output=True)
        login = ("--module", SOFTHSM, "--token-label", "approvals", "--login", "--pin", PIN)
        generate = ("--keypairgen", "--key-type", "EC:edwards25519", "--label", "alice")
        subprocess.run(["pkcs11-tool", *login, *generate], check=True, capture_output=True)
        yield Place(("--pkcs11-module", str(SOFTHSM), "--token", "approvals"), PIN)


@pytest.fixture(params=["agent", "token"])
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.getfixturevalue(request.param)
    return found


def test_a_key_file_that_points_elsewhere_signs_as_any_other(place: Place, tmp_path: Path) -> None:
    made = keys_new(tmp_path, *place.words)
    assert made.exit_code == 0, made.output
    file = KeyFile(tmp_path / "alice")
    assert b"PRIVATE" not in file.path.read_bytes()
    signer = file.load(ask_passphrase=None if place.pin is None else lambda _: PIN)
    for payload in (b"", b"a list of versions" * 1000):
        verify(signer.public, payload, signer.sign(payload))
    assert signer.public == file.public()
    assert PIN not in repr(signer) + repr(vars(signer).get("_reference"))


def test_a_token_without_its_pin_says_what_is_missing(token: Place, tmp_path: Path) -> None:
    keys_new(tmp_path, *token.words)
    file = KeyFile(tmp_path / "alice")
    with pytest.raises(SettingsError, match="needs its PIN and there is no terminal"):
        file.load(ask_passphrase=None).sign(b"x")
    with pytest.raises(SettingsError, match="refused the PIN") as refused:
        file.load(ask_passphrase=lambda _: "000000").sign(b"x")
    assert "000000" not in str(refused.value)


def test_a_key_that_is_not_there_is_said_to_be_missing(token: Place, tmp_path: Path) -> None:
    missing = CliRunner().invoke(liftgate, ["keys", "new", "bob", "--directory", str(tmp_path), *token.words])
    assert isinstance(missing.exception, SettingsError)
    assert "does not have key 'bob'" in str(missing.exception)
    nowhere = CliRunner().invoke(
        liftgate,
        ["keys", "new", "alice", "--directory", str(tmp_path), "--pkcs11-module", "/nowhere.so", "--token", "x"],
    )
    assert isinstance(nowhere.exception, SettingsError)
    assert "/nowhere.so cannot be used" in str(nowhere.exception)
    assert not (tmp_path / "alice").exists()


def test_an_agent_that_lost_the_key_or_is_gone_refuses_by_name(
    agent: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys_new(tmp_path, *agent.words)
    signer = KeyFile(tmp_path / "alice").load(ask_passphrase=None)
    subprocess.run(["ssh-add", "-q", "-D"], check=True, capture_output=True)
    with pytest.raises(SettingsError, match="does not hold the key of alice"):
        signer.sign(b"x")
    monkeypatch.delenv("SSH_AUTH_SOCK")
    with pytest.raises(SettingsError, match="SSH_AUTH_SOCK is not set"):
        signer.sign(b"x")


def test_an_unknown_comment_lists_what_the_agent_holds(agent: Place, tmp_path: Path) -> None:
    refused = keys_new(tmp_path, "--ssh-agent", "somebody-else")
    assert isinstance(refused.exception, SettingsError)
    assert "alice@laptop" in str(refused.exception)
    # The key of another kind cannot sign what hosts verify, so it is not offered.
    assert "elliptic" not in str(refused.exception)
