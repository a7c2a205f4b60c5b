"""A signed site that has a break-glass key too, and what its people do with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from signed_site import SignedSite, make_key

from artifact_sync.run_folder import RunFolder
from artifact_sync.store import ObjectStore
from artifact_sync.trust import SigningKey
from artifact_sync.trust.ceremony import rotate_trust
from artifact_sync.trust.roles import Roles
from validation.releases.break_glass import BrokenGlass, break_glass


def plain(*_: object, **__: object) -> None:
    """Stand for the scan: the exports of a signed site are not models."""


class EmergencySite(SignedSite):
    """The key "glass" is trusted from the start; "other-glass" is one that it can be changed for."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.keys |= {name: make_key(name) for name in ("glass", "other-glass")}

    @property
    def roles(self) -> Roles:
        return replace(super().roles, break_glass=self.keys["glass"].public)

    def break_glass(
        self,
        run: RunFolder,
        *,
        by: str = "gail",
        reason: str = "the model answers cat to everything",
        key: SigningKey | None = None,
        releaser: SigningKey | None = None,
        store: ObjectStore | None = None,
        scan: Callable[..., object] = plain,
    ) -> BrokenGlass:
        return break_glass(
            run,
            trust=self.reader(store=store),
            signer=releaser or self.keys["releaser"],
            break_glass_signer=key or self.keys["glass"],
            reason=reason,
            by=by,
            now=self.now,
            expiries=self.expiries,
            scan=scan,
        )

    def rotate(self, break_glass_key: SigningKey | None, *, store: ObjectStore | None = None) -> None:
        """Name another break-glass key, or none."""
        roles = replace(self.roles, break_glass=None if break_glass_key is None else break_glass_key.public)
        signers = [self.keys[name] for name in ("root-1", "alice", "bob", "releaser")]
        rotate_trust(self.reader(store=store), roles, signers, now=self.now)
