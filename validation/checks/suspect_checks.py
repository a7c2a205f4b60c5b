"""What becomes of the open photos' findings without the photos whose labels both models dispute.

Its place in the flow: gate.py asks with both sets of findings. Harm that is shown by one of them
only rests on labels that may be wrong, so it decides nothing and a person is sent to look.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from validation.checks.claims import Finding
from validation.checks.groups import Group

SUSPECT_CHECK = "suspect labels"
"""The name of the reason that sends a person to look at labels."""

_Key = tuple[str, Group | None]


def weigh_suspects(findings: Sequence[Finding], without: Sequence[Finding], *, suspects: int) -> tuple[Finding, ...]:
    """Return the findings, weakened where they rest on suspect labels, and one more that says so.

    Args:
        findings: of all open photos.
        without: of the open photos without the suspect ones.
        suspects: how many those are.
    """
    harm, harm_without = _harm(findings), _harm(without)
    if harm == harm_without:
        return tuple(findings)
    weakened = (
        replace(finding, outcome="cannot tell", ask="not so without the suspect labels")
        if _key(finding) in harm - harm_without
        else finding
        for finding in findings
    )
    checks = ", ".join(sorted({check for check, _ in harm ^ harm_without}))
    said = Finding(
        SUSPECT_CHECK,
        "cannot tell",
        f"Whether harm is shown ({checks}) depends on {suspects:,} {'photo' if suspects == 1 else 'photos'} whose "
        "labels are disputed",
        ask="a person must look at them, correct the labels that are wrong and freeze a new holdout",
    )
    return (*weakened, said)


def _harm(findings: Sequence[Finding]) -> frozenset[_Key]:
    return frozenset(_key(finding) for finding in findings if finding.outcome == "not better")


def _key(finding: Finding) -> _Key:
    return (finding.check, finding.group)
