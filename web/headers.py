"""Headers that keep a browser from doing for others what it should do for us only.

Its place in the flow: app.py installs it; every answer carries them.
"""

from __future__ import annotations

from flask import Flask, Response, request

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; "
    "connect-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # The check against cross-site posts over https reads the referrer, so it may not be dropped at home.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "geolocation=(), microphone=(), payment=(), usb=()",
}


def install_headers(app: Flask) -> None:
    """Add the headers to every answer; only static files may be cached by others."""
    app.after_request(_add)


def _add(response: Response) -> Response:
    for name, value in _HEADERS.items():
        response.headers[name] = value
    if request.blueprint == "pages":
        # Asked for anew each time, yet there when a person goes back; "no-store" would show an error then.
        response.headers["Cache-Control"] = "private, no-cache"
    elif request.endpoint != "static":
        response.headers["Cache-Control"] = "no-store"
    return response
