"""TLS for the gRPC port, from TensorFlow Serving's SSLConfig.

Its place in the flow: the server makes one context from --ssl_config_file; grpc_transport.py wraps
every connection with it.
"""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Iterator
from pathlib import Path

from google.protobuf import text_format

from serving.embedded_server.status import invalid_argument, not_found
from serving.protos import tfs_pb2


def read_tls_context(path: Path) -> ssl.SSLContext:
    """Return the context that a text file with an SSLConfig message asks for.

    Raises:
        StatusError: NOT_FOUND: there is no such file; INVALID_ARGUMENT: it is not such a message, or
            cannot be used.
    """
    try:
        config = text_format.Parse(path.read_text(encoding="utf-8"), tfs_pb2.SSLConfig())
    except OSError as error:
        raise not_found(f"{path}; {error.strerror}") from None
    except (text_format.ParseError, UnicodeDecodeError):
        # Not the parser's words: they may quote the private key.
        raise invalid_argument(f"Invalid protobuf file: '{path}': it is no text SSLConfig.") from None
    return tls_context(config)


def tls_context(config: tfs_pb2.SSLConfig) -> ssl.SSLContext:
    """Return the context for a server's connections.

    Args:
        config: PEM texts, not paths. With client_verify a client must show a certificate that
            custom_ca has signed, or, without custom_ca, one of the system's authorities.

    Raises:
        StatusError: INVALID_ARGUMENT: a text is missing, is not PEM, or key and certificate do not match.
    """
    for field in ("server_key", "server_cert"):
        if not getattr(config, field):
            raise invalid_argument(f"SSLConfig refused: {field} is empty. Put the PEM text there, not a path.")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    try:
        with _in_memory(config.server_cert) as certificate, _in_memory(config.server_key) as key:
            # A key with a passphrase would ask for it on a terminal.
            context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        raise invalid_argument(f"SSLConfig refused: server_cert and server_key: {error.reason or error}") from None
    if config.client_verify:
        context.verify_mode = ssl.CERT_REQUIRED
        _load_authorities(context, config.custom_ca)
    return context


def _load_authorities(context: ssl.SSLContext, custom_ca: str) -> None:
    if not custom_ca:
        context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
        return
    try:
        context.load_verify_locations(cadata=custom_ca)
    except (ssl.SSLError, ValueError) as error:
        raise invalid_argument(f"SSLConfig refused: custom_ca: {error}") from None


@contextlib.contextmanager
def _in_memory(text: str) -> Iterator[str]:
    """Give a path for a text that never lies on a disk: Python's ssl takes certificates by path only."""
    descriptor = os.memfd_create("pem", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "w", encoding="ascii", errors="replace", closefd=False) as file:
            file.write(text)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
