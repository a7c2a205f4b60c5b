"""The balancer's health check: what it sends is a gRPC question, what it looks for is an AVAILABLE version."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from serving.protos import tfs_pb2

_ROLE = Path(__file__).parents[3] / "ansible" / "roles" / "model_balancer"


@pytest.fixture(scope="module")
def question() -> Callable[..., str]:
    path = _ROLE / "filter_plugins" / "model_status_question.py"
    spec = importlib.util.spec_from_file_location("model_status_question", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.FilterModule().filters()["model_status_question"]


@pytest.fixture(scope="module")
def expected() -> re.Pattern[str]:
    template = (_ROLE / "templates" / "haproxy.cfg.j2").read_text()
    (pattern,) = re.findall(r"tcp-check expect rbinary (\S+)", template)
    return re.compile(pattern)


def frames(data: bytes) -> list[tuple[int, int, int, bytes]]:
    found = []
    while data:
        length, kind, flags = int.from_bytes(data[:3], "big"), data[3], data[4]
        found.append((kind, flags, int.from_bytes(data[5:9], "big"), data[9 : 9 + length]))
        assert len(data) >= 9 + length
        data = data[9 + length :]
    return found


@pytest.mark.parametrize("model", ["a", "flowers-2", "x" * 63])
def test_the_question_is_settings_headers_and_one_whole_message(question: Callable[..., str], model: str) -> None:
    data = bytes.fromhex(question(model))
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    assert data.startswith(preface)
    settings, headers, body = frames(data.removeprefix(preface))
    assert settings == (4, 0, 0, b"")
    assert headers[:3] == (1, 4, 1)
    for text in (b"/tensorflow.serving.ModelService/GetModelStatus", b"application/grpc", b"trailers"):
        assert bytes([len(text)]) + text in headers[3]
    assert body[:3] == (0, 1, 1)
    assert body[3][:5] == b"\x00" + (len(body[3]) - 5).to_bytes(4, "big")
    asked = tfs_pb2.GetModelStatusRequest.FromString(body[3][5:])
    assert asked.model_spec.name == model
    assert question(model, is_encrypted=False) != question(model, is_encrypted=True)


def test_a_name_that_would_not_fit_is_refused(question: Callable[..., str]) -> None:
    with pytest.raises(ValueError, match="too long for a health check"):
        question("x" * 127)


def answer(*versions: tuple[int, int]) -> str:
    response = tfs_pb2.GetModelStatusResponse()
    for version, state in versions:
        entry = response.model_version_status.add(version=version, state=state)
        entry.status.error_message = "" if state == 30 else "it did not load"
    return response.SerializeToString().hex().upper()


@pytest.mark.parametrize("version", [1, 16, 30, 127, 128, 300, 4126, 10**9, 2**63 - 1])
def test_an_available_version_is_found_beside_others(expected: re.Pattern[str], version: int) -> None:
    assert expected.search(answer((version, 30)))
    assert expected.search(answer((version + 1 if version < 2**60 else 1, 50), (version, 30), (7, 20)))


@pytest.mark.parametrize("state", [0, 10, 20, 40, 50])
def test_a_model_of_which_nothing_is_available_is_never_taken_for_ready(expected: re.Pattern[str], state: int) -> None:
    assert not expected.search(answer())
    assert [version for version in range(1, 20_000) if expected.search(answer((version, state)))] == []
