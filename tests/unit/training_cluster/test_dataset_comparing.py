"""What dataset build finds out from the index alone: double, contradictory, forbidden photos, groups and sides."""

from __future__ import annotations

import hashlib
import random
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from artifact_sync.errors import InputError
from artifact_sync.labelled_photo import LabelledPhoto
from serving.perceptual_hash import PictureHashes
from training_cluster.datasets.build_progress import Meter
from training_cluster.datasets.comparing import compare_files, compare_pixels, left_out
from training_cluster.datasets.grouping import Rules, group_examples
from training_cluster.datasets.listing import list_photos
from training_cluster.datasets.photo_index import open_index


class Lists:
    """Lists of photos whose bytes, pixels and looks are what a test says, without any file."""

    def __init__(self, path: Path) -> None:
        self.index = open_index(path)
        self.photos: dict[str, list[LabelledPhoto]] = {}
        self._known: dict[str, tuple[bytes, bytes, bytes]] = {}

    def add(
        self,
        name: str,
        label: str,
        *,
        data: str | None = None,
        pixels: str | None = None,
        look: int | None = None,
        slices: Mapping[str, str] | None = None,
        annotator: str = "",
        origin: str = "",
        given_in: str = "photos",
    ) -> bytes:
        """Add a photo and return its digest; by default bytes, pixels and look are its own."""
        sha256 = hashlib.sha256((data or name).encode()).digest()
        pixel_sha256 = hashlib.sha256((pixels or data or name).encode()).digest()
        bits = hashlib.sha256(b"look" + pixel_sha256).digest()[:16] if look is None else look.to_bytes(16)
        photo = LabelledPhoto(
            Path(f"/photos/{name}"), label, source=name, slices=slices or {}, annotator=annotator, origin=origin
        )
        self.photos.setdefault(given_in, []).append(photo)
        self._known[f"/photos/{name}"] = (sha256, pixel_sha256, bits)
        return sha256

    def fill(self, *, labels: tuple[str, ...] | None = None) -> sqlite3.Connection:
        """Return the index as it is when all photos have been read."""
        list_photos(self.index, self.photos, labels=labels, meter=Meter(None, "listing"))
        for slot, (place, (sha256, pixel_sha256, look)) in enumerate(self._known.items()):
            self.index.execute("INSERT OR REPLACE INTO file VALUES (?, '', ?)", (place, sha256))
            row = (sha256, pixel_sha256, look, 0, slot)
            self.index.execute("INSERT OR REPLACE INTO decoded VALUES (?, ?, ?, ?, ?)", row)
        return self.index

    def grouped(self, **rules: object) -> list[tuple[str, bool]]:
        """Return the sources of the examples in their order, and whether each starts a group."""
        index = self.fill()
        compare_files(index, excluded=set())
        compare_pixels(index, excluded=set())
        given = {"near_distance": 4, "holdout_share": 0.0, "excluded_looks": None, **rules}
        group_examples(index, Rules(**given))  # type: ignore[arg-type]
        query = (
            "SELECT source, starts_group FROM placed JOIN example ON example.number = placed.example "
            "JOIN listed ON listed.id = example.listed ORDER BY position"
        )
        return [(source, bool(starts)) for source, starts in index.execute(query)]

    def account(self, kind: str) -> list[tuple[str, str]]:
        return [(entry.source, entry.reason) for entry in left_out(self.index, kind)]


@pytest.fixture
def lists(tmp_path: Path) -> Iterator[Lists]:
    made = Lists(tmp_path / "index.sqlite")
    yield made
    made.index.close()


def _held_out(lists: Lists) -> set[str]:
    query = (
        "SELECT source FROM held_out JOIN example ON example.number = held_out.example "
        "JOIN listed ON listed.id = example.listed"
    )
    return {source for (source,) in lists.index.execute(query)}


def test_the_same_file_twice_is_one_example_and_a_duplicate(lists: Lists) -> None:
    lists.add("b", "cat", data="x")
    lists.add("a", "cat", data="x")
    lists.add("c", "dog")
    assert sorted(lists.grouped()) == [("a", True), ("c", True)]
    assert lists.account("duplicate") == [("b", "the same file as a")]


