"""REST's addresses: /v1/models/NAME[/versions/N|/labels/L][:predict|/metadata].

Its place in the flow: the first thing REST looks at in a request.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote

from serving.embedded_server.status import invalid_argument

_MAX_VERSION = 2**63 - 1
_CHOICE = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_GET = re.compile(rf"/v1/models(?:/(?P<model>[^/:]+))?{_CHOICE}(?P<metadata>/metadata)?", re.IGNORECASE)
_POST = re.compile(rf"/v1/models/(?P<model>[^/:]+){_CHOICE}:(?P<verb>predict|classify|regress)", re.IGNORECASE)

RestVerb = Literal["predict", "classify", "regress", "status", "metadata"]
_POST_VERBS: dict[str, RestVerb] = {"predict": "predict", "classify": "classify", "regress": "regress"}


@dataclass(frozen=True)
class RestTarget:
    """What a request is about."""

    verb: RestVerb
    model: str
    version: int | None = None
    label: str | None = None


def parse_target(method: str, path: str) -> RestTarget:
    """Return what `path` names; a query string is part of the path, as in the real server.

    Raises:
        StatusError: INVALID_ARGUMENT: it names nothing.
    """
    match = (_POST if method == "POST" else _GET).fullmatch(path)
    if match is None or method not in ("GET", "POST"):
        raise invalid_argument(f"Malformed request: {method} {path}")
    parts = match.groupdict()
    if not parts["model"]:
        raise invalid_argument("Missing model name in request.")
    version = int(parts["version"]) if parts["version"] else None
    if version is not None and version > _MAX_VERSION:
        raise invalid_argument("")
    get_verb: RestVerb = "metadata" if parts.get("metadata") else "status"
    verb = _POST_VERBS[parts["verb"].lower()] if method == "POST" else get_verb
    label = unquote(parts["label"]) if parts["label"] else None
    return RestTarget(verb, unquote(parts["model"]), version, label)
