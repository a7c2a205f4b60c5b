"""Each attack on the bucket, and the words in which a host refuses it."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO

import pytest
from tuf.api.metadata import TargetFile, Targets

from artifact_sync.errors import ExpiredError, StoreError, TrustError
from artifact_sync.records import ReleaseRecord
from artifact_sync.store import ObjectInfo
from artifact_sync.trust import TrustedReader
from artifact_sync.trust.keys import PublicKey
from artifact_sync.trust.lists import meta_file, releases_document, snapshot_document, target_file, timestamp_document
from artifact_sync.trust.proposal import propose_version
from artifact_sync.trust.roles import Expiries
from artifact_sync.trust.signing import from_payload, sign

YEAR = timedelta(days=365)


def key_of(site, name: str) -> str:
    return f"{site.model}/metadata/{name}"


def read(site, name: str) -> bytes:
    return site.registry.read_metadata(name)


def overwrite(site, name: str, data: bytes) -> None:
    """Do what somebody who can write to the bucket can do."""
    site.store.replace(key_of(site, name), data)


def publish(site, *, targets: bytes | None = None, releases: bytes | None = None, by: str = "releaser") -> None:
    """Publish forged lists with snapshot and timestamp, as somebody who holds a key could."""
    state = site.publisher().state()
    numbers = (state.targets.version + bool(targets), state.releases.version + bool(releases))
    for role, number, data in zip(("targets", "releases"), numbers, (targets, releases), strict=True):
        if data is not None:
            site.registry.create_metadata(role, number, data)
    signer, number = [site.keys[by]], state.snapshot.version + 1
    snapshot = sign(
        snapshot_document(
            meta_file(targets or state.targets_file, number=numbers[0]),
            meta_file(releases or state.releases_file, number=numbers[1]),
            number=number,
            expires=site.now + YEAR,
        ),
        signer,
    )
    site.registry.create_metadata("snapshot", number, snapshot)
    site.registry.replace_timestamp(sign(timestamp_document(snapshot, number=number, expires=site.now + YEAR), signer))


def released(site, record: ReleaseRecord | bytes, *, path: str = "releases/000002.json") -> bytes:
    """Return the releaser's list with one more record, whose bytes are in the bucket."""
    data = record if isinstance(record, bytes) else record.to_json()
    state = site.publisher().state()
    listed = target_file(path, data)
    site.registry.put_blob(data, sha256=listed.hashes["sha256"])
    document = releases_document(
        {**state.releases.targets, path: listed}, number=state.releases.version + 1, expires=site.now + YEAR
    )
    return sign(document, [site.keys["releaser"]])


def second_release(site, **changes: object) -> ReleaseRecord:
    view = site.publisher().view()
    values = {
        "model": site.model,
        "number": 2,
        "kind": "rollback",
        "stable": 1,
        "reason": "because",
        "by": "rita",
        "previous_sha256": view.release_sha256(1),
        "created_at": site.now,
    }
    return ReleaseRecord(**(values | changes))


@pytest.fixture
def served(site):
    """A site with release 1 and a host that has seen it."""
    site.promote(site.approved_run("run-a"))
    site.reader("host").refresh()
    return site


def test_rollback_an_old_timestamp_put_back(served) -> None:
    old = read(served, "timestamp.json")
    served.promote(served.approved_run("run-b"))
    host = served.reader("host")
    host.refresh()
    overwrite(served, "timestamp.json", old)
    with pytest.raises(TrustError, match=r"timestamp.json is older than what this machine has seen.*a rollback"):
        host.refresh()


def test_rollback_a_releaser_who_lists_older_metadata(served) -> None:
    old = served.publisher().state()
    served.promote(served.approved_run("run-b"))
    host = served.reader("host")
    host.refresh()
    number = served.publisher().state().snapshot.version + 1
    signer = [served.keys["releaser"]]
    listed = [meta_file(old.targets_file, number=old.targets.version), meta_file(old.releases_file, number=2)]
    snapshot = sign(snapshot_document(*listed, number=number, expires=served.now + YEAR), signer)
    served.registry.create_metadata("snapshot", number, snapshot)
    timestamp = timestamp_document(snapshot, number=number, expires=served.now + YEAR)
    served.registry.replace_timestamp(sign(timestamp, signer))
    with pytest.raises(TrustError, match=rf"{number}.snapshot.json is older than what this machine has seen"):
        host.refresh()


