from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from artifact_sync.errors import ExpiredError, LostRaceError, RefusedError, SettingsError, TrustError
from artifact_sync.records import ReleaseRecord
from artifact_sync.trust.ceremony import initialise_trust, publish_initial, publish_rotation, rotate_trust
from artifact_sync.trust.change import TrustChange, draft_change, missing_signatures, sign_change
from artifact_sync.trust.lists import target_file
from artifact_sync.trust.publisher import Publisher
from artifact_sync.trust.reader import TrustedReader
from artifact_sync.trust.roles import Expiries, Roles
from artifact_sync.trust.signing import with_signatures

ALL = ("root-1", "alice", "bob", "carol", "releaser", "mallory")


class Dying(Exception):  # noqa: N818 - stands for a kill, not for an error
    """The process ended here."""


class DyingStore:
    """A store that lets `writes` writes through and then ends the process."""

    def __init__(self, store, *, writes: int) -> None:
        self._store, self._left = store, writes

    def __getattr__(self, name: str):
        return getattr(self._store, name)

    def create(self, *args: object, **options: object) -> None:
        self._count()
        self._store.create(*args, **options)

    def replace(self, *args: object) -> None:
        self._count()
        self._store.replace(*args)

    def _count(self) -> None:
        if self._left == 0:
            raise Dying
        self._left -= 1


def signers(site, *names: str):
    return [site.keys[name] for name in names or ALL]


def roles_with(site, **changes: object) -> Roles:
    present = site.roles
    values = {
        "root": present.root,
        "root_threshold": present.root_threshold,
        "approvers": present.approvers,
        "approval_threshold": present.approval_threshold,
        "releaser": present.releaser,
    }
    return Roles(**(values | changes))


def test_trust_is_set_up_once(site) -> None:
    with pytest.raises(RefusedError, match=r"photos has signed metadata already.*liftgate keys rotate"):
        initialise_trust(site.registry, site.roles, signers(site), now=site.now)


def test_trust_needs_every_demanded_key(site) -> None:
    site.model = "faces"
    with pytest.raises(RefusedError, match=r"signatures are missing: 1 more of the new approvers.*liftgate keys sign"):
        initialise_trust(site.registry, site.roles, signers(site, "root-1", "releaser"), now=site.now)
    with pytest.raises(RefusedError, match=r"the releaser's key \(releaser\) is not at hand"):
        initialise_trust(site.registry, site.roles, signers(site, "root-1", "alice"), now=site.now)


@pytest.mark.parametrize("writes", range(5))
def test_setting_up_that_was_cut_off_is_repeated(site, writes: int) -> None:
    site.model = "faces"
    store, site.store = site.store, DyingStore(site.store, writes=writes)
    with pytest.raises(Dying):
        initialise_trust(site.registry, site.roles, signers(site), now=site.now)
    site.store = store
    later = site.now + timedelta(minutes=5)
    site.root_bytes = initialise_trust(site.registry, site.roles, signers(site), now=later)
    assert site.reader("host").refresh().roles == site.roles


def test_setting_up_by_others_in_between_is_noticed(site) -> None:
    site.model = "faces"
    store, site.store = site.store, DyingStore(site.store, writes=2)
    with pytest.raises(Dying):
        initialise_trust(site.registry, site.roles, signers(site), now=site.now)
    site.store = store
    other = roles_with(site, releaser=site.keys["mallory"].public)
    with pytest.raises(RefusedError, match="somebody began to set it up for faces with other keys"):
        initialise_trust(site.registry, other, signers(site), now=site.now)


def test_holders_on_different_machines_sign_one_after_the_other(site) -> None:
    site.model = "faces"
    roles = roles_with(site, approval_threshold=2)
    change = draft_change(roles, model="faces", now=site.now, view=None)
    assert missing_signatures(change, view=None) == ("1 more of the new root keys", "2 more of the new approvers")
    for name in ("bob", "root-1", "mallory", "alice"):
        change = TrustChange.from_json(sign_change(change, site.keys[name], view=None).to_json())
    assert missing_signatures(change, view=None) == ()
    site.root_bytes = publish_initial(change, site.registry, signers(site, "releaser"), now=site.now)
    assert site.reader("host").refresh().roles == roles


