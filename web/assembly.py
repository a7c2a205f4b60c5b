"""Opens a whole front end: database, decoding children, background threads, application.

Its place in the flow: server.py enters this in the process that answers requests, after forking;
the demo and the tests enter it in their own process.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from flask import Flask

from artifact_sync.clock import Clock, SystemClock
from artifact_sync.durable import create_durably
from artifact_sync.errors import AlreadyExistsError, SettingsError
from artifact_sync.registry import Registry
from artifact_sync.trust.reader import TrustedReader
from serving.decode_pool import DecodePool
from serving.model_server import ModelServer
from serving.photo_limits import PhotoLimits
from serving.traffic.recorder import TrafficRecorder
from web.app import create_app
from web.catalog import TrustedModelCatalog
from web.corrections import CorrectionStore
from web.database import open_database
from web.known_versions import KnownVersions
from web.metrics_listener import MetricsListener
from web.outbox import OutboxCourier
from web.receipts import ReceiptStore
from web.settings import WebSettings
from web.shadowing import Shadowing, ShadowLimits

_SECRET_BYTES = 32


@contextmanager
def open_front_end(
    settings: WebSettings,
    *,
    registry: Registry,
    trusted: TrustedReader,
    model_server: ModelServer,
    shadow_server: ModelServer,
    clock: Clock | None = None,
) -> Iterator[Flask]:
    """Yield the application, ready to answer; everything that was started ends with the block.

    Args:
        settings: see WebSettings.
        registry: the model's part of the bucket, where corrections go.
        trusted: reads the signed releases.
        model_server: answers for the labels "stable" and "canary".
        shadow_server: answers for the label "shadow": the same server over a connection of its own, so that
            copies never stand before people's requests.
        clock: the machine's own unless another is handed in.

    Raises:
        SettingsError: the data directory or the database cannot be used as they are set.
        StoreError: the database cannot be used now.
    """
    clock = clock or SystemClock()
    secret_key = _secret_key(settings.data_dir)
    with ExitStack() as stack:
        database = open_database(settings.effective_database_url)
        stack.callback(database.close)
        limits = PhotoLimits(max_bytes=settings.max_upload_bytes)
        decode_pool = stack.enter_context(DecodePool(workers=settings.decode_workers, limits=limits))
        catalog = stack.enter_context(
            TrustedModelCatalog(
                trusted, known=KnownVersions(database), refresh_seconds=settings.catalog_refresh_seconds
            )
        )
        recorder = TrafficRecorder(model=registry.model, front_end=settings.instance_name, clock=clock)
        if settings.metrics_address is not None:
            stack.enter_context(MetricsListener(settings.metrics_address, recorder))
        shadowing = stack.enter_context(
            Shadowing(
                registry.model,
                model_server=shadow_server,
                catalog=catalog,
                recorder=recorder,
                photo_limits=limits,
                limits=ShadowLimits(
                    workers=settings.shadow_workers,
                    max_waiting=settings.shadow_max_waiting,
                    timeout_seconds=settings.shadow_timeout_seconds,
                ),
            )
        )
        stack.enter_context(
            OutboxCourier(
                CorrectionStore(database),
                ReceiptStore(database),
                registry,
                clock=clock,
                poll_seconds=settings.outbox_poll_seconds,
            )
        )
        yield create_app(
            settings,
            model=registry.model,
            secret_key=secret_key,
            model_server=model_server,
            catalog=catalog,
            decode_pool=decode_pool,
            database=database,
            recorder=recorder,
            clock=clock,
            shadowing=shadowing,
        )


def _secret_key(data_dir: Path) -> bytes:
    """Return the secret that signs sessions, made at the first start and readable by its owner only."""
    path = data_dir / "session_secret"
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(AlreadyExistsError):
            create_durably(path, secrets.token_bytes(_SECRET_BYTES), mode=0o600)
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"The front end cannot keep its data in {data_dir}: {error.strerror}. Set [web] data_dir to a directory "
            "that it may write."
        ) from None
