"""Metrics: TensorFlow Serving's names and ours, added up from the same counts, in bounded memory."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest

from serving.embedded_server.catalogue import ModelVersion
from serving.embedded_server.metrics import Metrics
from serving.embedded_server.metrics_counts import LATENCY_BOUNDS, MAX_VERSIONS
from serving.embedded_server.metrics_text import Family, exposition
from serving.embedded_server.status import Code, StatusError
from serving.embedded_server.transition import Stage


def asked(metrics: Metrics, **changes: object) -> None:
    values: dict[str, object] = {
        **{"model": "m", "version": 1, "api": "Predict", "entrypoint": "GRPC"},
        **{"status": Code.OK, "microseconds": 20.0},
    }
    metrics.request(**{**values, **changes})


def samples(metrics: Metrics) -> dict[str, float]:
    """Every line of the page by its name and labels."""
    lines = [line for line in metrics.text().splitlines() if not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


class TestNames:
    def test_requests_are_counted_by_model_and_status_as_the_real_server_does(self) -> None:
        metrics = Metrics()
        asked(metrics)
        asked(metrics, version=2)
        asked(metrics, version=None, status=Code.NOT_FOUND)
        asked(metrics, api="predict", entrypoint="REST")
        asked(metrics, api="GetModelMetadata")
        found = samples(metrics)
        assert found[':tensorflow:serving:request_count{model_name="m",status="OK"}'] == 3
        assert found[':tensorflow:serving:request_count{model_name="m",status="NOT_FOUND"}'] == 1
        assert found[':tensorflow:serving:request_latency_count{model_name="m",API="Predict",entrypoint="GRPC"}'] == 2
        assert found[':tensorflow:serving:request_latency_count{model_name="m",API="predict",entrypoint="REST"}'] == 1

    def test_ours_have_the_version(self) -> None:
        metrics = Metrics()
        asked(metrics, version=7, microseconds=1234.5)
        found = samples(metrics)
        labels = 'model="m",version="7",api="Predict",entrypoint="GRPC"'
        assert found[f'liftgate_request_count{{{labels},status="OK"}}'] == 1
        assert found[f"liftgate_request_latency_microseconds_sum{{{labels}}}"] == 1234.5

    def test_buckets_are_ten_times_powers_of_1_8(self) -> None:
        metrics = Metrics()
        for microseconds in (10, 18.1, 1e12):
            asked(metrics, microseconds=microseconds)
        text = metrics.text()
        limits = re.findall(r':tensorflow:serving:request_latency_bucket{.*le="(.*)"} (\d+)', text)
        assert [limit for limit, _ in limits[:6]] == ["10", "18", "32.4", "58.32", "104.976", "188.957"]
        assert [int(count) for _, count in limits[:4]] == [1, 1, 2, 2]
        assert limits[-1] == ("+Inf", "3")
        assert len(limits) == len(LATENCY_BOUNDS) + 1 == 34
        assert "# TYPE :tensorflow:serving:request_latency histogram\n" in text
        assert "# HELP :tensorflow" not in text

    def test_runs_batches_loads_and_warm_ups(self) -> None:
        metrics = Metrics()
        metrics.runtime(model="m", version=1, api="Predict", microseconds=50)
        metrics.batch(model="m", version=1, queuing_microseconds=[5, 7], input_sizes=[1, 2], batch_size=4, padding=1)
        metrics.load(model="m", version=1, path="/models/m/1", status=Code.OK, microseconds=2e6)
        metrics.load(model="m", version=2, path="/models/m/2", status=Code.NOT_FOUND, microseconds=10)
        metrics.warm_up(path="/models/m/1", status=Code.OK, records=3, microseconds=40)
        found = samples(metrics)
        serving = ":tensorflow:serving:"
        saved_model = ":tensorflow:cc:saved_model:"
        assert found[f'{serving}runtime_latency_sum{{model_name="m",API="Predict",runtime="TF1"}}'] == 50
        assert found[f'{serving}batching_session:queuing_latency_count{{thread_pool_name="batch_threads"}}'] == 2
        assert found[f"{serving}batching_session:wrapped_run_count{{}}"] == 1
        assert found[f"{serving}batching_session:input_batch_size_sum{{}}"] == 3
        assert found[f"{serving}batching_session:processed_batch_size_sum{{}}"] == 4
        assert found[f'{serving}batching_session:padding_size_sum{{execution_batch_size="4"}}'] == 1
        assert found[f'{saved_model}load_attempt_count{{model_path="/models/m/1",status="success"}}'] == 1
        assert found[f'{saved_model}load_attempt_count{{model_path="/models/m/2",status="fail"}}'] == 1
        assert found[f'{saved_model}load_latency{{model_path="/models/m/1"}}'] == 2e6
        assert found[f'{serving}model_warmup_records_read{{model_path="/models/m/1",status="OK"}}'] == 3
        assert found['liftgate_load_seconds_sum{model="m",version="1",status="OK"}'] == 2
        assert found['liftgate_batch_size_count{model="m",version="1"}'] == 1
        assert found['liftgate_batch_queuing_microseconds_sum{model="m",version="1"}'] == 12

    def test_states_of_versions_and_the_process(self) -> None:
        entries = [
            ModelVersion("m", 1, Path("/m/1"), stage=Stage.ENDED),
            ModelVersion("m", 2, Path("/m/2"), stage=Stage.ENDED, error=StatusError(Code.INTERNAL, "bad")),
            ModelVersion("m", 3, Path("/m/3"), stage=Stage.READY),
        ]
        found = samples(Metrics(versions=lambda: entries))
        assert found['liftgate_loaded_versions{model="m"}'] == 1
        assert found['liftgate_version_state{model="m",version="3",state="AVAILABLE"}'] == 1
        assert found['liftgate_version_state{model="m",version="2",state="END"}'] == 1
        assert 'liftgate_version_state{model="m",version="1",state="END"}' not in found
        assert found["process_resident_memory_bytes{}"] > 1_000_000
        assert found["process_threads{}"] >= 1
        assert found["process_open_fds{}"] >= 3

    def test_a_counter_can_be_asked_for_by_its_own_name(self) -> None:
        metrics = Metrics()
        asked(metrics)
        asked(metrics)
        assert metrics.value("/tensorflow/serving/request_count") == 2
        assert metrics.value("/tensorflow/serving/request_latency") == 0
        assert metrics.value("/no/such") == 0


class TestText:
    def test_labels_are_escaped(self) -> None:
        family = Family("f", "counter", {(("name", 'a"b\\c\nd'),): 1})
        assert exposition([family]) == '# TYPE f counter\nf{name="a\\"b\\\\c\\nd"} 1\n'

    def test_every_line_is_what_prometheus_reads(self) -> None:
        metrics = Metrics()
        asked(metrics, model='we"ird\n', version=None)
        name, label = r"[a-zA-Z_:][a-zA-Z0-9_:]*", r'[a-zA-Z_]\w*="(?:[^"\\\n]|\\[\\"n])*"'
        sample = re.compile(rf"{name}{{(?:{label}(?:,{label})*)?}} -?[0-9.e+-]+")
        comment = re.compile(rf"# (?:TYPE {name} (?:counter|gauge|histogram|summary)|HELP {name} .+)")
        for line in metrics.text().splitlines():
            assert (comment if line.startswith("#") else sample).fullmatch(line), line


class TestBounds:
    def test_names_that_clients_invent_are_counted_together_after_the_first_few(self) -> None:
        metrics = Metrics()
        for number in range(1000):
            asked(metrics, model=f"invented-{number}", version=None, status=Code.NOT_FOUND)
        asked(metrics, model="x" * 10_000, version=None, status=Code.NOT_FOUND)
        asked(metrics, model="real")
        counts = {key: value for key, value in samples(metrics).items() if ":request_count{" in key}
        assert len(counts) == 34
        assert counts[':tensorflow:serving:request_count{model_name="other",status="NOT_FOUND"}'] == 969
        assert counts[':tensorflow:serving:request_count{model_name="real",status="OK"}'] == 1

    def test_old_versions_are_added_up_and_no_sum_shrinks(self) -> None:
        metrics = Metrics()
        for version in range(1, 201):
            asked(metrics, version=version)
            metrics.runtime(model="m", version=version, api="Predict", microseconds=1)
            metrics.load(model="m", version=version, path=f"/m/{version}", status=Code.OK, microseconds=1)
            metrics.warm_up(path=f"/m/{version}", status=Code.OK, records=1, microseconds=1)
            metrics.batch(
                model="m", version=version, queuing_microseconds=[1], input_sizes=[1], batch_size=version, padding=0
            )
        found = samples(metrics)
        assert found[':tensorflow:serving:request_count{model_name="m",status="OK"}'] == 200
        counted = {key: value for key, value in found.items() if key.startswith("liftgate_request_count{")}
        assert len(counted) == MAX_VERSIONS + 1
        assert sum(counted.values()) == 200
        labels = 'model="m",version="older",api="Predict",entrypoint="GRPC",status="OK"'
        assert counted[f"liftgate_request_count{{{labels}}}"] == 200 - MAX_VERSIONS
        loads = {key: value for key, value in found.items() if "load_attempt_count" in key}
        assert len(loads) == 32
        assert sum(loads.values()) == 200
        assert len(metrics.text()) < 400_000

    @pytest.mark.parametrize("count", [8])
    def test_no_count_is_lost_between_threads(self, count: int) -> None:
        metrics = Metrics()

        def work() -> None:
            for number in range(2000):
                asked(metrics, microseconds=float(number))

        threads = [threading.Thread(target=work) for _ in range(count)]
        for thread in threads:
            thread.start()
        metrics.text()
        for thread in threads:
            thread.join()
        assert metrics.value("/tensorflow/serving/request_count") == count * 2000
