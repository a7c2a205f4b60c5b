"""The people's front end: photos in, labels out, corrections back.

Flask is imported when `create_app` is asked for, so that reading settings stays quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from web.app import create_app

__all__ = ["create_app"]


def __getattr__(name: str) -> Any:
    if name == "create_app":
        from web.app import create_app  # noqa: PLC0415

        return create_app
    raise AttributeError(f"module 'web' has no attribute {name!r}")
