"""Who may decide on a verdict, and in which words.

Its place in the flow: approve, reject and revoke ask it before they look at anything else.
"""

from __future__ import annotations

import re
import unicodedata

from artifact_sync.errors import RefusedError
from artifact_sync.trust import TrustedView
from artifact_sync.trust.keys import Signer
from validation.approvals.approval_records import MAX_REASON_CHARACTERS
from validation.approvals.candidacy import Candidacy

_LINE_END = re.compile(r"\r\n?")
_ADDRESS = re.compile(r"<([^<>]*)>")
# Marks that turn the order of what is shown around them, so that a text reads as another one (Trojan Source).
_REORDERING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def check_is_approver(signer: Signer, view: TrustedView, *, run_id: str, act: str) -> None:
    """Refuse a key that is no trusted approver's.

    Raises:
        RefusedError: see above.
    """
    if signer.public not in view.roles.approvers:
        trusted = ", ".join(key.name for key in view.roles.approvers)
        raise RefusedError(
            f"{act} of run {run_id} refused: the key of {signer.public.name} is not a trusted approver's (those are "
            f"{trusted}). Let one of them do it, or add the key with `liftgate keys rotate`."
        )


def check_is_not_trainer(signer: Signer, candidacy: Candidacy) -> None:
    """Refuse the approval of the own work.

    Raises:
        RefusedError: the approver's name is the trainer's in any of its usual forms.
    """
    name, trainer = signer.public.name, candidacy.record.trained_by
    if bare_name(name) in forms_of(trainer):
        raise RefusedError(
            f"Approval of run {candidacy.run.run_id} refused: {name} trained it (as {trainer!r}), and nobody approves "
            "the own work. Let another approver look at it, or set may_approve_own = true if there is none."
        )


def forms_of(person: str) -> frozenset[str]:
    """Return the names that a text such as "Ana Rios <ana.rios+gpu@example.com>" or "CORP/ana" may stand for."""
    text = unicodedata.normalize("NFKC", person)
    addresses = _ADDRESS.findall(text)
    candidates = [text, _ADDRESS.sub("", text), *addresses]
    for candidate in tuple(candidates):
        local = candidate.partition("@")[0]
        candidates += [local, local.partition("+")[0]]
    for candidate in tuple(candidates):
        candidates += re.split(r"[\\/:]", candidate)
    return frozenset(form for form in map(bare_name, candidates) if form)


def bare_name(name: str) -> str:
    """Return the letters and digits of a name without case, accents and width, by which two names are compared."""
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", name).casefold())
    return "".join(char for char in decomposed if char.isalnum())


def checked_reason(reason: str, *, run_id: str, act: str, verb: str) -> str:
    """Return the reason as it is signed: lines end in one way, no white space around it.

    Raises:
        RefusedError: there is none, it is too long, or it has characters that a terminal would obey.
    """
    because = _LINE_END.sub("\n", reason).strip()
    if not because:
        raise RefusedError(
            f"{act} of run {run_id} refused: it has no reason. Say why in a sentence: "
            f"`liftgate {verb} {run_id} --because …`."
        )
    if len(because) > MAX_REASON_CHARACTERS:
        raise RefusedError(
            f"{act} of run {run_id} refused: the reason has {len(because)} characters, at most "
            f"{MAX_REASON_CHARACTERS} are kept. Shorten it, and put the rest where people can read it."
        )
    check_readable(because, what=f"{act} of run {run_id} refused: the reason")
    return because


def check_readable(text: str, *, what: str) -> None:
    """Refuse control characters (but line ends and tabs), marks that turn text around, and broken UTF-8.

    Raises:
        RefusedError: the message begins with `what`.
    """
    for place, char in enumerate(text, start=1):
        is_control = unicodedata.category(char) in {"Cc", "Cs"} and char not in "\n\t"
        if is_control or char in _REORDERING:
            kind = unicodedata.name(char, "a control character" if is_control else "")
            kind = "a byte that is not UTF-8" if unicodedata.category(char) == "Cs" else kind
            raise RefusedError(
                f"{what} has U+{ord(char):04X} ({kind.lower()}) as character {place}, with which text can be made to "
                "look like another one. Leave it out."
            )
