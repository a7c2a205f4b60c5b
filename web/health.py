"""Whether this front end lives, and whether it can do its work now.

Its place in the flow: a process manager asks /healthz, a load balancer /readyz. Ready means that
the model server answers for a version whose labels are known and that the database takes writes.
"""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, Response, jsonify

from artifact_sync.errors import LiftgateError, ModelServerError
from serving.traffic.routing import STABLE
from web.services import services

health = Blueprint("health", __name__)


@health.get("/healthz")
def live() -> Response:
    """The process answers; nothing else is asked."""
    return jsonify({"status": "live"})


@health.get("/readyz")
def ready() -> tuple[Response, int]:
    """Say for each thing that is needed whether it is there, and 503 when one is not."""
    checks = {
        "catalog": _check(_catalog),
        "model_server": _check(_model_server),
        "database": _check(_database),
    }
    is_ready = all(check["ok"] for check in checks.values())
    return jsonify({"status": "ready" if is_ready else "not ready", "checks": checks}), 200 if is_ready else 503


def _catalog() -> str:
    split = services().catalog.split()
    canary = "" if split.canary is None else f", version {split.canary.version} for {split.canary.percent:g} %"
    return f"release wants version {split.stable}{canary}"


def _model_server() -> str:
    """The label may still be on the version before while a host moves; it must be one whose labels are known."""
    version = services().model_server.signature(services().model, label=STABLE).version
    if not services().catalog.card(version).labels:
        raise ModelServerError(f"version {version} has no labels")
    return f"answers with version {version}"


def _database() -> str:
    services().database.check_writable()
    return f"{services().corrections.waiting_count()} corrections wait for the bucket"


def _check(question: Callable[[], str]) -> dict[str, object]:
    try:
        return {"ok": True, "detail": question()}
    except LiftgateError as error:
        return {"ok": False, "detail": type(error).__name__}
