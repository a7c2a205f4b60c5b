"""TLS by --ssl_config_file, and the health service."""

from __future__ import annotations

import contextlib
import datetime
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import client_lab
import grpc
import pytest
import server_lab

_LOOKED_AT_SECONDS = 10


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, as PEM."""

    certificate: bytes
    key: bytes


class Authority:
    """A certificate authority of one test session."""

    def __init__(self, name: str) -> None:
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec

        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self._root = self._sign(self._name, self._key.public_key(), authority=True)

    @property
    def root(self) -> bytes:
        return self._pem(self._root)

    def issue(self, name: str) -> Issued:
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        certificate = self._sign(subject, key.public_key(), authority=False)
        encoding, kind = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        return Issued(self._pem(certificate), key.private_bytes(encoding, kind, serialization.NoEncryption()))

    def _sign(self, subject: Any, public_key: Any, *, authority: bool) -> Any:
        import ipaddress

        from cryptography import x509
        from cryptography.hazmat.primitives import hashes

        now = datetime.datetime.now(datetime.UTC)
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    @staticmethod
    def _pem(certificate: Any) -> bytes:
        from cryptography.hazmat.primitives import serialization

        pem: bytes = certificate.public_bytes(serialization.Encoding.PEM)
        return pem


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("the contract suite's authority")


@pytest.fixture(scope="module")
def host(authority: Authority) -> Issued:
    return authority.issue("localhost")


def ssl_config(host: Issued, *, custom_ca: bytes = b"", client_verify: bool = False) -> str:
    lines = [f"server_key: {json.dumps(host.key.decode())}", f"server_cert: {json.dumps(host.certificate.decode())}"]
    if custom_ca:
        lines.append(f"custom_ca: {json.dumps(custom_ca.decode())}")
    return "\n".join([*lines, f"client_verify: {json.dumps(client_verify)}"])


@contextlib.contextmanager
def secured(command: Any, zoo: Path, config: str, credentials: Any, **choices: Any) -> Iterator[tuple[Any, Any]]:
    flags = (
        "--model_name=half_plus_two",
        f"--model_base_path={zoo / 'half_plus_two'}",
        "--ssl_config_file={directory}/ssl",
    )
    with server_lab.launched(command, *flags, files={"ssl": config}, **choices) as server:
        server.wait_until_ready(credentials)
        with server_lab.open_channel(server.target, credentials) as channel:
            yield server, client_lab.Client(rest_port=server.rest_port, channel=channel)


def is_refused(target: str, credentials: Any) -> bool:
    with server_lab.open_channel(target, credentials) as channel:
        client = client_lab.Client(rest_port=0, channel=channel)
        with pytest.raises(grpc.RpcError) as caught:
            client.predict(timeout=10)
        return caught.value.code().name == "UNAVAILABLE"


class TestServerCertificate:
    def test_who_trusts_it_is_answered_and_rest_stays_plain(
        self, command: Any, zoo: Path, authority: Authority, host: Issued
    ) -> None:
        credentials = grpc.ssl_channel_credentials(authority.root)
        with secured(command, zoo, ssl_config(host), credentials) as (server, client):
            client.assert_serving()
            assert is_refused(server.target, None)
            assert is_refused(server.target, grpc.ssl_channel_credentials(Authority("a stranger").root))
            client.assert_serving()

    def test_a_client_certificate_is_not_needed_but_may_be_shown(
        self, command: Any, zoo: Path, authority: Authority, host: Issued
    ) -> None:
        shown = authority.issue("a client")
        credentials = grpc.ssl_channel_credentials(authority.root, shown.key, shown.certificate)
        with secured(command, zoo, ssl_config(host), credentials) as (_, client):
            client.assert_serving()


class TestMutual:
    def test_only_clients_of_the_named_authority_are_answered(
        self, command: Any, zoo: Path, authority: Authority, host: Issued
    ) -> None:
        shown = authority.issue("a client")
        stranger = Authority("a stranger").issue("another client")
        config = ssl_config(host, custom_ca=authority.root, client_verify=True)
        credentials = grpc.ssl_channel_credentials(authority.root, shown.key, shown.certificate)
        with secured(command, zoo, config, credentials) as (server, client):
            client.assert_serving()
            assert is_refused(server.target, grpc.ssl_channel_credentials(authority.root))
            strangers = grpc.ssl_channel_credentials(authority.root, stranger.key, stranger.certificate)
            assert is_refused(server.target, strangers)
            assert is_refused(server.target, None)
            client.assert_serving()


class TestConfigFile:
    @pytest.mark.parametrize("text", ["nothing that is known", "server_keys: 'x'"])
    def test_a_file_that_cannot_be_parsed(self, command: Any, zoo: Path, text: str) -> None:
        flags = (f"--model_base_path={zoo / 'plus'}", "--ssl_config_file={directory}/ssl")
        ended = server_lab.run_to_the_end(command, *flags, files={"ssl": text})
        assert ended.exit_code == 255
        assert "Failed to start server. Error: " in ended.stdout

    def test_a_key_that_is_none(self, command: Any, zoo: Path, host: Issued) -> None:
        flags = (f"--model_base_path={zoo / 'plus'}", "--ssl_config_file={directory}/ssl")
        broken = ssl_config(Issued(host.certificate, b"no key"))
        # Whatever else such a server does, it never answers in plain text: not while it starts, and not when it is up.
        with server_lab.launched(command, *flags, files={"ssl": broken}) as server:
            end = time.monotonic() + _LOOKED_AT_SECONDS
            while server.process.poll() is None and time.monotonic() < end:
                assert is_refused(server.target, None)
                time.sleep(0.1)


class TestHealth:
    def check(self, client: Any, service: str) -> Any:
        from grpc_health.v1 import health_pb2, health_pb2_grpc

        stub = health_pb2_grpc.HealthStub(client.channel)
        return stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=60)

    @pytest.mark.parametrize("service", ["", "ModelService", "PredictionService"])
    def test_with_the_flag_its_services_are_serving(self, optioned: Any, service: str) -> None:
        assert self.check(optioned, service).status == 1

    def test_with_the_flag_others_are_not_found(self, optioned: Any) -> None:
        assert optioned.refused(lambda: self.check(optioned, "nobody"))[0] == "NOT_FOUND"