def test_a_change_for_another_model_is_refused(site) -> None:
    change = draft_change(site.roles, model="faces", now=site.now, view=None)
    site.model = "cats"
    with pytest.raises(RefusedError, match="it is for model 'faces', this bucket's is 'cats'"):
        publish_initial(change, site.registry, signers(site), now=site.now)


def test_a_change_that_hides_a_version_is_not_signed(site) -> None:
    view = site.reader().refresh()
    change = draft_change(site.roles, model="photos", now=site.now, view=view)
    hidden = target_file("versions/000001.json", b"never approved")
    targets = site.roles.targets_document({hidden.path: hidden}, number=2, expires=site.now + timedelta(days=9))
    forged = change.model_copy(update={"targets_file": with_signatures(targets, {}).decode()})
    with pytest.raises(RefusedError, match="it holds more than a change of keys"):
        sign_change(forged, site.keys["alice"], view=view)


def test_a_change_that_hides_another_holder_is_not_signed(site) -> None:
    change = draft_change(site.roles, model="photos", now=site.now, view=None)
    root = roles_with(site, releaser=site.keys["mallory"].public).root_document(
        number=1, expires=site.now + timedelta(days=9)
    )
    forged = change.model_copy(update={"root_file": with_signatures(root, {}).decode()})
    assert forged.roles == site.roles, "a person is shown the right releaser"
    with pytest.raises(RefusedError, match="it holds more than a change of keys"):
        sign_change(forged, site.keys["root-1"], view=None)


def test_roles_that_cannot_be_met_are_refused(site) -> None:
    for threshold in (0, 3):
        with pytest.raises(SettingsError, match=rf"{threshold} of 2 approver keys must sign"):
            roles_with(site, approval_threshold=threshold)


ROTATIONS = {
    "a second approval": {"approval_threshold": 2},
    "another approver": {"approvers": ("bob", "carol")},
    "all approvers": {"approvers": ("carol",)},
    "the releaser": {"releaser": "carol"},
    "the root key": {"root": ("mallory",)},
    "everything": {"root": ("carol",), "approvers": ("mallory",), "releaser": "bob"},
}


def rotation(site, name: str) -> Roles:
    changes = dict(ROTATIONS[name])
    for role in ("root", "approvers"):
        if role in changes:
            changes[role] = tuple(site.keys[holder].public for holder in changes[role])
    if "releaser" in changes:
        changes["releaser"] = site.keys[changes["releaser"]].public
    return roles_with(site, **changes)


@pytest.mark.parametrize("name", ROTATIONS)
def test_hosts_follow_a_rotation_with_the_root_that_they_were_given(site, name: str) -> None:
    site.promote(site.approved_run("run-a"))
    host, roles = site.reader("host"), rotation(site, name)
    host.refresh()
    rotate_trust(site.reader(), roles, signers(site), now=site.now)
    for reader in (host, site.fresh_reader()):
        view = reader.refresh()
        assert view.roles == roles
        assert view.latest_release().stable == 1


@pytest.mark.parametrize("writes", range(12))
@pytest.mark.parametrize("name", ["the releaser", "everything"])
def test_a_rotation_that_was_cut_off_never_leaves_hosts_without_a_state(site, name: str, writes: int) -> None:
    site.promote(site.approved_run("run-a"))
    host, roles = site.reader("host"), rotation(site, name)
    host.refresh()
    try:
        rotate_trust(site.reader(store=DyingStore(site.store, writes=writes)), roles, signers(site), now=site.now)
    except Dying:
        for reader in (host, site.fresh_reader()):
            assert reader.refresh().latest_release().stable == 1
        rotate_trust(site.reader(), roles, signers(site), now=site.now)
    for reader in (host, site.fresh_reader()):
        assert reader.refresh().roles == roles


