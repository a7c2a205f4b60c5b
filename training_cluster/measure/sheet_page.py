"""A page with the pictures that a model sees: one file, nothing fetched from anywhere.

Its place in the flow: `liftgate data look` writes it for a browser.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

from PIL import Image

from training_cluster.measure.look import Picture, SeenExample

_LEAST_PIXELS = 112

_STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; margin: 2rem; color: #222; background: #fff; }
table { border-collapse: collapse; }
th { font-weight: 600; text-align: left; padding: .3rem .6rem; }
td { padding: .2rem .6rem; vertical-align: middle; }
img { image-rendering: pixelated; display: block; }
.original { border-right: 2px solid #888; }
.absent { color: #777; }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #191919; } }
"""


def sheet_page(examples: Sequence[SeenExample], *, title: str, remark: str) -> str:
    """Return the page as HTML: a row an example, its original first, then a column an epoch."""
    epochs = len(examples[0].seen)
    head = "".join(f"<th>epoch {number + 1}</th>" for number in range(epochs))
    rows = "\n".join(_row(example) for example in examples)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{html.escape(title)}</h1>\n<p>{html.escape(remark)}</p>\n"
        f'<table>\n<tr><th>label</th><th class="original">in the shards</th>{head}</tr>\n{rows}\n</table>\n'
        "</body>\n</html>\n"
    )


def _row(example: SeenExample) -> str:
    cells = "".join(f"<td>{_cell(picture, example)}</td>" for picture in example.seen)
    original = f'<td class="original">{_cell(example.original, example)}</td>'
    return f"<tr><th>{html.escape(example.label)}<br><small>{example.number}</small></th>{original}{cells}</tr>"


def _cell(picture: Picture | None, example: SeenExample) -> str:
    if picture is None:
        return '<span class="absent">left out</span>'
    height, width = picture.shape[:2]
    scale = max(1, -(-_LEAST_PIXELS // max(height, width)))
    return (
        f'<img src="data:image/png;base64,{_png(picture)}" width="{width * scale}" height="{height * scale}" '
        f'alt="{html.escape(example.label, quote=True)}">'
    )


def _png(picture: Picture) -> str:
    encoded = io.BytesIO()
    Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture).save(encoded, "PNG")
    return base64.b64encode(encoded.getvalue()).decode()