def test_two_annotators_who_disagree_are_both_named(lists: Lists) -> None:
    lists.add("rows:1", "cat", data="x", annotator="ada")
    lists.add("rows:2", "dog", data="x", annotator="bob")
    lists.add("rows:3", "dog", data="x")
    compare_files(lists.fill(), excluded=set())
    reason = "the same photo has several labels: cat by ada (rows:1), dog by bob (rows:2), dog by rows:3"
    assert lists.account("reject") == [("rows:1", reason), ("rows:2", reason), ("rows:3", reason)]


def test_equal_pixels_are_a_duplicate_or_a_contradiction(lists: Lists) -> None:
    digests = {name: lists.add(name, label, pixels="x") for name, label in (("a", "cat"), ("b", "cat"), ("c", "dog"))}
    first, *others = sorted(digests, key=digests.__getitem__)
    assert lists.grouped() == [(first, True)]
    accounted = [source for kind in ("duplicate", "reject") for source, _ in lists.account(kind)]
    assert sorted(accounted) == sorted(others)
    assert all(f"of {first}, labelled" in reason for _, reason in lists.account("reject"))


def test_what_the_holdout_has_is_excluded_by_bytes_pixels_and_look(lists: Lists) -> None:
    by_bytes = lists.add("a", "cat")
    lists.add("b", "cat", pixels="p")
    lists.add("c", "cat", look=0b1111)
    lists.add("d", "dog", look=0b11111 << 64)
    lists.add("e", "dog")
    index = lists.fill()
    excluded = {by_bytes.hex(), hashlib.sha256(b"p").hexdigest()}
    compare_files(index, excluded=excluded)
    compare_pixels(index, excluded=excluded)
    looks = PictureHashes(np.zeros((1, 32), dtype=np.uint8), np.zeros((1, 16), dtype=np.uint8))
    group_examples(index, Rules(near_distance=4, holdout_share=0.0, excluded_looks=looks))
    assert lists.account("excluded") == [
        ("a", "its bytes are in the holdout"),
        ("b", "its pixels are in the holdout"),
        ("c", "its look is nearly that of a photo of the holdout"),
    ]
    assert index.execute("SELECT COUNT(*) FROM placed").fetchone() == (2,)


def test_near_duplicates_lie_together_in_the_order_of_their_smallest_digest(lists: Lists) -> None:
    digests = {f"{number}": lists.add(f"{number}", "cat") for number in range(20)}
    # A chain: the ends differ in 8 bits, each neighbour in 4.
    digests |= {f"near {bits}": lists.add(f"near {bits}", "dog", look=(1 << bits) - 1) for bits in (0, 4, 8)}
    chain = sorted((name for name in digests if name.startswith("near")), key=digests.__getitem__)
    order = lists.grouped()
    expected = sorted((name for name in digests if name not in chain[1:]), key=digests.__getitem__)
    expected[expected.index(chain[0]) + 1 : expected.index(chain[0]) + 1] = chain[1:]
    assert [name for name, _ in order] == expected
    assert [name for name, starts in order if not starts] == chain[1:]
    assert lists.account("near") == [
        (name, f"it looks nearly like {chain[0]} or another of its group") for name in sorted(chain[1:])
    ]
    assert all(starts for _, starts in lists.grouped(near_distance=0))


def test_a_near_duplicate_of_another_label_is_said_to_be_doubtful(lists: Lists) -> None:
    digests = {"a": lists.add("a", "cat", look=0), "b": lists.add("b", "dog", look=1)}
    labels = {"a": "cat", "b": "dog"}
    lists.grouped()
    first, other = sorted(digests, key=digests.__getitem__)
    doubt = f", which is labelled {labels[first]} and not {labels[other]}"
    assert lists.account("near") == [(other, f"it looks nearly like {first} or another of its group{doubt}")]


