"""Tells users apart, so that each is answered by one version as long as the percentages stand.

Its place in the flow: pages.py and api.py ask for the key before they classify. A key is looked at
by its digest and forgotten: it stands in no receipt and no log line.
"""

from __future__ import annotations

import re
import secrets

from flask import request, session

from web.problems import RequestError

USER_HEADER = "X-Liftgate-User"
_SESSION_FIELD = "user"
_HEADER_FORM = re.compile(r"^[\x21-\x7e]{1,128}$")


def user_key_of_page() -> str:
    """Return this browser's key: random, made at the first visit, kept in the signed cookie of its session."""
    if not isinstance(session.get(_SESSION_FIELD), str):
        session[_SESSION_FIELD] = secrets.token_hex(16)
    key: str = session[_SESSION_FIELD]
    return key


def user_key_of_api() -> str | None:
    """Return the key that the header names, else that of the session; None for a program that has neither.

    Raises:
        RequestError: the header is not 1 to 128 printable ASCII characters without spaces.
    """
    named = request.headers.get(USER_HEADER)
    if named is None:
        key = session.get(_SESSION_FIELD)
        return key if isinstance(key, str) else None
    if not _HEADER_FORM.match(named):
        raise RequestError(
            f"{USER_HEADER} must be 1 to 128 printable ASCII characters without spaces, such as a random id or a "
            "digest of yours for the user.",
            reason="user-malformed",
        )
    return named
