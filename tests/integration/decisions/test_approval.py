from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from artifact_sync.canonical import canonical_json
from artifact_sync.errors import ExpiredError, IntegrityError, RefusedError, TrustError
from artifact_sync.registry import Registry
from artifact_sync.trust.roles import Expiries
from validation.approvals.approval import ApprovalTerms, approve
from validation.approvals.approval_records import Proposal, SignedApproval
from validation.checks.verdict import ChampionReference, Verdict
from validation.releases.promote import Beside


def test_an_approval_binds_a_person_to_everything_that_was_judged(site) -> None:
    run = site.run("run-a")
    approval = site.approve(run).approval
    assert (approval.approver, approval.reason, approval.version) == ("alice", "fewer mistakes at night", 1)
    assert approval.candidate_manifest_sha256 == run.read_manifest().sha256
    assert sorted(path.name.split(".")[0] for path in run.approvals.iterdir()) == ["alice", "decision", "proposal"]


def test_approving_again_returns_what_was_signed_before(site) -> None:
    run = site.run("run-a")
    assert site.approve(run, reason="first words") == site.approve(run, reason="other words")


def test_two_approvers_sign_the_same_bytes(strict_site) -> None:
    run = strict_site.run("run-a")
    first, second = strict_site.approve(run, "alice"), strict_site.approve(run, "bob")
    assert first.approval.targets_sha256 == second.approval.targets_sha256
    assert len(list(run.approvals.glob("proposal.*"))) == 1
    standing = strict_site.standing(run)
    assert (len(standing.approvals), standing.threshold, standing.missing, standing.is_met) == (2, 2, (), True)


def test_the_standing_names_who_is_missing(strict_site) -> None:
    run = strict_site.run("run-a")
    assert strict_site.standing(run).missing == ("alice", "bob")
    strict_site.approve(run, "alice")
    standing = strict_site.standing(run)
    assert (standing.missing, standing.is_met) == (("bob",), False)


@pytest.mark.parametrize("outcome", ["not better", "cannot tell"])
def test_only_a_better_candidate_can_be_approved(site, outcome: str) -> None:
    run = site.run("run-a", outcome=outcome)
    with pytest.raises(RefusedError, match=rf"refused: the verdict on run run-a is '{outcome}' \(accuracy: 0.90"):
        site.approve(run)


def test_without_a_verdict_the_way_to_get_one_is_told(site) -> None:
    run = site.run("run-a")
    run.verdict_json.unlink()
    with pytest.raises(RefusedError, match=r"run run-a has no verdict. Run `liftgate validate run-a` first"):
        site.approve(run)


def test_a_stale_verdict_is_refused_and_says_what_is_served_now(site) -> None:
    run = site.run("run-b")
    site.promote(site.approved_run("run-a"))
    with pytest.raises(
        RefusedError,
        match=r"run run-b is stale. It compared the candidate with no champion, but version 1 is served now: rita "
        r"promoted version 1 \(run run-a\) with release 1. Run `liftgate validate run-b`",
    ):
        site.approve(run)


def test_a_new_release_of_the_same_champion_does_not_make_a_verdict_stale(site) -> None:
    site.promote(site.approved_run("run-a"))
    run = site.run("run-c")
    site.promote(site.approved_run("run-b"), beside=Beside("canary", 5))
    assert site.approve(run).approval.version == 3


def test_nobody_approves_the_own_work_unless_it_is_allowed(site) -> None:
    run = site.run("run-a", trained_by="Alice@gpu-1")
    with pytest.raises(RefusedError, match=r"refused: alice trained it \(as 'Alice@gpu-1'\), and nobody approves"):
        site.approve(run)
    reader, key = site.reader("alice"), site.keys["alice"]
    terms = ApprovalTerms(may_approve_own=True)
    assert approve(run, trust=reader, signer=key, reason="alone here", now=site.now, terms=terms)


def test_a_key_that_is_no_approvers_is_refused(site) -> None:
    with pytest.raises(RefusedError, match=r"the key of mallory is not a trusted approver's \(those are alice, bob\)"):
        site.approve(site.run("run-a"), "mallory")


