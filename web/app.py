"""Puts the front end together from collaborators that are handed in.

Its place in the flow: assembly.py builds the collaborators and calls `create_app`; tests hand in
their own. The application holds no state and starts nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flask import Flask
from flask_wtf.csrf import CSRFProtect
from werkzeug.middleware.proxy_fix import ProxyFix

from artifact_sync.canonical import sha256_hex
from artifact_sync.clock import Clock
from serving.decode_pool import DecodePool
from serving.model_server import ModelServer
from serving.traffic.recorder import TrafficRecorder
from web.api import api
from web.asking import VersionAsker
from web.catalog import ModelCatalog
from web.classification import Classifier, ClassifierSettings
from web.corrections import CorrectionStore
from web.database import Database
from web.headers import install_headers
from web.health import health
from web.pages import pages
from web.problems import install_problems
from web.receipts import ReceiptStore
from web.request_context import install_request_context
from web.services import Services, install_services
from web.settings import WebSettings
from web.shadowing import Shadowing
from web.uploads import PhotoRequest

_FORM_FIELDS_BYTES = 64 * 1024
_FORM_BUFFER_BYTES = 1024 * 1024
_PAGE_AGE_SECONDS = 12 * 3600


def create_app(
    settings: WebSettings,
    *,
    model: str,
    secret_key: bytes,
    model_server: ModelServer,
    catalog: ModelCatalog,
    decode_pool: DecodePool,
    database: Database,
    recorder: TrafficRecorder,
    clock: Clock,
    shadowing: Shadowing | None = None,
) -> Flask:
    """Return the front end as a WSGI application.

    Args:
        settings: sizes, times and names.
        model: the model that is asked.
        secret_key: signs sessions; the same in every process of one front end.
        model_server: answers for the labels "stable" and "canary".
        catalog: the newest release, and labels and input contract by version.
        decode_pool: decodes photos; must be open while requests are answered.
        database: receipts and corrections.
        recorder: counts what each version answered.
        clock: the time in receipts and of photos that are kept for a while.
        shadowing: takes copies of requests for the shadow; without it none are made.
    """
    app = Flask(__name__)
    app.request_class = PhotoRequest
    app.config.update(_configuration(settings, secret_key))
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    receipts = ReceiptStore(database)
    classifier = Classifier(
        ClassifierSettings(
            model=model,
            instance_name=settings.instance_name,
            top_count=settings.top_count,
            photo_keep_seconds=settings.photo_keep_seconds,
        ),
        catalog=catalog,
        asker=VersionAsker(
            model,
            model_server=model_server,
            catalog=catalog,
            decode_pool=decode_pool,
            recorder=recorder,
            clock=clock,
            timeout_seconds=settings.predict_timeout_seconds,
            canary_places=max(1, settings.threads // 2),
        ),
        receipts=receipts,
        photo_limits=decode_pool.limits,
        clock=clock,
        shadowing=shadowing,
    )
    install_services(
        app.extensions,
        Services(
            settings=settings,
            model=model,
            model_server=model_server,
            catalog=catalog,
            decode_pool=decode_pool,
            database=database,
            receipts=receipts,
            corrections=CorrectionStore(database),
            classifier=classifier,
            clock=clock,
        ),
    )
    app.url_defaults(_StaticVersions(app).add)
    install_request_context(app)
    install_problems(app)
    install_headers(app)
    csrf = CSRFProtect(app)
    # Programs have no session that another site could ride on.
    csrf.exempt(api)
    for blueprint in (pages, api, health):
        app.register_blueprint(blueprint)
    if settings.trusted_proxies:
        count = settings.trusted_proxies
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=count, x_proto=count, x_host=count)  # type: ignore[method-assign]
    return app


class _StaticVersions:
    """Names each static file with its content's digest, so that a browser never mixes two releases."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._digests: dict[str, str] = {}

    def add(self, endpoint: str, values: dict[str, Any]) -> None:
        """Add `v` to the values of a static file's address."""
        name = values.get("filename")
        if endpoint != "static" or name is None or self._app.static_folder is None:
            return
        if name not in self._digests:
            data = Path(self._app.static_folder, name).read_bytes()
            self._digests[name] = sha256_hex(data)[:12]
        values["v"] = self._digests[name]


def _configuration(settings: WebSettings, secret_key: bytes) -> dict[str, object]:
    return {
        "SECRET_KEY": secret_key,
        "PHOTO_MAX_BYTES": settings.max_upload_bytes,
        "MAX_CONTENT_LENGTH": settings.max_upload_bytes + _FORM_FIELDS_BYTES,
        "MAX_FORM_MEMORY_SIZE": _FORM_BUFFER_BYTES,
        "MAX_FORM_PARTS": 20,
        "SESSION_COOKIE_NAME": "liftgate",
        "SESSION_COOKIE_HTTPONLY": True,
        "SESSION_COOKIE_SAMESITE": "Lax",
        "SESSION_COOKIE_SECURE": settings.is_behind_https,
        "SEND_FILE_MAX_AGE_DEFAULT": 7 * 86_400,
        "WTF_CSRF_TIME_LIMIT": _PAGE_AGE_SECONDS,
    }
