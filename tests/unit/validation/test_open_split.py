"""Which photos are open: by the digests alone, each label its share, and what belongs together on one side."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifact_sync.canonical import sha256_hex
from validation.photos.open_split import open_digests


def _labels(**counts: int) -> dict[str, str]:
    return {sha256_hex(f"{label} {index}".encode()): label for label, n in counts.items() for index in range(n)}


def _opened(labels: dict[str, str], opened: frozenset[str]) -> Counter[str]:
    return Counter(labels[digest] for digest in opened)


def test_each_label_opens_its_share_and_at_least_one_of_two() -> None:
    labels = _labels(many=200, few=14, two=2, one=1)
    assert _opened(labels, open_digests(labels, share=0.1)) == {"many": 20, "few": 1, "two": 1}
    assert _opened(labels, open_digests(labels, share=0.99)) == {"many": 198, "few": 13, "two": 1}


def test_the_first_by_their_lot_are_open() -> None:
    labels = _labels(cat=40)
    lots = sorted(labels, key=lambda digest: sha256_hex(b"liftgate open" + digest.encode()))
    assert open_digests(labels, share=0.25) == frozenset(lots[:10])


def test_the_order_handed_in_changes_nothing() -> None:
    labels = _labels(cat=50, dog=30)
    groups = [list(labels)[:4], list(labels)[10:12]]
    backwards = dict(reversed(labels.items()))
    assert open_digests(labels, share=0.2, groups=groups) == open_digests(backwards, share=0.2, groups=groups[::-1])


def test_a_label_whose_photos_all_belong_together_is_sealed() -> None:
    labels = _labels(cat=6, dog=6)
    cats = [digest for digest, label in labels.items() if label == "cat"]
    assert _opened(labels, open_digests(labels, share=0.3, groups=[cats])) == {"dog": 2}


def test_a_group_too_large_for_the_share_is_opened_only_when_nothing_smaller_can_be() -> None:
    digests = list(_labels(cat=20))
    for start in range(0, 20, 4):
        turned = digests[start:] + digests[:start]
        parts = [turned[:12], turned[12:]]
        assert open_digests(dict.fromkeys(digests, "cat"), share=0.1, groups=parts) == frozenset(parts[1])


def test_photos_looked_at_are_open_with_all_that_look_like_them_whatever_the_share() -> None:
    labels = _labels(cat=20)
    digests = list(labels)
    opened = open_digests(labels, share=0.1, groups=[digests[:5]], always_open={digests[0], "f" * 64})
    assert opened == frozenset(digests[:5])


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    cuts=st.lists(st.integers(2, 5), max_size=6),
    share=st.floats(0.01, 0.99),
    looked_at=st.sets(st.integers(0, 47), max_size=3),
)
def test_groups_stay_whole_and_every_label_that_can_has_both_sides(
    counts: list[int], cuts: list[int], share: float, looked_at: set[int]
) -> None:
    labels = _labels(**{f"label{number}": count for number, count in enumerate(counts)})
    digests = sorted(labels)
    groups, start = [], 0
    for cut in cuts:
        groups.append(digests[start : start + cut])
        start += cut
    always_open = {digests[index] for index in looked_at if index < len(digests)}
    opened = open_digests(labels, share=share, groups=[group for group in groups if group], always_open=always_open)
    assert always_open <= opened
    for group in groups:
        assert len({digest in opened for digest in group}) <= 1, group
    if not groups and not always_open:
        for label, count in Counter(labels.values()).items():
            number = _opened(labels, opened)[label]
            assert (number == 0) if count == 1 else (1 <= number < count)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_opening_never_takes_a_labels_last_sealed_photo(share: float) -> None:
    labels = _labels(cat=10, dog=2)
    dogs = [digest for digest, label in labels.items() if label == "dog"]
    cats = [digest for digest, label in labels.items() if label == "cat"]
    opened = open_digests(labels, share=share, groups=[[*dogs, *cats[:2]]])
    assert not set(dogs) & opened