def test_freeze_an_expired_timestamp(site) -> None:
    site.expiries = Expiries(timestamp=timedelta(seconds=-1))
    site.publisher().renew(now=site.now, is_forced=True)
    with pytest.raises(ExpiredError, match=r"too old to be believed.*a freeze.*liftgate keys refresh"):
        site.reader("host").refresh()


def test_freeze_expired_targets_need_their_holders(tmp_path: Path, site) -> None:
    old = type(site)(tmp_path / "old", expiries=Expiries(targets=timedelta(seconds=-1))).initialise()
    with pytest.raises(
        ExpiredError, match=r"targets is expired.*its holders must sign it again with .liftgate keys rot"
    ):
        old.reader("host").refresh()


def test_mix_and_match_a_file_of_another_moment(served) -> None:
    served.promote(served.approved_run("run-b"))
    overwrite(served, "3.targets.json", read(served, "2.targets.json"))
    with pytest.raises(TrustError, match=r"3.targets.json is not the file that the signed list names.*mixed together"):
        served.reader("host").refresh()


@pytest.mark.parametrize("name", ["mallory", "alice"])
def test_wrong_key_a_timestamp_that_the_releaser_did_not_sign(served, name: str) -> None:
    publish(served, by=name)
    with pytest.raises(TrustError, match=r"timestamp.json is not signed by the releaser .*0/1 keys.*a forgery"):
        served.reader("host").refresh()


def test_forged_approver_a_version_signed_by_a_key_with_a_known_name(served) -> None:
    view = served.publisher().view()
    record = view.version(1).model_copy(update={"version": 2})
    proposed = propose_version(view, record, expires=served.now + YEAR)
    mallory = type(served.keys["mallory"])(served.keys["mallory"]._signer._private_key, name="alice")
    publish(served, targets=sign(from_payload(proposed.payload, kind=Targets), [mallory]))
    with pytest.raises(TrustError, match=r"3.targets.json is not signed by enough of the approvers .*0/1 keys"):
        served.reader("host").refresh()


def test_missing_second_approval(strict_site) -> None:
    strict_site.promote(strict_site.approved_run("run-a", by=("alice", "bob")))
    view = strict_site.publisher().view()
    record = view.version(1).model_copy(update={"version": 2})
    proposed = propose_version(view, record, expires=strict_site.now + YEAR)
    publish(strict_site, targets=sign(from_payload(proposed.payload, kind=Targets), [strict_site.keys["alice"]]))
    with pytest.raises(TrustError, match=r"3.targets.json is not signed by enough of the approvers .*1/2 keys"):
        strict_site.reader("host").refresh()


def test_unknown_keys_a_root_that_the_old_root_did_not_sign(served) -> None:
    view = served.publisher().view()
    root = view.roles.root_document(number=2, expires=served.now + YEAR)
    served.registry.create_metadata("root", 2, sign(root, [served.keys["mallory"]]))
    with pytest.raises(TrustError, match=r"2.root.json is not signed by the root keys, old and new .*0/1 keys"):
        served.reader("host").refresh()


class EndlessStream(io.RawIOBase):
    """A file without an end, which counts what was read of it."""

    def __init__(self) -> None:
        self.read_bytes = 0

    def read(self, size: int = -1) -> bytes:
        assert size > 0, "an endless file was read whole"
        self.read_bytes += size
        return b" " * size


