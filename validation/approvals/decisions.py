"""The record of decisions on one verdict: approvals, rejections, revocations and the promotion, in one order.

Its place in the flow: approve, reject, revoke and promote each append one entry to it in the bucket, and
the next number is created by exactly one of them. Who was slower reads again what stands by then and
decides anew, so that a rejection is either seen by the promotion or told that it came too late.

Anybody who can write to the bucket can put files there: an entry counts when it is signed by the key of a
trusted approver (a promotion: of the releaser) for this verdict and this place; all others are named and
left out. Each entry names the one before by digest, and every run folder keeps copies of what was seen, so
that a removed entry is missed or still counted. What cannot be noticed is that the newest entries were
removed from the bucket before this machine or a later entry knew them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from artifact_sync.canonical import sha256_hex
from artifact_sync.durable import create_durably
from artifact_sync.errors import AlreadyExistsError, LostRaceError, RecordError, TrustError
from artifact_sync.registry import Registry
from artifact_sync.run_folder import RunFolder
from artifact_sync.trust import TrustedView
from artifact_sync.trust.keys import PublicKey, Signer
from artifact_sync.trust.proposal import is_signed_by
from validation.approvals.approval_records import Decision, DecisionKind, SignedDecision, read_copies

_MOST_ATTEMPTS = 1_000

ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class DecisionLog:
    """What the record says, verified.

    Attributes:
        entries: the decisions that count, in order.
        refused: one sentence for each file that does not.
        last_number: the highest number that is taken, by whatever.
    """

    entries: tuple[SignedDecision, ...] = ()
    refused: tuple[str, ...] = ()
    last_number: int = 0

    @property
    def head_sha256(self) -> str | None:
        """The digest of the newest decision that counts."""
        return self.entries[-1].sha256 if self.entries else None

    def word_of(self, key_id: str) -> SignedDecision | None:
        """Return the approval or rejection that stands of one person: the later word replaces the earlier one."""
        word: SignedDecision | None = None
        for entry in self.entries:
            if entry.decision.key_id != key_id or entry.decision.kind == "promotion":
                continue
            if entry.decision.kind != "revocation":
                word = entry
            elif word is not None and entry.decision.about_sha256 == revocable_sha256(word):
                word = None
        return word

    def last_of(self, key_id: str) -> SignedDecision | None:
        """Return the newest entry of one person, None when there is none."""
        own = [entry for entry in self.entries if entry.decision.key_id == key_id]
        return own[-1] if own else None

    @property
    def rejections(self) -> tuple[SignedDecision, ...]:
        """The rejections that stand."""
        people = dict.fromkeys(entry.decision.key_id for entry in self.entries)
        words = [self.word_of(key_id) for key_id in people]
        return tuple(word for word in words if word is not None and word.decision.kind == "rejection")

    def approves(self, key_id: str, approval_sha256: str) -> bool:
        """Return whether this very approval is the word of that person."""
        word = self.word_of(key_id)
        return word is not None and (word.decision.kind, word.decision.about_sha256) == ("approval", approval_sha256)

    def knows(self, approval_sha256: str) -> bool:
        """Return whether an approval was ever given in this record."""
        return any(
            entry.decision.kind == "approval" and entry.decision.about_sha256 == approval_sha256
            for entry in self.entries
        )

    def until(self, entry: SignedDecision) -> DecisionLog:
        """Return the record as it was when `entry` was appended."""
        return DecisionLog(self.entries[: self.entries.index(entry)])

    def promotion_begun(self, view: TrustedView) -> SignedDecision | None:
        """Return the promotion that has begun and is neither finished nor overtaken."""
        begun = [entry for entry in self.entries if entry.decision.kind == "promotion"]
        return next((entry for entry in reversed(begun) if _is_under_way(entry.decision, view)), None)


@dataclass(frozen=True)
class DecisionBook:
    """Where the decisions on one verdict are read and appended.

    Attributes:
        registry: the model's part of the bucket.
        run: where copies are kept.
        verdict_sha256: the verdict that the decisions are about.
    """

    registry: Registry
    run: RunFolder
    verdict_sha256: str

    def read(self, view: TrustedView) -> DecisionLog:
        """Return what the bucket and the run folder have, verified against the trusted state.

        Raises:
            TrustError: an entry that others rest on was removed.
        """
        stored = read_bucket(self.registry, self.verdict_sha256)
        copies = [
            (copy.decision.number, path.name, copy.to_json())
            for path, copy in read_copies(self.run, verdict_sha256=self.verdict_sha256)
            if copy is not None
        ]
        unreadable = [
            f"{path.name} does not count: it is no signed decision."
            for path, copy in read_copies(self.run, verdict_sha256=self.verdict_sha256)
            if copy is None
        ]
        log = verified_log([*stored, *copies], view=view, verdict_sha256=self.verdict_sha256)
        return DecisionLog(log.entries, (*log.refused, *unreadable), log.last_number)

    def append(
        self,
        log: DecisionLog,
        *,
        kind: DecisionKind,
        signer: Signer,
        reason: str,
        now: datetime,
        about_sha256: str | None = None,
        targets_number: int | None = None,
        release: int | None = None,
    ) -> SignedDecision:
        """Sign the entry that follows `log` and create it in the bucket; that alone makes it count.

        Raises:
            AlreadyExistsError: somebody else appended since `log` was read.
        """
        decision = Decision(
            model=self.registry.model,
            run_id=self.run.run_id,
            verdict_sha256=self.verdict_sha256,
            number=log.last_number + 1,
            previous_sha256=log.head_sha256,
            kind=kind,
            about_sha256=about_sha256,
            targets_number=targets_number,
            release=release,
            by=signer.public.name,
            key_id=signer.public.key_id,
            reason=reason,
            decided_at=now,
        )
        signed = SignedDecision(decision=decision, signature=signer.sign(decision.to_json()))
        self.registry.create_decision(self.verdict_sha256, decision.number, signed.to_json())
        self.keep([signed])
        return signed

    def keep(self, entries: Iterable[SignedDecision]) -> None:
        """Keep copies in the run folder, so that this machine misses what is removed from the bucket later."""
        for entry in entries:
            path = entry.copy_path(self.run)
            if not path.exists():
                with suppress(AlreadyExistsError):
                    create_durably(path, entry.to_json())


def append_in_turn(act: Callable[[], ResultT], *, what: str) -> ResultT:
    """Run `act`, which reads, checks and appends, again as long as others append in between.

    Raises:
        LostRaceError: it never came to its turn.
    """
    for _ in range(_MOST_ATTEMPTS):
        with suppress(AlreadyExistsError):
            return act()
    raise LostRaceError(f"{what} lost the race {_MOST_ATTEMPTS} times: others decide all the time. Try again later.")


def read_bucket(registry: Registry, verdict_sha256: str) -> list[tuple[int, str, bytes]]:
    """Return (number, name, bytes) of what the bucket has on a verdict; nothing of it is verified."""
    found = registry.decisions(verdict_sha256)
    return [(number, f"{number:06d}.decision.json in the bucket", data) for number, data in found]


def verified_log(found: Iterable[tuple[int, str, bytes]], *, view: TrustedView, verdict_sha256: str) -> DecisionLog:
    """Return those of (number, name, bytes) that count, in order, each once.

    Raises:
        TrustError: an entry that others rest on is missing.
    """
    counted: dict[str, SignedDecision] = {}
    refused, digests, last_number = [], set(), 0
    for number, name, data in found:
        digests.add(sha256_hex(data))
        last_number = max(last_number, number)
        try:
            signed = SignedDecision.from_json(data)
        except RecordError:
            refused.append(f"{name} does not count: it is no signed decision.")
            continue
        problem = _problem(signed, number=number, view=view, verdict_sha256=verdict_sha256)
        if problem:
            refused.append(f"{name} does not count: {problem}.")
        else:
            counted[signed.sha256] = signed
    entries = sorted(counted.values(), key=lambda entry: (entry.decision.number, entry.sha256))
    for entry in entries:
        _check_previous(entry, digests)
    return DecisionLog(tuple(entries), tuple(refused), last_number)


def revocable_sha256(word: SignedDecision) -> str:
    """Return the digest by which a revocation names an approval or a rejection."""
    decision = word.decision
    return decision.about_sha256 if decision.kind == "approval" and decision.about_sha256 else word.sha256


def _problem(signed: SignedDecision, *, number: int, view: TrustedView, verdict_sha256: str) -> str | None:
    decision = signed.decision
    if (decision.model, decision.verdict_sha256, decision.number) != (view.model, verdict_sha256, number):
        return "it was signed for another verdict or another place, and was copied here"
    key = _holder(decision, view)
    if key is None:
        whose = "the releaser's" if decision.kind == "promotion" else "a trusted approver's"
        return f"the key that claims to be {decision.by}'s is not {whose} (now)"
    if not is_signed_by(key, decision.to_json(), signed.signature):
        return f"it is not signed by {key.name}'s key; it is forged or was changed"
    return None


def _holder(decision: Decision, view: TrustedView) -> PublicKey | None:
    keys = (view.roles.releaser,) if decision.kind == "promotion" else view.roles.approvers
    return next((key for key in keys if (key.key_id, key.name) == (decision.key_id, decision.by)), None)


def _check_previous(entry: SignedDecision, digests: set[str]) -> None:
    decision = entry.decision
    if decision.previous_sha256 is not None and decision.previous_sha256 not in digests:
        raise TrustError(
            f"Decisions on run {decision.run_id} refused: entry {decision.number} ({decision.kind} by {decision.by}) "
            f"follows the entry {decision.previous_sha256}, which is neither in the bucket nor in approvals/. Somebody "
            "removed it. Restore decisions/ from a backup, or copy the file from another machine's approvals/."
        )


def _is_under_way(decision: Decision, view: TrustedView) -> bool:
    if decision.release in view.release_numbers:
        return False
    is_published = any(view.version_sha256(number) == decision.about_sha256 for number in view.version_numbers)
    return is_published or decision.targets_number == view.targets.version + 1
