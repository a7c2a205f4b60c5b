"""The files that a model server reads: rendered from messages, written for the right eyes."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format

from artifact_sync.errors import SettingsError
from serving.model_server import ModelConfig, model_config_text
from serving.protos import tfs_pb2
from serving.server_files import (
    batching_text,
    file_of,
    monitoring_text,
    ssl_text,
    write_server_files,
    write_start_config,
)
from serving.server_flags import ServerFlags
from serving.tls_files import TlsContent, TlsFiles


@pytest.fixture
def flags(tmp_path: Path) -> ServerFlags:
    return ServerFlags(
        config_path=tmp_path / "models.config",
        files_dir=tmp_path / "run",
        socket_path=Path("/run/liftgate/server.sock"),
    )


def test_monitoring_is_rendered_as_the_binarys_message() -> None:
    assert monitoring_text("/m") == 'prometheus_config {\n  enable: true\n  path: "/m"\n}\n'


def test_batching_is_rendered_with_its_wrappers() -> None:
    parameters = tfs_pb2.BatchingParameters(max_batch_size={"value": 8}, allowed_batch_sizes=[4, 8])
    assert batching_text(parameters) == (
        "max_batch_size {\n  value: 8\n}\nallowed_batch_sizes: 4\nallowed_batch_sizes: 8\n"
    )
    with pytest.raises(SettingsError, match="must be the largest batch"):
        batching_text(tfs_pb2.BatchingParameters(max_batch_size={"value": 8}, allowed_batch_sizes=[4]))


def test_ssl_holds_the_pem_texts_and_asks_clients_for_a_certificate(tls_authority: Any, tmp_path: Path) -> None:
    authority = tls_authority(tmp_path)
    certificate_path, key_path = authority.issue("server")
    text = ssl_text(TlsFiles(authority.ca_path, certificate_path, key_path).read())
    message = text_format.Parse(text, tfs_pb2.SSLConfig())
    assert message.client_verify
    assert message.server_key == key_path.read_text()
    assert message.server_cert == certificate_path.read_text()
    assert message.custom_ca == authority.ca_path.read_text()
    with pytest.raises(SettingsError, match="needs a certificate and its key"):
        ssl_text(TlsContent(authority.ca_path.read_bytes()))


def test_the_start_up_file_is_made_once_and_then_the_agents(flags: ServerFlags) -> None:
    write_start_config(flags)
    assert flags.config_path.read_text() == model_config_text(())
    kept = model_config_text((ModelConfig("shapes", "/models/shapes", (1,), {"stable": 1}),))
    flags.config_path.write_text(kept)
    write_start_config(flags)
    assert flags.config_path.read_text() == kept


def test_only_what_is_asked_for_is_written(flags: ServerFlags) -> None:
    assert write_server_files(flags) == ()
    assert not flags.files_dir.exists()


def test_a_folder_that_is_not_ours_is_named(flags: ServerFlags) -> None:
    flags.files_dir.write_text("a file")
    with pytest.raises(SettingsError, match=r"monitoring\.config cannot be written: .* Set files_dir"):
        write_server_files(replace(flags, has_metrics=True, rest_port=8501))


def test_the_file_with_the_private_key_is_readable_by_its_owner_alone(
    flags: ServerFlags, tls_authority: Any, tmp_path: Path
) -> None:
    authority = tls_authority(tmp_path)
    whole = replace(
        flags,
        tls=TlsFiles(authority.ca_path, *authority.issue("server")),
        batching=tfs_pb2.BatchingParameters(max_batch_size={"value": 8}),
        has_metrics=True,
        rest_port=8501,
    )
    before = os.umask(0o000)
    try:
        written = write_server_files(whole)
    finally:
        os.umask(before)
    assert written == tuple(file_of(whole, name) for name in ("monitoring", "batching", "ssl"))
    modes = [path.stat().st_mode & 0o777 for path in written]
    assert modes == [0o640, 0o640, 0o600]
    assert "/monitoring/prometheus/metrics" in file_of(whole, "monitoring").read_text()


def test_nothing_is_rendered_from_a_key_of_another_certificate(
    flags: ServerFlags, tls_authority: Any, tmp_path: Path
) -> None:
    authority = tls_authority(tmp_path)
    certificate_path, _ = authority.issue("server")
    _, key_path = authority.issue("another")
    mixed = replace(flags, tls=TlsFiles(authority.ca_path, certificate_path, key_path))
    with pytest.raises(SettingsError, match="is not the key of"):
        write_server_files(mixed)
    assert not file_of(mixed, "ssl").exists()
