"""Signing with a key on a PKCS #11 token (a smart card, a YubiHSM, SoftHSM): it never leaves the token.

Its place in the flow: KeyReference opens it. The mechanism is CKM_EDDSA (PKCS #11 3.0, section 2.3.14)
over an Ed25519 key; hosts verify the signature like any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from artifact_sync.errors import SettingsError
from artifact_sync.trust.keys import PASSPHRASE_VARIABLE, AskPassphrase, PublicKey

if TYPE_CHECKING:
    from artifact_sync.trust.key_reference import KeyReference


class TokenSigner:
    """Signs as one named key on a token; the PIN is asked for once and kept in memory only."""

    def __init__(self, public: PublicKey, *, reference: KeyReference, ask_passphrase: AskPassphrase | None) -> None:
        self.public = public
        self._reference = reference
        self._ask_passphrase = ask_passphrase
        self._pin: str | None = None

    def __repr__(self) -> str:
        return f"TokenSigner(name={self.public.name!r})"

    def sign(self, payload: bytes) -> str:
        """Return the Ed25519 signature over `payload` in hex.

        Raises:
            SettingsError: the module, the token or the key is not there, or the PIN is wrong.
        """
        reference = self._reference
        assert reference.module is not None, "a reference to a token names its module"
        with _errors(reference.module, what=f"the key of {self.public.name}"):
            import pkcs11

            token = _token(reference.module, label=str(reference.token))
            with token.open(user_pin=self._asked_pin(str(reference.token))) as session:
                key = session.get_key(object_class=pkcs11.ObjectClass.PRIVATE_KEY, label=reference.object)
                signature = bytes(key.sign(payload, mechanism=pkcs11.Mechanism.EDDSA))
        return signature.hex()

    def _asked_pin(self, token: str) -> str:
        if self._pin is None:
            if self._ask_passphrase is None:
                raise SettingsError(
                    f"Token {token} needs its PIN and there is no terminal to ask for it. Set {PASSPHRASE_VARIABLE}."
                )
            self._pin = self._ask_passphrase(f"PIN of token {token}")
        return self._pin


def token_key(module: Path, *, token: str, label: str) -> str:
    """Return the public half (32 bytes in hex) of a key on a token; public keys need no PIN.

    Raises:
        SettingsError: the module, the token or the key is not there, or it is no Ed25519 key.
    """
    with _errors(module, what=f"key {label!r}"):
        import pkcs11

        with _token(module, label=token).open() as session:
            key = session.get_key(object_class=pkcs11.ObjectClass.PUBLIC_KEY, label=label)
            if key.key_type != pkcs11.KeyType.EC_EDWARDS:
                raise SettingsError(f"Key {label!r} on token {token} is refused: it is no Ed25519 key.")
            # A DER octet string of 32 bytes: two bytes of tag and length before them.
            point = bytes(key[pkcs11.Attribute.EC_POINT])
    if len(point) not in {32, 34}:
        raise SettingsError(f"Key {label!r} on token {token} is refused: it is no Ed25519 key.")
    return point[-32:].hex()


def _token(module: Path, *, label: str) -> Any:
    import pkcs11

    return pkcs11.lib(str(module)).get_token(token_label=label)


@contextmanager
def _errors(module: Path, *, what: str) -> Iterator[None]:
    try:
        import pkcs11
        from pkcs11 import exceptions
    except ImportError:
        raise SettingsError("A PKCS #11 token needs python-pkcs11: `pip install 'liftgate[pkcs11]'`.") from None
    try:
        yield
    except (exceptions.PinIncorrect, exceptions.PinInvalid, exceptions.PinLenRange):
        raise SettingsError(f"The token of {module} refused the PIN. After a few wrong ones it locks itself.") from None
    except pkcs11.NoSuchToken:
        raise SettingsError(
            f"There is no such token in {module}. `pkcs11-tool --module {module} -L` lists them."
        ) from None
    except pkcs11.NoSuchKey:
        raise SettingsError(
            f"The token of {module} does not have {what}. `pkcs11-tool … -O` lists what it has."
        ) from None
    except (pkcs11.PKCS11Error, RuntimeError, OSError) as error:
        reason = str(error) or type(error).__name__
        raise SettingsError(f"The token of {module} cannot be used ({reason}).") from None
