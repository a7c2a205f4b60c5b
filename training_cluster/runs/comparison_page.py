"""A comparison of two runs as one HTML file: tables, and each curve of both as a drawing.

Its place in the flow: `liftgate runs compare --html FILE` writes it. It needs no network and no script,
so it can be sent to people who have nothing installed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from training_cluster.runs.comparison import Comparison, Difference
from training_cluster.runs.curves import Curve

_WIDTH, _HEIGHT, _MARGIN = 640, 200, 8
_COLOURS = ("#0b6bcb", "#c2410c")
_SHAPES = ("", "6 4")
"""The second curve is dashed: colours alone do not reach everybody."""

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; padding: .25rem .75rem .25rem 0;
border-bottom: 1px solid #ddd; vertical-align: top; overflow-wrap: anywhere; } svg { width: 100%; height: auto;
background: #f7f7f7; } h2 { margin-top: 2rem; } figure { margin: 1rem 0; }
"""


def comparison_page(comparison: Comparison) -> str:
    """Return the page."""
    one, other = (record.run_id for record in comparison.records)
    return "\n".join(
        [
            "<!doctype html>",
            f'<html lang="en"><head><meta charset="utf-8"><title>{escape(one)} and {escape(other)}</title>',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<style>{_STYLE}</style></head><body>",
            f"<h1>{escape(one)} and {escape(other)}</h1>",
            *(f"<p>{escape(remark)}</p>" for remark in comparison.remarks),
            *_tables(comparison, (one, other)),
            *_drawings(comparison, (one, other)),
            "</body></html>",
            "",
        ]
    )


def _tables(comparison: Comparison, names: tuple[str, str]) -> Iterator[str]:
    for concern, differences in comparison.differences.items():
        yield f"<h2>{escape(concern.capitalize())}</h2>"
        yield _table(differences, names) if differences else "<p>The same.</p>"
    yield "<h2>Figures</h2>"
    yield _table(comparison.figures, names)


def _table(rows: Sequence[Difference], names: tuple[str, str]) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in ("", *names))
    lines = [
        f'<tr><th scope="row">{escape(row.name)}</th><td>{escape(row.first)}</td><td>{escape(row.second)}</td></tr>'
        for row in rows
    ]
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _drawings(comparison: Comparison, names: tuple[str, str]) -> Iterator[str]:
    yield "<h2>Curves</h2>"
    first, second = comparison.curves
    for figure in sorted(first.keys() | second.keys()):
        curves = [(name, found[figure]) for name, found in zip(names, (first, second), strict=True) if figure in found]
        yield f"<figure><figcaption>{escape(figure)}: {_legend(curves)}</figcaption>{_drawing(figure, curves)}</figure>"


def _legend(curves: Sequence[tuple[str, Curve]]) -> str:
    return ", ".join(
        f'<span style="color:{_COLOURS[index]}">{escape(name)} {"– –" if _SHAPES[index] else "——"} '
        f"{curve.last:.6g}</span>"
        for index, (name, curve) in enumerate(curves)
    )


def _drawing(figure: str, curves: Sequence[tuple[str, Curve]]) -> str:
    """Return the curves in one picture, on the same axes."""
    last_step = max(curve.steps[-1] for _, curve in curves) or 1
    low = min(min(curve.values) for _, curve in curves)
    high = max(max(curve.values) for _, curve in curves)
    span = high - low or 1.0

    def place(step: int, value: float) -> str:
        across = _MARGIN + (_WIDTH - 2 * _MARGIN) * step / last_step
        return f"{across:.1f},{_HEIGHT - _MARGIN - (_HEIGHT - 2 * _MARGIN) * (value - low) / span:.1f}"

    lines = [
        f'<polyline fill="none" stroke="{_COLOURS[index]}" stroke-width="2" stroke-dasharray="{_SHAPES[index]}" '
        f'points="{" ".join(place(*point) for point in zip(curve.steps, curve.values, strict=True))}"/>'
        for index, (_, curve) in enumerate(curves)
    ]
    label = f"{figure} from {low:.4g} to {high:.4g} over {last_step} steps"
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(label)}">{"".join(lines)}</svg>'
        f"<small>{escape(label)}</small>"
    )
