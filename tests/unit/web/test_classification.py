"""Which version answered decides labels and pixels, even while a release is moving."""

from __future__ import annotations

import io

from artifact_sync.errors import ModelServerUnavailableError

CLASSIFY = "/api/v1/classify"


def classify(front_end, photo):
    return front_end.client.post(
        CLASSIFY, data={"photo": (io.BytesIO(photo), "a.jpg")}, content_type="multipart/form-data"
    )


def test_the_server_is_ahead_of_the_catalogue_and_takes_other_pixels(front_end, photo):
    front_end.server.stable = front_end.catalog.known[43]
    document = classify(front_end, photo).get_json()
    assert document["version"] == 43
    assert next(entry["label"] for entry in document["top"]) == "bird"
    assert front_end.server.predictions == 2


def test_the_server_is_behind_the_release(front_end, photo):
    front_end.catalog.released = front_end.catalog.known[43]
    document = classify(front_end, photo).get_json()
    assert document["version"] == 42
    assert len(document["top"]) == 3


def test_another_version_with_the_same_pixels_is_not_asked_twice(front_end, photo):
    from dataclasses import replace

    twin = replace(front_end.catalog.known[42], version=44, labels=("a", "b", "c"))
    front_end.catalog.known[44] = twin
    front_end.server.stable = twin
    document = classify(front_end, photo).get_json()
    assert (document["version"], document["top"][0]["label"]) == (44, "c")
    assert front_end.server.predictions == 1


def test_a_version_that_nobody_signed_is_never_believed(front_end, photo):
    from dataclasses import replace

    front_end.server.stable = replace(front_end.catalog.known[42], version=66)
    assert classify(front_end, photo).status_code == 503


def test_a_server_that_is_away_is_not_asked_for_its_version(front_end, photo):
    front_end.server.failure = ModelServerUnavailableError("away")
    assert classify(front_end, photo).status_code == 503
    assert front_end.server.predictions == 1


def test_a_version_that_keeps_moving_ends_in_a_503(front_end, photo):
    first, second = front_end.catalog.known[42], front_end.catalog.known[43]
    predict = front_end.server.predict

    def moving(*arguments, **options):
        front_end.server.stable = second if front_end.server.stable == first else first
        return predict(*arguments, **options)

    front_end.server.predict = moving
    front_end.server.stable = first
    answer = classify(front_end, photo)
    assert answer.status_code == 503
    assert front_end.server.predictions == 2


def test_the_web_path_gives_the_pixels_of_the_dataset_path(front_end, photo_tools, decode_pool):
    import numpy as np

    seen = []
    predict = front_end.server.predict

    def watching(model, pixels, **options):
        seen.append(pixels[0])
        return predict(model, pixels, **options)

    front_end.server.predict = watching
    kinds = [kind for kind in photo_tools.photo_corpus() if kind.reason is None and len(kind.data) < 2_000_000]
    contract = front_end.catalog.known[42].contract
    for kind in kinds:
        answer = front_end.client.post(CLASSIFY, data=kind.data, content_type="image/jpeg")
        assert answer.status_code == 200, kind.name
    built = list(decode_pool.decode_many((kind.data for kind in kinds), contract))
    assert len(seen) == len(built) >= 60
    for kind, web, dataset in zip(kinds, seen, built, strict=True):
        assert np.array_equal(web, dataset), kind.name