@pytest.mark.parametrize("reason", ["", "  \n\t"])
def test_an_approval_needs_a_reason(site, reason: str) -> None:
    with pytest.raises(RefusedError, match=r"it has no reason.*liftgate approve run-a --because"):
        site.approve(site.run("run-a"), reason=reason)


def test_a_reason_may_have_lines_but_no_end(site) -> None:
    run = site.run("run-a")
    with pytest.raises(RefusedError, match="the reason has 100000 characters"):
        site.approve(run, reason="x" * 100_000)
    assert site.approve(run, reason="one\ntwo – drei 🌙\n").approval.reason == "one\ntwo – drei 🌙"


@pytest.mark.parametrize("name", ["report.json", "policy.json"])
def test_evidence_that_was_changed_after_validation_is_refused(site, name: str) -> None:
    run = site.run("run-a")
    (run.path / name).write_bytes(b"{}")
    with pytest.raises(IntegrityError, match=rf"{name} is not what the verdict was made of"):
        site.approve(run)


def test_an_export_that_was_changed_after_validation_is_refused(site) -> None:
    run = site.run("run-a")
    (run.export / "saved_model.pb").write_bytes(b"another graph")
    with pytest.raises(IntegrityError, match=r"saved_model\.pb"):
        site.approve(run)


def test_a_manifest_that_was_changed_with_the_export_is_refused(site) -> None:
    run, other = site.run("run-a"), site.run("run-b")
    run.manifest_json.write_bytes(other.manifest_json.read_bytes())
    with pytest.raises(IntegrityError, match=r"manifest\.json is not what the verdict was made of"):
        site.approve(run)


def test_a_verdict_on_another_run_is_refused(site) -> None:
    run, other = site.run("run-a"), site.run("run-b")
    run.verdict_json.write_bytes(other.verdict_json.read_bytes())
    with pytest.raises(RefusedError, match="folder run-a holds run run-a of model 'photos' with a verdict on"):
        site.approve(run)


def proposal_path(run) -> Path:
    (path,) = run.approvals.glob("proposal.*")
    return path


def test_a_proposal_that_was_changed_is_not_signed(strict_site) -> None:
    run = strict_site.run("run-a")
    strict_site.approve(run, "alice")
    path = proposal_path(run)
    proposal = Proposal.from_json(path.read_bytes())
    path.write_bytes(proposal.model_copy(update={"version": 7}).to_json())
    with pytest.raises(IntegrityError, match="its version record should be"):
        strict_site.approve(run, "bob")


def test_a_proposal_that_is_believed_for_too_long_is_not_signed(strict_site) -> None:
    run = strict_site.run("run-a")
    key, reader = strict_site.keys["alice"], strict_site.reader()
    forever = Expiries(targets=timedelta(days=36_500))
    terms = ApprovalTerms(expiries=forever)
    approve(run, trust=reader, signer=key, reason="for ever", now=strict_site.now, terms=terms)
    with pytest.raises(RefusedError, match="which this machine would not do"):
        strict_site.approve(run, "bob")


@pytest.mark.parametrize("field", ["statement_signature", "targets_signature", "reason", "file"])
def test_a_forged_approval_does_not_count(strict_site, field: str) -> None:
    run = strict_site.run("run-a")
    strict_site.approve(run, "alice")
    (path,) = run.approvals.glob("alice.*")
    document = json.loads(path.read_bytes())
    if field == "reason":
        document["approval"]["reason"] = "other words"
    elif field != "file":
        document[field] = "0" * 128
    path.write_bytes(canonical_json(document) if field != "file" else b"not json")
    standing = strict_site.standing(run)
    assert (standing.approvals, standing.missing) == ((), ("alice", "bob"))
    assert path.name in standing.refused[0]
    assert strict_site.approve(run, "alice").approval.reason == "fewer mistakes at night"
    standing = strict_site.standing(run)
    assert (standing.missing, len(standing.refused)) == (("bob",), 1)


