"""The gate's checks of the holdout's size: of all photos, of each class and of each slice.

Its place in the flow: gate.py asks before a try is spent, since no answer is needed to see that
there are too few photos to decide.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from validation.checks.groups import Group, Sizes, judged_sizes
from validation.checks.policy import Policy
from validation.checks.verdict import Reason
from validation.checks.wording import MOST_TOLD, names_text, photos_text
from validation.photos.holdout_record import HoldoutItem


def size_reasons(items: Sequence[HoldoutItem], *, labels: Sequence[str], policy: Policy) -> tuple[Reason, ...]:
    """Return what is too small to decide; none if nothing is.

    Args:
        items: the photos that may be judged by; the sealed ones count, or all if none is sealed.
        labels: the classes.
        policy: what it asks for.
    """
    sealed = [item for item in items if not item.is_open]
    kind = "sealed" if len(sealed) < len(items) else ""
    there = judged_sizes(sealed, labels=labels, policy=policy)
    # A slice of which all photos are open is one that the sealed ones say nothing of.
    wanted = judged_sizes(items, labels=labels, policy=policy)
    sizes = Sizes(there.photos, {group: there.of(group) for group in wanted.groups})
    return tuple(_too_small(sizes, policy=policy, kind=kind))


def _too_small(there: Sizes, *, policy: Policy, kind: str) -> Iterator[Reason]:
    if there.photos < policy.accuracy.minimum_photos:
        yield _too_few("holdout size", "The holdout", there.photos, policy.accuracy.minimum_photos, kind=kind)
    for check, minimum, is_slice in (
        ("class size", policy.per_class.minimum_photos if policy.per_class else 0, False),
        ("slice size", policy.per_slice.minimum_photos if policy.per_slice else 0, True),
    ):
        groups = [group for group, n in there.groups.items() if (group.column is not None) == is_slice and n < minimum]
        for group in groups[:MOST_TOLD]:
            yield _too_few(check, group.name, there.of(group), minimum, kind=kind, group=group)
        rest = groups[MOST_TOLD:]
        if rest:
            missing = sum(minimum - there.of(group) for group in rest)
            names = names_text([group.name for group in rest])
            statement = f"{len(rest):,} more have too few: {names}: {missing:,} more labels."
            yield Reason(check=check, outcome="cannot tell", statement=statement, more_labels=missing)


def _too_few(check: str, name: str, n: int, minimum: int, *, kind: str, group: Group | None = None) -> Reason:
    missing = minimum - n
    return Reason(
        check=check,
        outcome="cannot tell",
        statement=f"{name} has {photos_text(n, kind=kind)}, the policy asks for {minimum:,}: "
        f"{missing:,} more {'label is' if missing == 1 else 'labels are'} needed.",
        label=group.value if group is not None and group.column is None else None,
        slice=group.name if group is not None and group.column is not None else None,
        more_labels=missing,
    )
