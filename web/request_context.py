"""A request's id and its one log line.

Its place in the flow: app.py installs it first, so that every answer, also an error's, carries
X-Request-Id. A log line has the route, the status and the time it took: no photo, no form field,
no address of a person.
"""

from __future__ import annotations

import json
import logging
import secrets
import sys
import time
from typing import Any

from flask import Flask, Response, g, request

_LOG = logging.getLogger("liftgate.web.request")
_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def install_request_context(app: Flask) -> None:
    """Give every request an id and every answer its header and log line."""
    app.before_request(_begin)
    app.after_request(_end)


def request_id() -> str:
    """Return this request's id, 32 hex digits."""
    identifier: str = g.request_id
    return identifier


def log_as_json(level: int = logging.INFO) -> None:
    """Write the log of this process to stderr, one JSON object a line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries talk about their own affairs; what they warn of is worth a line.
    root.setLevel(logging.WARNING)
    logging.getLogger("liftgate").setLevel(level)


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields |= {name: value for name, value in vars(record).items() if name not in _STANDARD_FIELDS}
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str)


def _begin() -> None:
    g.request_id = secrets.token_hex(16)
    g.began = time.monotonic()


def _end(response: Response) -> Response:
    if "request_id" not in g:
        _begin()
    response.headers["X-Request-Id"] = g.request_id
    _LOG.info(
        "answered",
        extra={
            "request_id": g.request_id,
            "method": request.method,
            "route": "none" if request.url_rule is None else request.url_rule.rule,
            "status": response.status_code,
            "took_ms": round((time.monotonic() - g.began) * 1000, 1),
        },
    )
    return response
