"""What every peer's script is called with."""

from __future__ import annotations

import argparse


def parse(description: str | None) -> argparse.Namespace:
    """Return model and port to serve, or the shape of the pixels to print a request for."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", help="a version's directory")
    parser.add_argument("--port", type=int)
    parser.add_argument("--request", help="print the request for pixels of this shape on standard input")
    return parser.parse_args()
