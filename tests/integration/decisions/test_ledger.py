"""The ledger: what it spends, what it remembers, and what it refuses."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from artifact_sync.canonical import sha256_hex
from artifact_sync.directory_store import DirectoryStore
from artifact_sync.errors import BudgetSpentError, IntegrityError, LostRaceError, RefusedError, StoreError, TrustError
from artifact_sync.registry import Registry
from validation.budgets.ledger import BudgetLedger
from validation.budgets.ledger_records import Spending
from validation.budgets.ledger_refusals import Attempt, fresh_labels
from validation.checks.policy import AccuracyRule, BudgetRule, Policy
from validation.checks.verdict import BudgetUse
from validation.photos.holdout import HoldoutItem, HoldoutRecord

NOW = datetime(2026, 11, 20, tzinfo=UTC)
ALPHA = 0.05


def policy(*, alpha: float = ALPHA, tries: int = 10, promotions: int = 2, smallest_gain: float = 0.01) -> Policy:
    return Policy(
        accuracy=AccuracyRule(test="superiority", alpha=alpha, minimum_photos=10, smallest_gain=smallest_gain),
        budget=BudgetRule(tries=tries, promotions=promotions),
    )


def holdout(photos: range = range(20), *, opened: range = range(2)) -> HoldoutRecord:
    items = [
        HoldoutItem(
            sha256=sha256_hex(f"photo {number}".encode()),
            extension="png",
            label="ab"[number % 2],
            source=f"{number}.png",
            is_open=number in opened,
        )
        for number in photos
    ]
    return HoldoutRecord(labels=("a", "b"), items=tuple(sorted(items, key=lambda item: item.sha256)))


def attempt(name: str, *, champion: str | None = "champion", rules: Policy | None = None) -> Attempt:
    return Attempt(
        run_id=f"run-{name}",
        candidate_manifest_sha256=sha256_hex(name.encode()),
        champion_manifest_sha256=None if champion is None else sha256_hex(champion.encode()),
        policy=rules or policy(),
        by="tara",
    )


class Site:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.registry = Registry(DirectoryStore(path / "bucket"), model="photos")
        self.seen_path = path / "machine" / "seen.txt"

    def ledger(self, record: HoldoutRecord | None = None, *, remembers: bool = True) -> BudgetLedger:
        return BudgetLedger(self.registry, record or holdout(), seen_path=self.seen_path if remembers else None)

    def answer(self, name: str, *, is_confirmed: bool = False, rules: Policy | None = None) -> BudgetUse:
        ledger = self.ledger()
        return self.conclude(ledger, ledger.begin(attempt(name, rules=rules), now=NOW), is_confirmed=is_confirmed)

    @staticmethod
    def conclude(ledger: BudgetLedger, spending: Spending, *, is_confirmed: bool = False) -> BudgetUse:
        return ledger.conclude(spending, is_confirmed=is_confirmed, sealed_photos=18, open_disagreement=0.05, now=NOW)

    def object_path(self, name: str, record: HoldoutRecord | None = None) -> Path:
        (found,) = (self.path / "bucket").rglob(f"{(record or holdout()).sha256}/{name}")
        return found


@pytest.fixture
def site(memory_path: Path) -> Site:
    return Site(memory_path)


def test_a_try_is_written_with_its_level_before_it_is_answered(site: Site) -> None:
    spending = site.ledger().begin(attempt("one"), now=NOW)
    assert (spending.number, spending.level, spending.outcome) == (1, pytest.approx(ALPHA / 2), None)
    assert site.object_path("000001.try.json").read_bytes() == spending.entry.to_json()
    assert list((site.path / "bucket").rglob("*.outcome.json")) == []


def test_an_answer_says_what_is_left(site: Site) -> None:
    use = site.answer("one")
    assert (use.number, use.sealed_photos, use.is_confirmed, use.tries_left, use.is_opened) == (1, 18, False, 9, False)
    assert use.level == pytest.approx(ALPHA / 2)
    assert site.answer("two").level == pytest.approx(ALPHA / 18)
    assert use.entry_sha256 == sha256_hex(site.object_path("000001.outcome.json").read_bytes())


def test_the_same_attempt_again_is_the_same_try_even_on_another_machine(site: Site) -> None:
    ledger = site.ledger()
    first = ledger.begin(attempt("one"), now=NOW)
    assert ledger.begin(attempt("one"), now=NOW) == first
    use = site.conclude(ledger, first, is_confirmed=True)
    assert site.ledger().admit(attempt("one"), now=NOW).level == first.level
    again = site.ledger(remembers=False).begin(attempt("one"), now=NOW)
    assert again.number == 1
    assert again.outcome is not None
    assert again.outcome.is_confirmed
    assert site.ledger().use_of(again) == use


@pytest.mark.parametrize("changed", ["candidate", "champion", "policy"])
def test_another_candidate_champion_or_policy_is_another_try(site: Site, changed: str) -> None:
    site.answer("one")
    other = {
        "candidate": attempt("two"),
        "champion": attempt("one", champion="next"),
        "policy": attempt("one", rules=policy(smallest_gain=0.02)),
    }[changed]
    assert site.ledger().begin(other, now=NOW).number == 2


def test_a_try_without_an_answer_counts_as_not_confirmed_and_can_be_finished_after_all(site: Site) -> None:
    pending = site.ledger().begin(attempt("one"), now=NOW)
    second = site.ledger().begin(attempt("two"), now=NOW)
    assert second.level == pytest.approx(ALPHA / 18)
    assert second.entry.pending == (1,)
    site.conclude(site.ledger(), second)
    use = site.conclude(site.ledger(), site.ledger().begin(attempt("one"), now=NOW), is_confirmed=True)
    assert (use.number, use.level, use.tries_left) == (1, pending.level, 8)
    # What the first one's confirmation leaves is halved by the try that did not wait for it.
    assert site.ledger().begin(attempt("three"), now=NOW).level == pytest.approx(ALPHA / 4 / 8)


def test_the_first_outcome_counts_and_another_one_is_refused(site: Site) -> None:
    ledger = site.ledger()
    spending = ledger.begin(attempt("one"), now=NOW)
    use = site.conclude(ledger, spending, is_confirmed=False)
    assert site.conclude(site.ledger(), spending, is_confirmed=False) == use
    with pytest.raises(LostRaceError, match="first outcome counts"):
        site.conclude(site.ledger(), spending, is_confirmed=True)


def test_a_try_of_another_holdout_cannot_be_concluded_here(site: Site) -> None:
    spending = site.ledger().begin(attempt("one"), now=NOW)
    other = site.ledger(holdout(range(30, 50)))
    with pytest.raises(IntegrityError, match="not one that began with holdout"):
        site.conclude(other, spending)
    assert other.state().terms is None


@pytest.mark.parametrize(("tries", "promotions", "answers"), [(3, 2, "nnn"), (5, 2, "nyy"), (1, 1, "n")])
def test_when_it_is_spent_it_is_opened_and_asks_for_new_labels(
    site: Site, tries: int, promotions: int, answers: str
) -> None:
    rules = policy(tries=tries, promotions=promotions)
    uses = [site.answer(f"{i}", is_confirmed=answer == "y", rules=rules) for i, answer in enumerate(answers)]
    assert [use.is_opened for use in uses] == [False] * (len(answers) - 1) + [True]
    needed = fresh_labels(rules, 0.05, open_share=0.1)
    with pytest.raises(BudgetSpentError, match=f"about {needed:,} new labelled photos"):
        site.ledger().admit(attempt("late", rules=rules), now=NOW)
    with pytest.raises(BudgetSpentError):
        site.ledger().begin(attempt("late", rules=rules), now=NOW)
    # Who was judged is judged.
    assert site.ledger().begin(attempt("0", rules=rules), now=NOW).outcome is not None


def test_a_spent_budget_names_the_run_that_is_not_finished(site: Site) -> None:
    rules = policy(tries=1, promotions=1)
    site.ledger().begin(attempt("one", rules=rules), now=NOW)
    with pytest.raises(BudgetSpentError, match="liftgate validate run-one"):
        site.ledger().admit(attempt("two", rules=rules), now=NOW)


def test_the_labels_asked_for_decide_at_the_first_level(site: Site) -> None:
    rules = policy()
    # FACTS: a gain of 1 point with 5 % differing needs about 4,000 photos at 0.05; at 0.025 a quarter more.
    needed = fresh_labels(rules, 0.05, open_share=0.1)
    assert needed is not None
    assert 3100 * 1.27 / 0.9 < needed < 4000 * 1.3 / 0.9


@pytest.mark.parametrize("changed", [{"alpha": 0.1}, {"tries": 20}, {"promotions": 3}])
def test_the_first_use_binds_the_terms(site: Site, changed: dict[str, float]) -> None:
    site.answer("one")
    with pytest.raises(RefusedError, match=r"bound it to alpha 0\.05, 10 tries and 2 promotions"):
        site.ledger().admit(attempt("two", rules=policy(**changed)), now=NOW)  # type: ignore[arg-type]


def test_admission_binds_the_terms_and_spends_no_try(site: Site) -> None:
    admission = site.ledger().admit(attempt("one"), now=NOW)
    assert (admission.known, admission.level) == (None, pytest.approx(ALPHA / 2))
    entries = site.ledger().state()
    assert entries.terms is not None
    assert len(entries.terms.sealed_sha256s) == 18
    assert entries.spendings == ()


def test_a_holdout_without_sealed_photos_decides_nothing(site: Site) -> None:
    with pytest.raises(RefusedError, match="all 20 photos"):
        site.ledger(holdout(opened=range(20))).admit(attempt("one"), now=NOW)


def test_a_first_model_leaves_the_comparisons_nearly_everything(site: Site) -> None:
    ledger = site.ledger()
    first = ledger.begin(attempt("one", champion=None), now=NOW)
    assert first.level == pytest.approx(0.9 * ALPHA)
    assert site.conclude(ledger, first, is_confirmed=True).tries_left == 10
    assert ledger.begin(attempt("two", champion="one"), now=NOW).level == pytest.approx(0.45 * ALPHA)


# Two holdouts that share photos.


def test_a_holdout_frozen_anew_with_a_photo_less_does_not_start_anew(site: Site) -> None:
    site.answer("one")
    with pytest.raises(RefusedError, match="asked by holdout"):
        site.ledger(holdout(range(19))).admit(attempt("two"), now=NOW)
    assert site.registry.budgeted_holdouts() == (holdout().sha256,)


def test_photos_that_another_holdout_shows_cannot_be_sealed(site: Site) -> None:
    site.ledger().admit(attempt("one"), now=NOW)
    with pytest.raises(RefusedError, match="show 2 of its sealed photos"):
        site.ledger(holdout(range(40), opened=range(20, 22))).admit(attempt("two"), now=NOW)


def test_a_new_holdout_that_shows_the_old_ones_photos_ends_it(site: Site) -> None:
    site.answer("one")
    begun = site.ledger().begin(attempt("two"), now=NOW)
    newer = site.ledger(holdout(range(40), opened=range(20)))
    assert newer.admit(attempt("three"), now=NOW).ended == (holdout().sha256,)
    with pytest.raises(RefusedError, match="show 18 of its sealed photos"):
        site.ledger().admit(attempt("four"), now=NOW)
    # What began before its photos were shown may be finished.
    assert site.ledger().begin(attempt("two"), now=NOW) == begun
    assert newer.begin(attempt("three"), now=NOW).number == 1


def test_of_two_holdouts_with_the_same_sealed_photos_that_begin_at_once_one_goes_on(site: Site) -> None:
    one, other = site.ledger(), site.ledger(holdout(range(21)))
    one.admit(attempt("one"), now=NOW)
    other.admit(attempt("two"), now=NOW)
    create = site.registry.create_budget_entry

    def overtaken(holdout_sha256: str, number: int, data: bytes, *, kind: str) -> None:
        # The other one looked and wrote between this one's look and its writing.
        site.registry.create_budget_entry = create  # type: ignore[method-assign]
        assert other.begin(attempt("two"), now=NOW).number == 1
        create(holdout_sha256, number, data, kind=kind)

    site.registry.create_budget_entry = overtaken  # type: ignore[method-assign]
    for _ in range(2):
        # Its try is written, and never answered.
        with pytest.raises(RefusedError, match="asked by holdout"):
            one.begin(attempt("one"), now=NOW)
    assert len(one.state().spendings) == 1


# What somebody did to the bucket.


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("000000.terms.json", "entry 0 with the terms is missing"),
        ("000001.try.json", "try 1 is missing"),
        ("000002.try.json", "try 2 is missing"),
        ("000001.outcome.json", "the outcome of try 1 is missing"),
    ],
)
def test_a_deleted_entry_is_noticed_by_those_after_it(site: Site, name: str, said: str) -> None:
    for run in ("one", "two", "three"):
        site.answer(run)
    site.object_path(name).unlink()
    with pytest.raises(IntegrityError, match=said):
        site.ledger(remembers=False).state()


@pytest.mark.parametrize("name", ["000003.try.json", "000003.outcome.json", "*"])
def test_a_deleted_end_is_noticed_by_a_machine_that_saw_it(site: Site, name: str) -> None:
    for run in ("one", "two", "three"):
        site.answer(run)
    for path in (site.path / "bucket").rglob(f"{holdout().sha256}/{name}"):
        path.unlink()
    with pytest.raises(IntegrityError):
        site.ledger().state()


def test_a_ledger_that_is_gone_is_noticed_when_another_holdout_is_used(site: Site) -> None:
    site.answer("one")
    for path in (site.path / "bucket").rglob("0*.json"):
        path.unlink()
    with pytest.raises(IntegrityError, match=f"budget of holdout {holdout().sha256[:12]} is refused"):
        site.ledger(holdout(range(19))).admit(attempt("two"), now=NOW)


def test_a_deleted_end_is_noticed_when_a_signed_version_names_it(site: Site) -> None:
    use = site.answer("one", is_confirmed=True)
    evidence = SimpleNamespace(
        holdout_sha256=holdout().sha256, ledger_number=use.number, ledger_sha256=use.entry_sha256
    )
    versions = [SimpleNamespace(evidence=None), SimpleNamespace(version=2, model="photos", evidence=evidence)]
    view = SimpleNamespace(version_numbers=(0, 1), version=lambda number: versions[number])
    site.ledger(remembers=False).reader.check_signed(view)  # type: ignore[arg-type]
    for path in (site.path / "bucket").rglob("0*.json"):
        path.unlink()
    # Whatever holdout is used: its own budget may be the one that was set back.
    for record in (holdout(), holdout(range(30, 50))):
        with pytest.raises(TrustError, match="signed version 2 with the outcome of try 1"):
            site.ledger(record, remembers=False).reader.check_signed(view)  # type: ignore[arg-type]


def test_a_changed_outcome_is_noticed(site: Site) -> None:
    site.answer("one", is_confirmed=True)
    site.answer("two")
    path = site.object_path("000001.outcome.json")
    path.chmod(0o600)
    path.write_bytes(path.read_bytes().replace(b'"is_confirmed":true', b'"is_confirmed":false'))
    with pytest.raises(IntegrityError, match="try 2 knew"):
        site.ledger(remembers=False).state()


def test_a_try_that_spends_more_than_there_is_is_noticed(site: Site) -> None:
    site.answer("one")
    spending = site.ledger().begin(attempt("two"), now=NOW)
    path = site.object_path("000002.try.json")
    path.chmod(0o600)
    path.write_bytes(spending.entry.model_copy(update={"level": 0.04}).to_json())
    with pytest.raises(IntegrityError, match=r"spent 0\.04, which was not there"):
        site.ledger(remembers=False).state()


def test_what_is_no_entry_is_refused_by_name(site: Site) -> None:
    site.answer("one")
    site.registry.create_budget_entry(holdout().sha256, 2, b"nonsense", kind="try")
    with pytest.raises(IntegrityError, match="not JSON"):
        site.ledger().state()


def test_an_entry_that_a_listing_shows_before_the_one_before_it_is_read_again(site: Site) -> None:
    for run in ("one", "two"):
        site.answer(run)
    read, calls = site.registry.budget_entries, []

    def torn(holdout_sha256: str) -> tuple[tuple[int, str, bytes], ...]:
        calls.append(holdout_sha256)
        found = read(holdout_sha256)
        return tuple(entry for entry in found if entry[:2] != (1, "outcome")) if len(calls) == 1 else found

    site.registry.budget_entries = torn  # type: ignore[method-assign]
    assert len(site.ledger().state().spendings) == 2
    assert len(calls) == 2


def test_the_machines_memory_survives_a_line_that_a_crash_cut_off(site: Site) -> None:
    site.answer("one")
    whole = site.seen_path.read_text()
    site.seen_path.write_text(whole[:-30])
    site.ledger().state()
    assert site.seen_path.read_text().splitlines()[-1] == whole.splitlines()[-1]
    assert len(whole.splitlines()) == 3


def test_a_memory_that_cannot_be_read_is_said(site: Site) -> None:
    site.seen_path.mkdir(parents=True)
    with pytest.raises(StoreError, match="cannot be used"):
        site.ledger().begin(attempt("one"), now=NOW)
