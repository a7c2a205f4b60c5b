"""The table [agent]: defaults, ranges, forms."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from serving.settings import AgentSettings


def test_the_defaults_are_whole_and_the_start_up_file_lies_beside_the_models() -> None:
    settings = AgentSettings()
    assert settings.host
    assert settings.config_path == Path("/var/lib/liftgate/models/models.config")
    assert AgentSettings(server_config_path=Path("/etc/m.config")).config_path == Path("/etc/m.config")


@pytest.mark.parametrize("address", ["unix:/run/a.sock", "127.0.0.1:8500", "model-server:8500", "[::1]:8500"])
def test_addresses_of_both_forms_are_taken(address: str) -> None:
    assert AgentSettings(server_address=address).server_address == address


@pytest.mark.parametrize(
    "change",
    [
        {"server_address": "unix:relative.sock"},
        {"server_address": "http://127.0.0.1:8500"},
        {"poll_seconds": 0},
        {"poll_jitter": 1.5},
        {"load_timeout_seconds": 0},
        {"bake_seconds": -1},
        {"bake_seconds": float("inf")},
        {"retry_seconds": 0.5},
        {"model": "No Such Name"},
        {"host": ""},
        {"poll_second": 3},
        {"max_latency_ratio": 0.5},
        {"when_memory_is_short": "hope"},
        {"memory_limit_bytes": 1000},
        {"traffic_urls": ("https://front-1/traffic",)},
        {"traffic_urls": ("front-1:9100",)},
        {"min_requests": 1},
        {"max_error_increase": 0},
        {"host": "a", "host_order": ("b", "c")},
        {"host": "a", "host_order": ("a", "b", "a")},
        {"server_ca_path": Path("/ca")},
        {"server_ca_path": Path("/ca"), "server_certificate_path": Path("/c")},
        {"server_name": "model-server"},
    ],
)
def test_values_that_cannot_work_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        AgentSettings(**change)


def test_what_belongs_together_is_taken_together() -> None:
    paths = {"server_ca_path": "/ca", "server_certificate_path": "/c", "server_key_path": "/k"}
    settings = AgentSettings(**paths, server_name="model-server", host="b", host_order=["a", "b"])
    assert settings.server_key_path == Path("/k")
    assert settings.host_order == ("a", "b")
    assert AgentSettings(traffic_urls=["http://front-1:9100/traffic"]).traffic_urls == ("http://front-1:9100/traffic",)
