"""A photo with the label that a person gave it: what dataset build and the holdout are made of.

Its place in the flow: readers of folders, CSV files and feedback produce these; shards and the
frozen holdout are written from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class LabelledPhoto:
    """One labelled photo on disk.

    Attributes:
        path: the photo's file.
        label: the class that a person gave it.
        source: where it came from, for messages: "folder:cat/0001.png", "photos.csv:17", "feedback:<id>".
        slices: further columns (device, site, lighting …) by name.
        annotator: who gave the label, for messages; empty when nobody said.
        origin: what it was taken of or with (a patient, a burst, a device); photos of one origin stay together when
            examples are split. Empty when it shares its origin with no other.
    """

    path: Path
    label: str
    source: str
    slices: Mapping[str, str] = field(default_factory=dict)
    annotator: str = ""
    origin: str = ""
