"""The connection to a model server: its options, what is tried again, and TLS.

Its place in the flow: the gRPC client opens its channel here.

What is tried again: a call that ended UNAVAILABLE, or CANCELLED by the other end (as a balancer does
that gives a host up), once, after about 20 ms, where asking twice does no harm (everything of
PredictionService, and GetModelStatus). Behind a balancer the second try goes to another host, so a
host that dies takes no answer with it. A reload is never sent twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc

from serving.tls_files import TlsFiles

_SERVICE_CONFIG: Mapping[str, Any] = {
    "methodConfig": [
        {
            "name": [
                {"service": "tensorflow.serving.PredictionService"},
                {"service": "tensorflow.serving.ModelService", "method": "GetModelStatus"},
            ],
            "retryPolicy": {
                "maxAttempts": 2,
                "initialBackoff": "0.02s",
                "maxBackoff": "0.1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        }
    ],
    # After some 500 failures in a row nothing is tried again until calls succeed, so that a server
    # in trouble is not asked twice as much.
    "retryThrottling": {"maxTokens": 1000, "tokenRatio": 0.5},
}

CHANNEL_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A dead peer is noticed while calls wait on it; idle connections are left alone, because
    # servers cut off clients that ping without a call.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # gRPC's own back-off grows to two minutes; a restarted server is back within seconds.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # The model server is beside us: a proxy named in the environment is for other traffic.
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    # A request larger than this is not kept and so not tried again; the default of 256 KB is two photos.
    ("grpc.per_rpc_retry_buffer_size", 64 * 2**20),
)


@dataclass(frozen=True)
class ServerTls(TlsFiles):
    """How a client proves a server, and itself: TLS with `ca_path` alone, mutual TLS with all three files.

    Args:
        server_name: the name that the server's certificate must hold; by default the host of the
            address. A Unix socket has no host, so there it must be given.
    """

    server_name: str | None = None


def open_channel(target: str, tls: ServerTls | None) -> grpc.Channel:
    """Return a channel to `target` that connects at its first call.

    Raises:
        SettingsError: a file of `tls` cannot be used.
    """
    if tls is None:
        return grpc.insecure_channel(target, options=CHANNEL_OPTIONS)
    content = tls.read()
    credentials = grpc.ssl_channel_credentials(content.authority, content.key, content.certificate)
    options = CHANNEL_OPTIONS
    if tls.server_name is not None:
        options += (("grpc.ssl_target_name_override", tls.server_name),)
    return grpc.secure_channel(target, credentials, options=options)
