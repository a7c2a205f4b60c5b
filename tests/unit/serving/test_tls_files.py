"""Certificates and keys are read together, or refused with the file that is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from artifact_sync.errors import SettingsError
from serving.tls_files import TlsFiles


@pytest.fixture
def files(tls_authority: Any, tmp_path: Path) -> TlsFiles:
    authority = tls_authority(tmp_path)
    return TlsFiles(authority.ca_path, *authority.issue("server"))


def test_what_the_files_hold_is_returned_as_it_is(files: TlsFiles) -> None:
    content = files.read()
    assert content.authority == files.ca_path.read_bytes()
    assert (content.certificate, content.key) == (files.certificate_path.read_bytes(), files.key_path.read_bytes())
    assert "PRIVATE" not in repr(content)


def test_an_end_that_shows_no_certificate_needs_only_the_authority(files: TlsFiles) -> None:
    content = TlsFiles(files.ca_path).read()
    assert (content.certificate, content.key) == (None, None)


def test_a_certificate_without_its_key_is_refused(files: TlsFiles) -> None:
    with pytest.raises(SettingsError, match="must both be set"):
        TlsFiles(files.ca_path, certificate_path=files.certificate_path)


def test_a_key_of_another_certificate_is_refused(files: TlsFiles, tls_authority: Any, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    _, key_path = tls_authority(tmp_path / "other").issue("other")
    with pytest.raises(SettingsError, match=r"other\.key is not the key of .*server\.pem"):
        TlsFiles(files.ca_path, files.certificate_path, key_path).read()


def test_a_key_behind_a_passphrase_is_refused(files: TlsFiles) -> None:
    key = load_pem_private_key(files.key_path.read_bytes(), password=None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    files.key_path.write_bytes(locked)
    with pytest.raises(SettingsError, match="no private key in PEM without a passphrase"):
        files.read()


@pytest.mark.parametrize("name", ["ca_path", "certificate_path", "key_path"])
def test_a_file_that_is_missing_or_no_pem_is_named(files: TlsFiles, name: str) -> None:
    path = getattr(files, name)
    path.write_bytes(b"nonsense")
    with pytest.raises(SettingsError, match=f"{path} holds no"):
        files.read()
    path.unlink()
    with pytest.raises(SettingsError, match=f"{path} cannot be read: No such file"):
        files.read()


def test_the_state_changes_with_the_files_and_is_empty_while_one_is_missing(files: TlsFiles) -> None:
    before = files.state
    assert before == files.state != ()
    replaced = files.key_path.with_suffix(".new")
    replaced.write_bytes(files.key_path.read_bytes())
    replaced.replace(files.key_path)
    assert files.state not in ((), before)
    files.key_path.unlink()
    assert files.state == ()
