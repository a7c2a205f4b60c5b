"""`liftgate budget`: how often the holdout may still decide, and who has asked it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from liftgate.composition import Site
from liftgate.output import json_option, print_result, table

if TYPE_CHECKING:
    from validation.budgets.budget import Terms
    from validation.budgets.ledger_records import Entries


@click.command("budget")
@click.option("--holdout", type=click.Path(path_type=Path), help="Its folder; default: [validation] holdout_dir.")
@json_option
@click.pass_obj
def command(config_path: Path | None, holdout: Path | None, as_json: bool) -> None:
    """Show what is left of the holdout's error budget, and the tries that were spent.

    It reads the ledger in the bucket, which no machine can reset. docs/gate.md says what a try is.
    """
    from validation.photos.holdout import load_record

    site = Site.load(config_path)
    record = load_record(site.holdout_dir(holdout))
    ledger = site.ledger(record)
    ledger.reader.check_signed(site.trusted.refresh())
    entries = ledger.state()
    sealed = sum(not item.is_open for item in record.items)
    lines = [
        f"holdout {record.sha256}: {sealed:,} sealed photos decide, {len(record.items) - sealed:,} open ones are shown"
    ]
    document = {"holdout_sha256": record.sha256, "sealed_photos": sealed, "tries": _tries(entries), "terms": None}
    if entries.terms is None:
        lines.append("No candidate has asked it yet; the policy of the first one sets its budget.")
    else:
        terms = entries.terms.terms
        lines += [_left(terms, entries), *_table(entries)]
        document |= {"terms": terms.model_dump(mode="json"), **_figures(terms, entries)}
    print_result("\n".join(lines), document, as_json=as_json)


def _left(terms: Terms, entries: Entries) -> str:
    from validation.budgets.budget import is_spent, level_of, tries_left

    history = entries.history
    bound = f"alpha {terms.alpha:g}, {terms.tries} tries, {terms.promotions} promotions"
    if is_spent(terms, history):
        return f"It is spent ({bound}) and decides nothing any more: freeze a new holdout."
    level = level_of(terms, history, is_first=False)
    return f"{tries_left(terms, history)} tries are left ({bound}); the next is tested at level {level:.4g}."


def _figures(terms: Terms, entries: Entries) -> dict[str, object]:
    from validation.budgets.budget import is_spent, level_of, tries_left

    history = entries.history
    spent = is_spent(terms, history)
    return {
        "is_spent": spent,
        "tries_left": tries_left(terms, history),
        "next_level": None if spent else level_of(terms, history, is_first=False),
    }


def _tries(entries: Entries) -> list[dict[str, object]]:
    return [
        {
            "number": spending.number,
            "run_id": spending.entry.run_id,
            "is_first": spending.entry.is_first,
            "level": spending.level,
            "is_confirmed": None if spending.outcome is None else spending.outcome.is_confirmed,
            "by": spending.entry.by,
            "at": spending.entry.at.isoformat(),
        }
        for spending in entries.spendings
    ]


def _table(entries: Entries) -> list[str]:
    said = {None: "no answer yet", True: "confirmed", False: "not confirmed"}
    rows = [
        (
            str(spending.number),
            spending.entry.run_id,
            f"{spending.level:.4g}",
            said[None if spending.outcome is None else spending.outcome.is_confirmed],
            spending.entry.by,
            f"{spending.entry.at:%Y-%m-%d %H:%M} UTC",
        )
        for spending in entries.spendings
    ]
    return [table(rows, header=("try", "run", "level", "answer", "by", "at"))] if rows else []
