"""The files of one end of a TLS connection: the authority, the certificate and its private key.

Its place in the flow: the client of a model server reads its own through here, and so does what
renders the server's SSL file; both refuse a pair that does not belong together before anything is
connected or written.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from artifact_sync.errors import SettingsError

FileState = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, repr=False)
class TlsContent:
    """What the files hold, as PEM; certificate and key are None for an end that shows none."""

    authority: bytes
    certificate: bytes | None = None
    key: bytes | None = None


@dataclass(frozen=True)
class TlsFiles:
    """Where the PEM files lie. They are read when a connection or a file is made of them, never before.

    Args:
        ca_path: the certificates of the authorities that the other end is believed from.
        certificate_path: the certificate that is shown to the other end, with what leads to the authority.
        key_path: its private key, without a passphrase, readable by this user alone.
    """

    ca_path: Path
    certificate_path: Path | None = None
    key_path: Path | None = None

    def __post_init__(self) -> None:
        if (self.certificate_path is None) != (self.key_path is None):
            raise SettingsError(
                "TLS refused: certificate_path and key_path must both be set, or neither; "
                f"found {self.certificate_path} and {self.key_path}."
            )

    @property
    def state(self) -> FileState:
        """What changes when a file is replaced or written to; empty while one of them is missing."""
        try:
            found = [path.stat() for path in self._paths]
        except OSError:
            return ()
        return tuple((each.st_ino, each.st_mtime_ns, each.st_size) for each in found)

    def read(self) -> TlsContent:
        """Return what the files hold.

        Raises:
            SettingsError: a file is missing or no PEM, or the key is not the certificate's.
        """
        authority = _bytes(self.ca_path)
        _certificates(authority, self.ca_path)
        if self.certificate_path is None or self.key_path is None:
            return TlsContent(authority)
        certificate, key = _bytes(self.certificate_path), _bytes(self.key_path)
        shown = _certificates(certificate, self.certificate_path)[0].public_key()
        if _public_key(key, self.key_path) != shown.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo):
            raise SettingsError(
                f"TLS refused: {self.key_path} is not the key of {self.certificate_path}. "
                "Put a certificate and its key there together."
            )
        return TlsContent(authority, certificate, key)

    @property
    def _paths(self) -> tuple[Path, ...]:
        return tuple(path for path in (self.ca_path, self.certificate_path, self.key_path) if path is not None)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"TLS refused: {path} cannot be read: {error.strerror}.") from None


def _certificates(pem: bytes, path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise SettingsError(f"TLS refused: {path} holds no certificate in PEM.") from None


def _public_key(pem: bytes, path: Path) -> bytes:
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):
        # TypeError is what a key behind a passphrase gives.
        raise SettingsError(f"TLS refused: {path} holds no private key in PEM without a passphrase.") from None
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
