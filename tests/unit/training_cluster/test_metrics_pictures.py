"""The pictures of a model's errors."""

from __future__ import annotations

import numpy as np

from training_cluster.charts.pictures import confusion_matrix, draw_confusion_matrix, draw_mistakes


def test_rows_are_the_truth_and_columns_what_it_was_taken_for() -> None:
    matrix = confusion_matrix(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0]), class_count=3)
    np.testing.assert_array_equal(matrix, [[1, 1, 0], [0, 1, 0], [1, 0, 0]])


def test_a_right_class_is_drawn_blue_and_a_mistake_red() -> None:
    matrix = np.array([[10, 0], [10, 0]])
    picture = draw_confusion_matrix(matrix, ["ok", "schräg ✓"])
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    colours = {tuple(int(value) for value in colour) for colour in picture.reshape(-1, 3)}
    assert (0, 0, 255) in colours
    assert (255, 0, 0) in colours


def test_mistakes_of_grey_and_of_colour_pictures_fit_on_a_sheet() -> None:
    for channels in (1, 3):
        pixels = np.zeros((7, 8, 8, channels), np.uint8)
        sheet = draw_mistakes(pixels, ["cat"] * 7, ["dog"] * 7, [0.9] * 7)
        assert sheet.shape[0] == 2 * 126
        assert (sheet[2:90, 2:90] == 0).all()


def test_a_model_without_mistakes_has_an_empty_sheet() -> None:
    assert (draw_mistakes(np.zeros((0, 8, 8, 3), np.uint8), [], [], []) == 255).all()


def test_a_matrix_of_a_thousand_classes_stays_a_picture_that_can_be_opened() -> None:
    picture = draw_confusion_matrix(np.eye(1000, dtype=np.int64), [f"class {number}" for number in range(1000)])
    assert max(picture.shape) < 2200
    np.testing.assert_array_equal(picture[110, 110], (0, 0, 255))
    np.testing.assert_array_equal(picture[110 + 1998, 112], (255, 255, 255))
