"""Keys that lie elsewhere, signed with for real: OpenSSH's agent and SoftHSM's token.

Each act is a process of its own, as it is for people: a token's library shares no process with TensorFlow, whose
copies of OpenSSL's names it would call.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SOFTHSM = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN = "491625"
SIGN = """
import json, os, sys
from pathlib import Path
from artifact_sync.errors import SettingsError
from artifact_sync.trust.keys import KeyFile, passphrase_source
file = KeyFile(Path(sys.argv[1]))
try:
    signer = file.load(ask_passphrase=passphrase_source(os.environ, prompt=None))
    signatures = [signer.sign(b"x" * int(size)) for size in sys.argv[2:]]
except SettingsError as error:
    sys.exit(str(error))
assert signer.public == file.public()
print(json.dumps({"public": signer.public.ed25519, "signatures": signatures, "shown": repr(signer)}))
"""


@dataclass(frozen=True)
class Place:
    """Somewhere that keeps the key "alice", and the words that tell `keys new` of it."""

    words: tuple[str, ...]
    pin: str | None


def run(*command: str | Path, pin: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "LIFTGATE_KEY_PASSPHRASE"}
    if pin is not None:
        environment["LIFTGATE_KEY_PASSPHRASE"] = pin
    words = [sys.executable, *map(str, command)]
    return subprocess.run(words, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL, check=False)


def sign(key: Path, *sizes: int, pin: str | None = None) -> subprocess.CompletedProcess[str]:
    return run("-c", SIGN, key, *map(str, sizes), pin=pin)


def keys_new(folder: Path, *words: str, name: str = "alice") -> subprocess.CompletedProcess[str]:
    return run("-m", "liftgate", "keys", "new", name, "--directory", folder, *words)


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
    assert made.returncode == 0, made.stderr
    assert b"PRIVATE" not in (tmp_path / "alice").read_bytes()
    done = sign(tmp_path / "alice", 0, 17_000, pin=place.pin)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(said["public"]))
    for size, signature in zip((0, 17_000), said["signatures"], strict=True):
        key.verify(bytes.fromhex(signature), b"x" * size)
    assert PIN not in said["shown"]


def test_a_token_without_its_pin_says_what_is_missing(token: Place, tmp_path: Path) -> None:
    keys_new(tmp_path, *token.words)
    assert "needs its PIN and there is no terminal" in sign(tmp_path / "alice", 1).stderr
    refused = sign(tmp_path / "alice", 1, pin="000000")
    assert "refused the PIN" in refused.stderr
    assert "000000" not in refused.stderr


def test_a_key_that_is_not_there_is_said_to_be_missing(token: Place, tmp_path: Path) -> None:
    missing = keys_new(tmp_path, *token.words, name="bob")
    assert (missing.returncode, "does not have key 'bob'" in missing.stderr) == (2, True), missing.stderr
    nowhere = keys_new(tmp_path, "--pkcs11-module", "/nowhere.so", "--token", "x")
    assert (nowhere.returncode, "/nowhere.so cannot be used" in nowhere.stderr) == (2, True), nowhere.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_agent_that_lost_the_key_or_is_gone_refuses_by_name(
    agent: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys_new(tmp_path, *agent.words)
    subprocess.run(["ssh-add", "-q", "-D"], check=True, capture_output=True)
    assert "does not hold the key of alice" in sign(tmp_path / "alice", 1).stderr
    monkeypatch.delenv("SSH_AUTH_SOCK")
    assert "SSH_AUTH_SOCK is not set" in sign(tmp_path / "alice", 1).stderr


def test_an_unknown_comment_lists_what_the_agent_holds(agent: Place, tmp_path: Path) -> None:
    refused = keys_new(tmp_path, "--ssh-agent", "somebody-else")
    assert refused.returncode == 2
    assert "alice@laptop" in refused.stderr
    # The key of another kind cannot sign what hosts verify, so it is not offered.
    assert "elliptic" not in refused.stderr
