"""Which examples are looked at, and the page with what a model sees of them."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
from PIL import Image

from training_cluster.measure.look import SeenExample, classes_in_turn
from training_cluster.measure.sheet_page import sheet_page


def test_each_class_comes_before_any_comes_twice() -> None:
    labels = np.array([0] * 90 + [1] * 8 + [2] * 2, np.uint16)
    chosen = classes_in_turn(labels, np.arange(100), count=7, seed=1)
    assert np.bincount(labels[chosen]).tolist() == [3, 2, 2]
    assert labels[chosen].tolist() == sorted(labels[chosen])
    assert chosen == classes_in_turn(labels, np.arange(100), count=7, seed=1)
    assert chosen != classes_in_turn(labels, np.arange(100), count=7, seed=2)


def test_only_candidates_are_chosen_and_no_more_than_there_are() -> None:
    labels = np.array([0, 1, 0, 1], np.uint16)
    assert sorted(classes_in_turn(labels, np.array([1, 2]), count=9, seed=1)) == [1, 2]


def test_the_page_holds_the_very_pixels_and_escapes_labels() -> None:
    random = np.random.default_rng(1)
    original, seen = random.integers(0, 256, (2, 6, 4, 1), dtype=np.uint8)
    page = sheet_page([SeenExample(7, "<cat & dog>", original, (seen, None))], title="a <b>", remark="seed 1")
    pictures = [base64.b64decode(found) for found in re.findall(r'base64,([^"]+)"', page)]
    for expected, encoded in zip((original, seen), pictures, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encoded))), expected[..., 0])
    assert "&lt;cat &amp; dog&gt;" in page
    assert "<b>" not in page
    assert "left out" in page
    assert "epoch 2" in page
    assert re.findall(r'(?:src|href)="(?!data:)', page) == []