class EndlessStore:
    """A bucket in which one object has no end."""

    def __init__(self, site, name: str) -> None:
        self._store, self._key = site.store, key_of(site, name)
        self.stream = EndlessStream()

    def open(self, key: str) -> BinaryIO:
        return self.stream if key == self._key else self._store.open(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self._store.list(prefix)


@pytest.mark.parametrize(
    "name", ["timestamp.json", "2.snapshot.json", "2.targets.json", "2.releases.json", "2.root.json"]
)
def test_endless_data_is_read_no_further_than_it_may_be_long(served, name: str) -> None:
    store = EndlessStore(served, name)
    with pytest.raises(TrustError, match=rf"{name} is longer than it may be .*endless data"):
        served.reader("another-host", store=store).refresh()
    assert store.stream.read_bytes < 600_000


def test_a_releaser_who_releases_what_nobody_approved(served) -> None:
    publish(served, releases=released(served, second_release(served, stable=9)))
    view = served.reader("host").refresh()
    with pytest.raises(TrustError, match=r"Release 2 refused: it names version 9, which the approvers did not sign"):
        view.latest_release()


def test_a_releaser_who_shows_some_users_what_nobody_approved(served) -> None:
    canary = {"version": 9, "percent": 1.0}
    publish(served, releases=released(served, second_release(served, canary=canary)))
    with pytest.raises(TrustError, match="names version 9"):
        served.reader("host").refresh().latest_release()


def test_a_releaser_who_adds_a_version(served) -> None:
    forged = served.publisher().view().version(1).model_copy(update={"version": 2})
    publish(served, releases=released(served, forged.to_json(), path="versions/000002.json"))
    with pytest.raises(TrustError, match=r"the releaser signed 'versions/000002.json', but may sign releases/"):
        served.reader("host").refresh()


def test_a_releaser_who_rewrites_history(served) -> None:
    publish(served, releases=released(served, second_release(served, previous_sha256="0" * 64)))
    with pytest.raises(TrustError, match=r"Release 2 refused: it does not follow from release 1"):
        served.reader("host").refresh().latest_release()


def test_a_releaser_who_leaves_releases_out(served) -> None:
    record = second_release(served, number=3)
    publish(served, releases=released(served, record, path="releases/000003.json"))
    with pytest.raises(TrustError, match=r"the signed list has \(1, 3\), with gaps"):
        served.reader("host").refresh()


def test_a_release_under_another_number(served) -> None:
    publish(served, releases=released(served, second_release(served, number=7)))
    with pytest.raises(TrustError, match=r"photos's release 2 refused: the signed record is number 7 of model"):
        served.reader("host").refresh().latest_release()


def test_a_record_of_another_model(served) -> None:
    publish(served, releases=released(served, second_release(served, model="faces")))
    with pytest.raises(TrustError, match=r"release 2 refused: the signed record is number 2 of model 'faces'"):
        served.reader("host").refresh().latest_release()


def test_a_whole_bucket_of_another_model_with_the_same_keys(served) -> None:
    for info in list(served.store.list(f"{served.model}/")):
        with served.store.open(info.key) as stream:
            served.store.create(info.key.replace(served.model, "faces", 1), stream.read())
    served.model = "faces"
    view = served.reader("host").refresh()
    with pytest.raises(TrustError, match="Records were swapped"):
        view.latest_release()
    with pytest.raises(TrustError, match="Records were swapped"):
        view.version(1)


@pytest.mark.parametrize("change", [b"x", b"", None])
def test_a_tampered_or_removed_record(served, change: bytes | None) -> None:
    view = served.reader("host").refresh()
    key = served.registry.blob_key(view.version_sha256(1))
    if change is None:
        served.store.delete(key)
    else:
        with served.store.open(key) as stream:
            data = stream.read()
        served.store.replace(key, data[:-1] + change)
    with pytest.raises(TrustError, match=r"versions/000001.json refused: .*backup"):
        view.version(1)


def test_a_record_that_is_signed_but_is_none(served) -> None:
    publish(served, releases=released(served, b"{}"))
    with pytest.raises(TrustError, match=r"releases/000002.json refused although it is signed"):
        served.reader("host").refresh().latest_release()


def test_garbage_instead_of_metadata(served) -> None:
    overwrite(served, "timestamp.json", b"[" * 10_000)
    with pytest.raises(TrustError, match=r"timestamp.json is malformed"):
        served.reader("host").refresh()


def test_an_empty_bucket_says_that_trust_was_never_set_up(site) -> None:
    site.model = "nothing"
    with pytest.raises(TrustError, match=r"timestamp.json is not in the bucket.*liftgate keys init"):
        site.reader("host").refresh()


def test_a_damaged_trusted_root_is_told(site) -> None:
    for root in (b"", b"not a root"):
        with pytest.raises(TrustError, match="root"):
            TrustedReader(site.registry, metadata_dir=site.path / "host", root=root).refresh()


def test_a_bucket_that_cannot_be_reached_is_no_attack(site) -> None:
    class Unreachable:
        def open(self, key: str) -> BinaryIO:
            raise StoreError(f"Cannot open {key}: no route to host.")

    with pytest.raises(StoreError, match="no route to host"):
        site.reader("host", store=Unreachable()).refresh()


def test_a_squatted_number_stops_the_releaser_and_names_the_object(served) -> None:
    overwrite(served, "3.targets.json", b"{}")
    with pytest.raises(TrustError, match=r"3.targets.json is malformed"):
        served.roll_back()
    unsigned = sign(served.publisher().state().targets, [served.keys["mallory"]])
    overwrite(served, "3.targets.json", unsigned)
    with pytest.raises(TrustError, match=r"3.targets.json has 0 of the 1 signatures.*remove that object"):
        served.roll_back()


def test_an_old_list_under_a_new_number_is_not_published(served) -> None:
    overwrite(served, "3.targets.json", read(served, "1.targets.json"))
    with pytest.raises(TrustError, match=r"3.targets.json is a copy of 1.targets.json under another name"):
        served.roll_back()


def test_a_releaser_does_not_sign_on_top_of_an_old_state(served) -> None:
    number = served.publisher().state().snapshot.version
    served.store.delete(key_of(served, f"{number}.snapshot.json"))
    with pytest.raises(TrustError, match=rf"newest signed snapshot in the bucket is {number - 1}.*has seen {number}"):
        served.publisher().complete(now=served.now)


def test_a_releaser_on_a_new_machine_sees_by_the_timestamp_that_a_snapshot_is_gone(served) -> None:
    number = served.publisher().state().snapshot.version
    for role in ("snapshot", "targets", "releases"):
        served.store.delete(key_of(served, f"{number}.{role}.json"))
    new = served.reader("new-machine")
    publisher = type(served.publisher())(new, served.keys["releaser"])
    with pytest.raises(TrustError, match=rf"timestamp.json is number {number}, but the newest signed snapshot"):
        publisher.complete(now=served.now)


def test_forged_snapshots_of_higher_numbers_do_not_mislead_the_releaser(served) -> None:
    state = served.publisher().state()
    for number in range(50, 60):
        overwrite(served, f"{number}.snapshot.json", sign(state.snapshot, [served.keys["mallory"]]))
    assert served.publisher().state().snapshot.version == state.snapshot.version


def test_a_forged_timestamp_is_repaired_by_the_releaser(served) -> None:
    overwrite(served, "timestamp.json", b"{}")
    assert served.publisher().complete(now=served.now)
    assert served.reader("host").refresh().release_numbers == (1,)


def test_one_key_cannot_stand_for_two_approvers(site) -> None:
    alice = site.keys["alice"].public
    twin = PublicKey(name="bob", ed25519=alice.ed25519)
    for keys in ((alice, twin), (alice, PublicKey(name="alice", ed25519="0" * 64))):
        with pytest.raises(Exception, match="is there twice"):
            type(site.roles)((alice,), 1, keys, 2, alice)


def test_target_files_are_listed_by_sha256(served) -> None:
    listed = itertools.chain(
        served.publisher().state().targets.targets.values(), served.publisher().state().releases.targets.values()
    )
    assert all(isinstance(file, TargetFile) and set(file.hashes) == {"sha256"} for file in listed)