def test_one_approver_cannot_count_twice(strict_site) -> None:
    run = strict_site.run("run-a")
    signed = strict_site.approve(run, "alice")
    (path,) = run.approvals.glob("alice.*")
    path.with_name(path.name.replace("alice", "bob")).write_bytes(path.read_bytes())
    mallory = strict_site.keys["mallory"]
    lie = signed.approval.model_copy(update={"approver": "bob", "key_id": mallory.public.key_id})
    forged = SignedApproval(
        approval=lie, statement_signature=mallory.sign(lie.to_json()), targets_signature=signed.targets_signature
    )
    path.with_name(path.name.replace("alice", "robert")).write_bytes(forged.to_json())
    standing = strict_site.standing(run)
    assert (len(standing.approvals), standing.is_met) == (1, False)
    assert "claims to be bob's" in standing.refused[0]


def test_an_expired_state_is_no_ground_to_approve_on(site) -> None:
    run = site.run("run-a")
    site.expiries = Expiries(timestamp=timedelta(seconds=-1))
    site.publisher().renew(now=site.now, is_forced=True)
    with pytest.raises(ExpiredError, match="liftgate keys refresh"):
        site.approve(run)


def test_a_half_published_promotion_must_be_finished_first(site) -> None:
    site.registry.create_metadata("targets", 2, b"{}")
    with pytest.raises(RefusedError, match=r"half-published in the bucket. Run `liftgate keys refresh`"):
        site.approve(site.run("run-a"))


def test_a_run_that_is_published_needs_no_more_approvals(site) -> None:
    run = site.approved_run("run-a")
    site.promote(run)
    assert site.approve(run, "alice").approval.approver == "alice"
    with pytest.raises(RefusedError, match="it is published already"):
        site.approve(run, "bob")


def test_a_bucket_that_is_not_to_be_believed_stops_the_approver(site) -> None:
    site.registry.replace_timestamp(b"{}")
    with pytest.raises(TrustError):
        site.approve(site.run("run-a"))


def test_an_approval_expires_and_its_approver_may_look_again(site) -> None:
    run = site.run("run-a")
    first = site.approve(run, terms=ApprovalTerms(days=3))
    assert first.approval.expires_at == site.now + timedelta(days=3)
    later = site.now + timedelta(days=3)
    assert site.standing(run, now=later - timedelta(seconds=1)).approvals == (first,)
    standing = site.standing(run, now=later)
    assert (standing.approvals, standing.missing) == ((), ("alice", "bob"))
    assert "it expired on" in standing.refused[0]
    with pytest.raises(RefusedError, match=r"has 0 of 1 approvals .* it expired on .*; alice may approve again"):
        site.promote(run, now=later)
    second = site.approve(run, now=later)
    assert site.standing(run, now=later).approvals == (second,)


def test_an_approval_of_a_published_version_expires_no_more(site) -> None:
    site.promote(site.approved_run("run-a"))
    run = site.approved_run("run-b")
    site.promote(run, beside=Beside("canary", 5))
    assert site.promote(run, now=site.now + timedelta(days=40)).release.stable == 2


def test_an_approval_that_is_dated_in_the_future_does_not_count(site) -> None:
    run = site.run("run-a")
    site.approve(run, now=site.now + timedelta(minutes=9))
    assert site.standing(run).is_met
    other = site.run("run-b")
    site.approve(other, now=site.now + timedelta(minutes=11))
    assert "which is yet to come; compare the clocks" in site.standing(other).refused[0]


@pytest.mark.parametrize("page", [None, "<p>a report of yesterday</p>"])
def test_without_the_page_that_shows_this_report_nobody_approves(site, page: str | None) -> None:
    run = site.run("run-a")
    run.report_html.unlink() if page is None else run.report_html.write_text(page)
    problem = "is missing" if page is None else "shows another report than [0-9a-f]{64}"
    with pytest.raises(IntegrityError, match=rf"report\.html {problem}.*liftgate validate run-a"):
        site.approve(run)
    run.report_json.unlink()
    with pytest.raises(IntegrityError, match=r"report\.json is not what the verdict was made of .*file is missing"):
        site.approve(run)


