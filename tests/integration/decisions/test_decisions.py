"""The record of decisions when somebody else can write to the bucket."""

from __future__ import annotations

import pytest

from artifact_sync.errors import AlreadyExistsError, RefusedError, TrustError
from artifact_sync.store import read_bytes
from validation.approvals.approval_records import Decision, SignedDecision


def stored(site) -> list[tuple[str, bytes]]:
    """Every entry in the bucket by key."""
    keys = sorted(info.key for info in site.store.list("photos/decisions/"))
    return [(key, read_bytes(site.store, key, max_bytes=100_000)) for key in keys]


def put(site, run, number: int, data: bytes) -> None:
    site.registry.create_decision(verdict_of(site, run), number, data)


def verdict_of(site, run) -> str:
    return site.standing(run).log.entries[0].decision.verdict_sha256


def forged(site, run, *, number: int, by: str = "bob", signer: str = "mallory", **fields) -> bytes:
    """A rejection in somebody's name, signed with another key."""
    decision = Decision(
        model="photos",
        run_id=run.run_id,
        verdict_sha256=verdict_of(site, run),
        number=number,
        previous_sha256=None,
        kind="rejection",
        by=by,
        key_id=site.keys[by].public.key_id,
        reason="no",
        decided_at=site.now,
    ).model_copy(update=fields)
    return SignedDecision(decision=decision, signature=site.keys[signer].sign(decision.to_json())).to_json()


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, "not signed by bob's key; it is forged or was changed"),
        ({"by": "mallory", "signer": "mallory"}, "the key that claims to be mallory's is not a trusted approver's"),
        ({"signer": "bob", "verdict_sha256": "0" * 64}, "signed for another verdict or another place"),
        ({"signer": "bob", "model": "other"}, "signed for another verdict or another place"),
        ({"signer": "bob", "kind": "promotion"}, "the key that claims to be bob's is not the releaser's"),
    ],
)
def test_a_forged_entry_is_named_left_out_and_written_after(site, fields, problem: str) -> None:
    run = site.approved_run("run-a")
    put(site, run, 2, forged(site, run, number=2, **fields))
    standing = site.standing(run)
    assert (len(standing.log.entries), standing.rejections, standing.log.last_number) == (1, (), 2)
    (sentence,) = standing.refused
    assert sentence.startswith("000002.decision.json in the bucket does not count")
    assert problem in sentence
    assert site.reject(run).signed.decision.number == 3
    with pytest.raises(RefusedError, match="is rejected"):
        site.promote(run)


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_decision_is_named_and_left_out(site, data: bytes) -> None:
    run = site.approved_run("run-a")
    put(site, run, 7, data)
    standing = site.standing(run)
    assert standing.refused == ("000007.decision.json in the bucket does not count: it is no signed decision.",)
    assert site.promote(run).release.number == 1


def test_a_revocation_cannot_be_played_again(site) -> None:
    run = site.approved_run("run-a")
    for _ in range(2):
        site.reject(run)
        site.revoke(run)
    site.reject(run)
    revocations = [data for _, data in stored(site) if b'"revocation"' in data]
    for number, data in enumerate(revocations, start=10):
        put(site, run, number, data)
    standing = site.standing(run)
    assert [entry.decision.by for entry in standing.rejections] == ["bob"]
    assert len(standing.refused) == len(revocations)


def test_a_rejection_on_another_run_cannot_be_moved_here(site) -> None:
    run, other = site.approved_run("run-a"), site.approved_run("run-b")
    site.reject(other)
    moved = next(data for _, data in stored(site) if b'"rejection"' in data)
    put(site, run, 2, moved)
    assert site.standing(run).rejections == ()
    assert site.promote(run).release.number == 1


def test_an_entry_that_others_rest_on_is_missed(site) -> None:
    run = site.approved_run("run-a")
    site.reject(run, "bob")
    site.revoke(run, "bob")
    site.store.delete(stored(site)[1][0])
    for path in run.approvals.glob("decision.000002.*"):
        path.unlink()
    with pytest.raises(TrustError, match=r"entry 3 \(revocation by bob\) follows the entry [0-9a-f]{64}, which is nei"):
        site.standing(run)
    with pytest.raises(TrustError, match="Somebody removed it"):
        site.promote(run)


def test_an_approval_counts_when_the_record_has_it_and_approving_again_finishes(site) -> None:
    run = site.run("run-a")
    signed = site.approve(run)
    site.store.delete(stored(site)[0][0])
    for path in run.approvals.glob("decision.*"):
        path.unlink()
    standing = site.standing(run)
    assert (standing.approvals, standing.unrecorded) == ((), (signed,))
    assert "does not count yet" in standing.refused[0]
    with pytest.raises(RefusedError, match="has 0 of 1 approvals"):
        site.promote(run)
    assert site.approve(run) == signed
    assert site.promote(run).release.number == 1


def test_an_entry_under_another_word_takes_no_part(site) -> None:
    run = site.approved_run("run-a")
    # Not even one of a trusted key: a number is given once.
    second = forged(site, run, number=1, signer="bob")
    site.store.create(f"photos/decisions/{verdict_of(site, run)}/000001.reject.json", second)
    standing = site.standing(run)
    assert (len(standing.log.entries), standing.rejections, standing.refused) == (1, (), ())
    assert site.promote(run).release.number == 1


def test_a_number_is_given_once(site) -> None:
    run = site.approved_run("run-a")
    with pytest.raises(AlreadyExistsError):
        put(site, run, 1, forged(site, run, number=1, signer="bob"))
