"""Which photos of a new holdout are open: their results are shown, so they decide nothing (docs/gate.md).

Its place in the flow: freeze_holdout asks it once. It draws no lot: the digests decide, so that the
same photos are split the same way on every machine and nobody chooses which ones are shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet

from artifact_sync.canonical import sha256_hex

DEFAULT_SHARE = 0.1


def open_digests(
    labels: Mapping[str, str],
    *,
    share: float,
    groups: Iterable[Collection[str]] = (),
    always_open: AbstractSet[str] = frozenset(),
) -> frozenset[str]:
    """Return the digests of the photos that are open, of each label about `share` of its photos.

    A label of two or more photos has an open and a sealed one, unless its photos all belong together
    or are all open already. A label's only photo is sealed.

    Args:
        labels: the label of each photo, by digest.
        share: of each label's photos, the part to open; between 0 and 1.
        groups: photos that show nearly the same: they go to one side, all of them.
        always_open: photos that people have looked at; with them their groups are open.
    """
    split = _Split(labels, share=share, groups=groups)
    for digest in sorted(always_open & labels.keys()):
        split.open(digest)
    drawn = sorted(labels, key=_lot)
    # Groups that fit come first; only a label that has none open then takes one that is too large.
    for digest in drawn:
        if split.has_room(digest):
            split.open(digest)
    for digest in sorted(drawn, key=lambda digest: len(split.group(digest))):
        if not split.opened[labels[digest]] and split.leaves_sealed(digest):
            split.open(digest)
    return frozenset(split.digests)


class _Split:
    """A split that is being made: what is open so far."""

    def __init__(self, labels: Mapping[str, str], *, share: float, groups: Iterable[Collection[str]]) -> None:
        self._labels = labels
        self._groups = {digest: tuple(sorted(group)) for group in groups for digest in group}
        self._counts = Counter(labels.values())
        self._wanted = {label: _wanted(count, share=share) for label, count in self._counts.items()}
        self.opened: Counter[str] = Counter()
        self.digests: set[str] = set()

    def group(self, digest: str) -> tuple[str, ...]:
        """Return the photos that go where this one goes."""
        return self._groups.get(digest, (digest,))

    def open(self, digest: str) -> None:
        """Open the photo and those that go with it."""
        for member in self.group(digest):
            if member not in self.digests:
                self.digests.add(member)
                self.opened[self._labels[member]] += 1

    def has_room(self, digest: str) -> bool:
        """Tell whether opening the photo leaves every label at or under what it is to have."""
        return all(self.opened[label] + more <= self._wanted[label] for label, more in self._more(digest).items())

    def leaves_sealed(self, digest: str) -> bool:
        """Tell whether every label still has a sealed photo when this one is opened."""
        return all(self.opened[label] + more < self._counts[label] for label, more in self._more(digest).items())

    def _more(self, digest: str) -> Counter[str]:
        return Counter(self._labels[member] for member in self.group(digest) if member not in self.digests)


def _wanted(count: int, *, share: float) -> int:
    return max(1, min(count - 1, int(share * count + 0.5))) if count > 1 else 0


def _lot(digest: str) -> str:
    return sha256_hex(f"liftgate open{digest}".encode())