def test_an_approval_counts_for_the_page_that_was_looked_at(site) -> None:
    run = site.approved_run("run-a")
    run.report_html.write_text(run.report_html.read_text() + "<p>and more</p>")
    assert "was given to something else (page differ)" in site.standing(run).refused[0]
    with pytest.raises(RefusedError, match="has 0 of 1 approvals"):
        site.promote(run)


@pytest.mark.parametrize(
    "field",
    [
        "candidate_manifest_sha256",
        "champion",
        "holdout_sha256",
        "policy_sha256",
        "report_sha256",
        "page_sha256",
        "ledger_number",
        "ledger_sha256",
        "verdict_sha256",
        "version_sha256",
        "targets_sha256",
        "version",
        "run_id",
        "model",
    ],
)
def test_an_approval_counts_for_just_the_evidence_that_it_names(site, field: str) -> None:
    """The approver's own key signs a statement about something else beside the right list of versions."""
    run = site.run("run-a")
    signed = site.approve(run)
    key = site.keys["alice"]
    other = {
        "champion": ChampionReference(release=1, version=1, manifest_sha256="0" * 64),
        "ledger_number": 9,
        "version": 9,
        "run_id": "run-z",
        "model": "other",
    }
    statement = signed.approval.model_copy(update={field: other.get(field, "0" * 64)})
    (path,) = run.approvals.glob("alice.*")
    changed = signed.model_copy(update={"approval": statement, "statement_signature": key.sign(statement.to_json())})
    path.write_bytes(changed.to_json())
    standing = site.standing(run)
    assert standing.approvals == ()
    assert f"was given to something else ({field.removesuffix('_sha256')} differ)" in standing.refused[0]


def test_a_verdict_that_asked_no_sealed_photos_is_not_approved(site) -> None:
    run = site.run("run-a")
    verdict = Verdict.from_json(run.verdict_json.read_bytes())
    run.verdict_json.write_bytes(verdict.model_copy(update={"budget": None}).to_json())
    with pytest.raises(RefusedError, match=r"'better' without an answer of the sealed photos"):
        site.approve(run)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"number": 2}, "the ledger in the bucket has no such try"),
        ({"entry_sha256": "0" * 64}, "the ledger has [0-9a-f]{64} there"),
    ],
)
def test_a_verdict_that_a_trainer_wrote_is_not_in_the_ledger(site, change, problem: str) -> None:
    run = site.run("run-a")
    verdict = Verdict.from_json(run.verdict_json.read_bytes())
    budget = verdict.budget.model_copy(update=change)
    run.verdict_json.write_bytes(verdict.model_copy(update={"budget": budget}).to_json())
    with pytest.raises(IntegrityError, match=problem):
        site.approve(run)


def test_a_ledger_whose_listing_is_torn_is_read_again(site, monkeypatch: pytest.MonkeyPatch) -> None:
    run = site.run("run-a")
    read, calls = Registry.budget_entries, []

    def torn(registry: Registry, holdout_sha256: str) -> tuple[tuple[int, str, bytes], ...]:
        calls.append(holdout_sha256)
        found = read(registry, holdout_sha256)
        return found[1:] if len(calls) == 1 else found

    monkeypatch.setattr(Registry, "budget_entries", torn)
    assert site.approve(run).approval.run_id == "run-a"
    assert len(calls) == 2


def test_a_verdict_cannot_borrow_another_candidates_try(site) -> None:
    run, other = site.run("run-a"), site.run("run-b")
    verdict, lent = (Verdict.from_json(one.verdict_json.read_bytes()) for one in (run, other))
    borrowed = {"budget": lent.budget, "holdout_sha256": lent.holdout_sha256}
    run.verdict_json.write_bytes(verdict.model_copy(update=borrowed).to_json())
    with pytest.raises(IntegrityError, match="that try was about another candidate, champion or policy"):
        site.approve(run)
