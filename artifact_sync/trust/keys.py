"""Key pairs: Ed25519, the private half in an encrypted file, the public half in a record with a name.

Its place in the flow: every signature of trust is made by a `Signer` that a `KeyFile` gave: a
`SigningKey` whose private half lies in the file, or an agent or token that the file refers to.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from pydantic import StringConstraints
from securesystemslib.signer import CryptoSigner, SSlibKey

from artifact_sync.canonical import Record, sha256_hex
from artifact_sync.durable import create_durably
from artifact_sync.errors import AlreadyExistsError, NotFoundError, SettingsError
from artifact_sync.trust.key_reference import KeyReference

PASSPHRASE_VARIABLE = "LIFTGATE_KEY_PASSPHRASE"  # noqa: S105 - the variable's name, not its value

KeyName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
AskPassphrase = Callable[[str], str]
"""Given a sentence for the person, return the passphrase."""


class PublicKey(Record):
    """The public half: who it belongs to, and the 32 bytes of Ed25519 (RFC 8032) in hex."""

    schema_name: ClassVar[str] = "liftgate.public-key/1"
    name: KeyName
    ed25519: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]

    @property
    def key_id(self) -> str:
        """The SHA-256 of the public bytes: what signed metadata calls this key."""
        return sha256_hex(bytes.fromhex(self.ed25519))


class Signer(Protocol):
    """Something that signs as one named key."""

    @property
    def public(self) -> PublicKey:
        """The public half."""
        ...

    def sign(self, payload: bytes) -> str:
        """Return the signature over `payload` in hex."""
        ...


class SigningKey:
    """A private key in memory; it signs and never shows itself."""

    def __init__(self, private: Ed25519PrivateKey, *, name: str) -> None:
        raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
        self.public = PublicKey(name=name, ed25519=raw)
        key = SSlibKey(self.public.key_id, "ed25519", "ed25519", {"public": raw})
        self._signer = CryptoSigner(private, key)

    def __repr__(self) -> str:
        return f"SigningKey(name={self.public.name!r})"

    def sign(self, payload: bytes) -> str:
        """Return the Ed25519 signature over `payload` in hex."""
        signature: str = self._signer.sign(payload).signature
        return signature


@dataclass(frozen=True)
class KeyFile:
    """Where a key lies: `path` holds the private half, `<path>.public.json` the public one.

    The private half is PKCS #8 in PEM, or a KeyReference to an agent or a token that has it.
    """

    path: Path

    @property
    def public_path(self) -> Path:
        """The file of the public half: the one to hand to others."""
        return self.path.with_name(f"{self.path.name}.public.json")

    def create(self, *, name: str, ask_passphrase: AskPassphrase | None) -> SigningKey:
        """Make a new key; `ask_passphrase=None` is the explicit wish to leave it unencrypted.

        Raises:
            AlreadyExistsError: the file exists; keys are never overwritten.
            SettingsError: the passphrase is empty.
        """
        private = Ed25519PrivateKey.generate()
        key = SigningKey(private, name=name)
        self._check_absent()
        encryption: KeySerializationEncryption = NoEncryption()
        if ask_passphrase is not None:
            encryption = BestAvailableEncryption(_passphrase(ask_passphrase, f"New passphrase for key {name}"))
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
        create_durably(self.path, pem, mode=0o600)
        create_durably(self.public_path, key.public.to_json())
        return key

    def create_reference(self, reference: KeyReference, *, name: str) -> PublicKey:
        """Write where the private half is to be found.

        Raises:
            AlreadyExistsError: the file exists; keys are never overwritten.
        """
        self._check_absent()
        public = PublicKey(name=name, ed25519=reference.ed25519)
        create_durably(self.path, reference.to_json(), mode=0o600)
        create_durably(self.public_path, public.to_json())
        return public

    def load(self, *, ask_passphrase: AskPassphrase | None) -> Signer:
        """Read the private key; `ask_passphrase` is called when the file is encrypted, or when a token signs.

        Raises:
            NotFoundError: no such file.
            SettingsError: others may read the file, the passphrase is wrong, or it is no Ed25519 key.
            RecordError: it refers to an agent or a token in a way that cannot be understood.
        """
        data = self._read_private()
        if data.startswith(b"{"):
            reference, public = KeyReference.from_json(data), self.public()
            self._check_pair(reference.ed25519, public)
            return reference.open(public, ask_passphrase=ask_passphrase)
        secret: bytes | None = None
        if b"ENCRYPTED" in data.partition(b"\n")[0]:
            if ask_passphrase is None:
                raise SettingsError(
                    f"Key {self.path} is encrypted and there is no terminal to ask for its passphrase. "
                    f"Set {PASSPHRASE_VARIABLE}."
                )
            secret = _passphrase(ask_passphrase, f"Passphrase for key {self.path.name}")
        try:
            private = load_pem_private_key(data, secret)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise SettingsError(f"Key {self.path} cannot be read: the passphrase is wrong or it is no key.") from None
        if not isinstance(private, Ed25519PrivateKey):
            raise SettingsError(
                f"Key {self.path} is refused: it is not an Ed25519 key. Make one with `liftgate keys new`."
            )
        public = self.public()
        key = SigningKey(private, name=public.name)
        self._check_pair(key.public.ed25519, public)
        return key

    def public(self) -> PublicKey:
        """Read the public half.

        Raises:
            NotFoundError: no such file.
            RecordError: it is malformed.
        """
        try:
            return PublicKey.from_json(self.public_path.read_bytes())
        except FileNotFoundError:
            raise NotFoundError(f"There is no {self.public_path}. Make the key with `liftgate keys new`.") from None

    def _read_private(self) -> bytes:
        try:
            descriptor = os.open(self.path, os.O_RDONLY)
        except FileNotFoundError:
            raise NotFoundError(f"There is no key {self.path}. Make it with `liftgate keys new`.") from None
        with os.fdopen(descriptor, "rb") as stream:
            mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
            if mode & 0o077:
                raise SettingsError(
                    f"Key {self.path} is refused: its mode is {mode:04o}, so others than its owner can reach it. "
                    f"Run `chmod 600 {self.path}`, and make a new key if somebody may have read it."
                )
            return stream.read(64 * 1024)

    def _check_absent(self) -> None:
        if self.path.exists() or self.public_path.exists():
            raise AlreadyExistsError(f"Key {self.path} exists already and is never overwritten. Choose another name.")

    def _check_pair(self, ed25519: str, public: PublicKey) -> None:
        if public.ed25519 != ed25519:
            raise SettingsError(f"Key {self.path} and {self.public_path.name} do not belong together.")


def passphrase_source(environment: Mapping[str, str], *, prompt: AskPassphrase | None) -> AskPassphrase | None:
    """Return where passphrases come from: the environment, else the prompt, else nowhere (None)."""
    value = environment.get(PASSPHRASE_VARIABLE)
    return prompt if value is None else (lambda _: value)


def _passphrase(ask: AskPassphrase, sentence: str) -> bytes:
    passphrase = ask(sentence)
    if not passphrase:
        raise SettingsError("An empty passphrase is refused. Ask for an unencrypted key if that is what you want.")
    return passphrase.encode()
