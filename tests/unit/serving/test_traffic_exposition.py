"""The text for Prometheus: well-formed, each family whole and once, labels escaped."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from artifact_sync.clock import ManualClock
from serving.traffic.exposition import exposition
from serving.traffic.observation import LATENCY_BOUNDS_MS
from serving.traffic.recorder import TrafficRecorder

SAMPLE = re.compile(
    r"^(?P<name>[a-z_]+)\{(?P<labels>([a-z_]+=\"(\\\\|\\\"|\\n|[^\"\\\n])*\",?)+)\} (?P<value>[0-9.e+-]+)$"
)
LABEL = re.compile(r"([a-z_]+)=\"((?:\\\\|\\\"|\\n|[^\"\\\n])*)\"")


def parsed(text: str) -> tuple[dict[str, str], dict[tuple[str, ...], float]]:
    """Return the type of each family, and each sample's value by its name and its labels' values."""
    kinds, samples = {}, {}
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, family, kind = line.split(" ")
            assert family not in kinds
            kinds[family] = kind
        elif not line.startswith("# HELP "):
            match = SAMPLE.match(line)
            assert match, line
            values = dict(LABEL.findall(match["labels"]))
            assert (values.pop("model"), values.pop("front_end")) == ("photos", "front-1")
            key = (match["name"].removeprefix("liftgate_front_end_"), *values.values())
            assert key not in samples
            samples[key] = float(match["value"])
    return kinds, samples


def recorder() -> TrafficRecorder:
    clock = ManualClock(datetime(2026, 11, 20, 6, 0, tzinfo=UTC))
    return TrafficRecorder(model="photos", front_end="front-1", clock=clock)


def test_nothing_counted_is_nothing_but_the_start():
    kinds, samples = parsed(exposition(recorder().report()))
    assert kinds == {"liftgate_front_end_start_time_seconds": "gauge"}
    assert samples == {("start_time_seconds",): 1795154400.0}


def test_versions_and_shadows_have_their_samples():
    counted = recorder()
    counted.answered(1, top_label='a "b"\\\n', seconds=0.0015)
    counted.answered(1, top_label="cat", seconds=99.0)
    counted.failed(2)
    counted.fell_back(2)
    counted.compared(3, is_agreed=True, distance=0.25)
    counted.copy_dropped(3)
    kinds, samples = parsed(exposition(counted.report()))
    assert kinds["liftgate_front_end_requests_total"] == "counter"
    assert kinds["liftgate_front_end_prediction_duration_seconds"] == "histogram"
    assert samples["requests_total", "1"] == 2
    assert samples["errors_total", "2"] == samples["requests_total", "2"] == 1
    assert samples["canary_fallbacks_total", "2"] == 1
    assert samples["top_labels_total", "1", r"a \"b\"\\\n"] == 1
    assert samples["shadow_compared_total", "3"] == samples["shadow_agreed_total", "3"] == 1
    assert samples["shadow_dropped_total", "3"] == 1
    assert samples["shadow_score_distance_total", "3"] == samples["shadow_score_distance_max", "3"] == 0.25
    buckets = [value for key, value in samples.items() if key[:2] == ("prediction_duration_seconds_bucket", "1")]
    assert buckets == [0, *[1] * (len(LATENCY_BOUNDS_MS) - 1), 2]
    assert ("prediction_duration_seconds_bucket", "1", "+Inf") in samples
    assert samples["prediction_duration_seconds_count", "1"] == 2
    assert samples["prediction_duration_seconds_sum", "1"] == 99.0015
