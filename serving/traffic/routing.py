"""Who is asked: which label a user's requests go to, and which requests are copied to the shadow.

Its place in the flow: the front end asks before it predicts. Both answers are functions of their
arguments alone, so that every process, host and restart gives the same one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal, Self

from artifact_sync.records import ReleaseRecord, TrafficShare

STABLE: Literal["stable"] = "stable"
CANARY: Literal["canary"] = "canary"
SHADOW: Literal["shadow"] = "shadow"


@dataclass(frozen=True)
class TrafficSplit:
    """The versions that a release wants people's requests to go to, and the share of each."""

    stable: int
    canary: TrafficShare | None = None
    shadow: TrafficShare | None = None

    @classmethod
    def of(cls, release: ReleaseRecord) -> Self:
        """Return the split that a release asks for."""
        return cls(stable=release.stable, canary=release.canary, shadow=release.shadow)


def version_label(user_key: str, canary_percent: float, salt: str) -> Literal["canary", "stable"]:
    """Return the label that a user's requests go to.

    The same user has the same label as long as the percentage stands; a larger percentage only adds
    users to the canary, a smaller one only takes some away.

    Args:
        user_key: what tells users apart; only its digest is looked at.
        canary_percent: the per cent of users that the canary shall have, 0 to 100.
        salt: the model's name, so that the canaries of two models do not fall on the same people.
    """
    return CANARY if _position("canary", salt, user_key) < canary_percent / 100 else STABLE


def is_copied(request_id: str, shadow_percent: float, salt: str) -> bool:
    """Return whether a request is copied to the shadow: a share of requests, no matter whose.

    Args:
        request_id: the request's own id.
        shadow_percent: the per cent of requests to copy, 0 to 100.
        salt: the model's name.
    """
    return _position("shadow", salt, request_id) < shadow_percent / 100


def _position(purpose: str, salt: str, key: str) -> float:
    """Return where a key falls in [0, 1): evenly spread, and independent for each purpose and salt."""
    # Lengths first, so that no two triples have the same text.
    text = f"liftgate/1 {purpose} {len(salt)}:{salt} {key}"
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    # 53 bits are what a float holds exactly, so 1.0 is never reached and 100 % means everybody.
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53