def test_photos_of_one_source_are_a_group_through_duplicates_too(lists: Lists) -> None:
    for number in range(12):
        lists.add(f"{number}", "cat", origin=f"patient {number % 3}" if number < 9 else "")
    # Another row says that photo 0, by its pixels, is of patient 1 also: patients 0 and 1 are one group.
    lists.add("again", "cat", pixels="0", origin="patient 1")
    lists.add("dog", "dog")
    groups: list[set[str]] = []
    for name, starts in lists.grouped():
        groups = [*groups, {name}] if starts else [*groups[:-1], groups[-1] | {name}]
    patients = {name if name != "again" else "0" for name in max(groups, key=len)}
    assert patients == {"0", "1", "3", "4", "6", "7"}
    assert {"2", "5", "8"} in groups
    assert len(groups) == 6
    assert lists.account("near") == []


def test_a_photo_keeps_its_side_and_groups_are_whole_when_others_come(lists: Lists) -> None:
    for number in range(400):
        lists.add(f"{number}", "cat", origin=f"burst {number // 2}" if number < 40 else "")
    lists.add("dog", "dog")
    lists.grouped(holdout_share=0.25)
    before = _held_out(lists)
    assert 70 < len(before) < 130
    for burst in range(20):
        assert len({f"{2 * burst}", f"{2 * burst + 1}"} & before) in {0, 2}
    for number in range(400, 800):
        lists.add(f"{number}", "cat")
    training = {name for name, _ in lists.grouped(holdout_share=0.25)}
    after = _held_out(lists)
    assert {name for name in after if name.isdigit() and int(name) < 400} == {name for name in before if name != "dog"}
    assert not training & after
    assert len(training) + len(after) == 801


def test_nothing_depends_on_the_order_of_the_lists(lists: Lists, tmp_path: Path) -> None:
    for number in range(60):
        data = f"{number % (48 if number < 54 else 50)}"
        lists.add(f"{number}", f"{number % 3}", data=data, look=number // 4 % 10, given_in=f"{number % 2}")
    index = lists.fill()
    digests = compare_files(index, excluded=set())
    compare_pixels(index, excluded=set())
    rules = Rules(near_distance=0, holdout_share=0.1, excluded_looks=None)
    order = group_examples(index, rules)
    accounts = {kind: lists.account(kind) for kind in ("reject", "duplicate", "near")}
    assert all(accounts.values())
    for photos in lists.photos.values():
        random.Random(5).shuffle(photos)
    lists.photos = dict(reversed(lists.photos.items()))
    index = lists.fill()
    assert compare_files(index, excluded=set()) == digests
    compare_pixels(index, excluded=set())
    assert group_examples(index, rules) == order
    assert {kind: lists.account(kind) for kind in accounts} == accounts


def test_the_digests_follow_bytes_label_slices_and_source(tmp_path: Path) -> None:
    def digest(number: int, **changes: object) -> tuple[str, str]:
        made = Lists(tmp_path / f"{number}.sqlite")
        made.add("a", **{"label": "cat", **changes})  # type: ignore[arg-type]
        made.add("b", "dog")
        digests = compare_files(made.fill(), excluded=set())
        made.index.close()
        return digests.sources, digests.lists["photos"]

    kinds = [{}, {"data": "y"}, {"label": "cow"}, {"slices": {"site": "2"}}, {"origin": "p"}]
    found = [digest(number, **kind) for number, kind in enumerate(kinds)]
    assert digest(9) == found[0]
    assert len({sources for sources, _ in found}) == len({given for _, given in found}) == len(kinds)


def test_wrong_labels_are_rejects_and_one_class_is_refused(lists: Lists, tmp_path: Path) -> None:
    lists.add("row 1", "cow")
    lists.add("row 2", "  ")
    lists.add("row 3", "cat")
    index = lists.fill(labels=("cat", "dog"))
    compare_files(index, excluded=set())
    assert lists.account("reject") == [("row 1", "label 'cow' is none of cat, dog"), ("row 2", "it has no label")]
    lists.photos = {"photos": lists.photos["photos"][2:]}
    with pytest.raises(InputError, match="found 1 classes"):
        lists.fill()
