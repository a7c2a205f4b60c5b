from __future__ import annotations

import pytest

from artifact_sync.errors import RefusedError
from validation.approvals.approvers import bare_name, checked_reason, forms_of


@pytest.mark.parametrize(
    "trainer",
    [
        "alice",
        " Alice\n",
        "ALICE@gpu-1",
        "alice@example.com",
        "Alice Ames <alice@example.com>",
        "<ALICE+gpu@example.com>",
        "CORP\\alice",
        "corp/Alice",
        "uid:alice",
        "Ａｌｉｃｅ",
        "álice",
        "a\u0301lice",
        "al\u200bice",
        "a.l-i_c e",
        "Alice <root@gpu-1>",
    ],
)
def test_a_trainer_is_known_in_every_usual_form_of_the_name(trainer: str) -> None:
    assert bare_name("alice") in forms_of(trainer)


@pytest.mark.parametrize("trainer", ["bob", "alice2", "malice", "alicia@example.com", "Bob <bob@alice.example>", ""])
def test_another_name_is_another_person(trainer: str) -> None:
    assert bare_name("alice") not in forms_of(trainer)


def test_a_name_with_separators_is_compared_without_them() -> None:
    assert bare_name("alice.ames") in forms_of("Alice Ames <alice@example.com>")
    assert bare_name("strasse") in forms_of("Straße")


def checked(reason: str) -> str:
    return checked_reason(reason, run_id="run-a", act="Approval", verb="approve")


def test_a_reason_keeps_its_lines_and_scripts() -> None:
    assert checked("  one\r\ntwo\rthree\t🙂 👩‍🔬 שלום مرحبا \n") == "one\ntwo\nthree\t🙂 👩‍🔬 שלום مرحبا"
    assert len(checked("x" * 10_000)) == 10_000


@pytest.mark.parametrize(
    ("reason", "found"),
    [
        ("red \x1b[31m", r"U\+001B \(a control character\) as character 5"),
        ("bell \x07", r"U\+0007"),
        ("nul \x00", r"U\+0000"),
        ("c1 \x9b", r"U\+009B"),
        ("\u202eevil", r"U\+202E \(right-to-left override\) as character 1"),
        ("\u2066evil", r"U\+2066 \(left-to-right isolate\)"),
        ("bad \udcff", r"U\+DCFF \(a byte that is not utf-8\)"),
        ("x" * 10_001, r"has 10001 characters, at most 10000"),
        (" \n ", r"it has no reason"),
    ],
)
def test_a_reason_that_a_terminal_would_obey_is_refused(reason: str, found: str) -> None:
    with pytest.raises(RefusedError, match=found):
        checked(reason)