@pytest.mark.parametrize("writes", range(10))
def test_a_releasers_key_that_is_lost_is_replaced_in_spite_of_a_cut(site, writes: int) -> None:
    site.promote(site.approved_run("run-a"))
    host, roles = site.reader("host"), rotation(site, "the releaser")
    host.refresh()
    hands = signers(site, "root-1", "alice", "carol")
    try:
        rotate_trust(site.reader(store=DyingStore(site.store, writes=writes)), roles, hands, now=site.now)
    except Dying:
        rotate_trust(site.reader(), roles, hands, now=site.now)
    for reader in (host, site.fresh_reader()):
        view = reader.refresh()
        assert (view.roles, view.latest_release().stable) == (roles, 1)


def test_after_a_rotation_the_old_releaser_cannot_publish(site) -> None:
    site.promote(site.approved_run("run-a"))
    rotate_trust(site.reader(), rotation(site, "the releaser"), signers(site), now=site.now)
    view = site.publisher().view()
    record = ReleaseRecord(
        model="photos", number=2, kind="rollback", stable=1, reason="r", by="b",
        previous_sha256=view.release_sha256(1), created_at=site.now,
    )  # fmt: skip
    with pytest.raises(TrustError, match="0 of the 1 signatures that releases needs"):
        site.publisher().publish_release(record, now=site.now)


def test_a_rotation_needs_the_present_root_keys(site) -> None:
    with pytest.raises(RefusedError, match="1 more of the present root keys"):
        rotate_trust(
            site.reader(), rotation(site, "the root key"), signers(site, "mallory", "alice", "releaser"), now=site.now
        )


def test_a_rotation_that_was_drafted_before_a_version_is_drafted_anew(site) -> None:
    view = site.reader().refresh()
    change = draft_change(rotation(site, "a second approval"), model="photos", now=site.now, view=view)
    for key in signers(site):
        change = sign_change(change, key, view=view)
    site.promote(site.approved_run("run-a"))
    with pytest.raises(LostRaceError, match=r"drafted for targets 2, but the bucket is at 2|created by somebody else"):
        publish_rotation(change, site.reader(), signers(site), view=view, now=site.now)
    assert site.fresh_reader().refresh().roles == site.roles


def test_a_change_that_is_published_twice_changes_nothing_more(site) -> None:
    view = site.reader().refresh()
    change = draft_change(rotation(site, "the releaser"), model="photos", now=site.now, view=view)
    for key in signers(site):
        change = sign_change(change, key, view=view)
    for _ in range(2):
        publish_rotation(change, site.reader(), signers(site), view=view, now=site.now)
    assert site.registry.metadata_numbers("root") == (1, 2)
    assert site.fresh_reader().refresh().roles == rotation(site, "the releaser")


def test_expired_lists_are_signed_anew_by_a_rotation(tmp_path, site) -> None:
    short = Expiries(root=timedelta(seconds=-1), targets=timedelta(seconds=-1))
    old = type(site)(tmp_path, expiries=short).initialise()
    with pytest.raises(ExpiredError, match="liftgate keys rotate"):
        old.reader("host").refresh()
    rotate_trust(old.reader(), old.roles, signers(old), now=old.now)
    assert old.reader("host").refresh().roles == old.roles
    assert Publisher(old.reader()).view().roles == old.roles


def test_readers_of_one_directory_take_turns(site) -> None:
    site.promote(site.approved_run("run-a"))
    problems: list[Exception] = []

    def read() -> None:
        reader = TrustedReader(site.registry, metadata_dir=site.path / "host", root=site.root_bytes)
        try:
            for _ in range(20):
                reader.refresh()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is one too many
            problems.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
