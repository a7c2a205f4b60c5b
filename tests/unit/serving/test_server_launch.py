"""The launcher becomes the server, after writing what the server reads; or says why not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from artifact_sync.errors import NotFoundError, SettingsError
from serving.server_launch import main


@pytest.fixture
def flags_path(tmp_path: Path, tls_authority: Any) -> Path:
    authority = tls_authority(tmp_path)
    certificate_path, key_path = authority.issue("server")
    tls = {"ca_path": authority.ca_path, "certificate_path": certificate_path, "key_path": key_path}
    values = {
        "config_path": str(tmp_path / "models.config"),
        "files_dir": str(tmp_path / "run"),
        "port": 8500,
        "tls": {name: str(path) for name, path in tls.items()},
    }
    path = tmp_path / "model-server.json"
    path.write_text(json.dumps(values))
    return path


def binary(path: Path, version: str) -> Path:
    """A program that answers --version as the binary does, and otherwise says its process and its arguments."""
    path.write_text(f"""#!/bin/sh
if [ "$1" = --version ]; then echo "TensorFlow ModelServer: {version}"; else echo $$; echo "$@"; fi
""")
    path.chmod(0o755)
    return path


def launch(*arguments: str | Path) -> tuple[int, str, str, int]:
    command = [sys.executable, "-m", "serving.server_launch", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        stdout, stderr = process.communicate()
    return process.returncode, stdout, stderr, process.pid


def test_the_server_takes_the_launchers_process_and_finds_its_files(flags_path: Path, tmp_path: Path) -> None:
    server = binary(tmp_path / "tensorflow_model_server", "2.20.0")
    exit_code, stdout, stderr, pid = launch(flags_path, "--", server)
    assert (exit_code, stderr) == (0, "")
    said_pid, words = stdout.splitlines()
    assert int(said_pid) == pid
    assert words.startswith("--port=8500 --model_config_file=")
    assert f"--ssl_config_file={tmp_path}/run/ssl.config" in words.split()
    assert "PRIVATE" not in words
    assert (tmp_path / "run" / "ssl.config").stat().st_mode & 0o777 == 0o600


def test_a_version_that_is_not_known_is_said_and_started(flags_path: Path, tmp_path: Path) -> None:
    exit_code, stdout, stderr, _ = launch(flags_path, "--", binary(tmp_path / "tensorflow_model_server", "2.21.0"))
    assert exit_code == 0
    assert "newer than 2.20" in stderr
    assert "--port=8500" in stdout


def test_another_command_gets_the_flags_behind_its_own_words(flags_path: Path, tmp_path: Path) -> None:
    exit_code, stdout, stderr, _ = launch(flags_path, "--", binary(tmp_path / "podman", "0"), "run", "--rm", "image")
    assert (exit_code, stderr) == (0, "")
    assert "run --rm image --port=8500" in stdout


def test_files_can_be_given_to_the_user_of_a_container(flags_path: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    exit_code, _, stderr, _ = launch("--owner", "nobody", flags_path, "--", binary(tmp_path / "podman", "0"))
    assert (exit_code, stderr) == (0, "")
    assert (tmp_path / "run" / "ssl.config").owner() == "nobody"
    exit_code, _, stderr, _ = launch("--owner", "who", flags_path, "--", "/bin/true")
    assert exit_code == SettingsError.exit_code
    assert "there is no user 'who'" in stderr


def test_a_check_writes_nothing_and_looks_at_the_certificates(
    flags_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--check", str(flags_path)]) == 0
    assert not (tmp_path / "run").exists()
    (tmp_path / "server.key").unlink()
    assert main(["--check", str(flags_path)]) == SettingsError.exit_code
    assert "server.key cannot be read" in capsys.readouterr().err


def test_preparing_makes_the_start_up_file_alone(flags_path: Path, tmp_path: Path) -> None:
    assert main(["--prepare", str(flags_path)]) == 0
    assert (tmp_path / "models.config").read_text() == "model_config_list {\n}\n"
    assert not (tmp_path / "run").exists()


def test_a_server_that_is_not_there_is_said(
    flags_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(flags_path), "--", str(tmp_path / "nothing")]) == NotFoundError.exit_code
    assert "cannot be started: No such file" in capsys.readouterr().err


def test_flags_that_are_refused_start_nothing(
    flags_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags_path.write_text(json.dumps({"config_path": str(tmp_path / "models.config"), "port": 8500}))
    assert main([str(flags_path), "--", "/bin/true"]) == SettingsError.exit_code
    assert "open on every address" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_command_must_be_named(flags_path: Path) -> None:
    with pytest.raises(SystemExit):
        main([str(flags_path)])
