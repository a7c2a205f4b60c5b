"""Prometheus metrics on the REST port, by TensorFlow Serving's names."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import client_lab
import pytest
import server_lab
import tiny_models

PATH = "/monitoring/prometheus/metrics"
SAMPLE = re.compile(r"^(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)$")
LABEL = re.compile(r'(?P<name>[a-zA-Z_][a-zA-Z0-9_]*)="(?P<value>(?:[^"\\]|\\.)*)"')
SERVING = ":tensorflow:serving:"


class Metrics:
    """One reading of a server's metrics."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.samples: list[tuple[str, dict[str, str], float]] = []
        for line in text.splitlines():
            if line and not line.startswith("#"):
                match = SAMPLE.match(line)
                assert match, line
                labels = {found["name"]: found["value"] for found in LABEL.finditer(match["labels"] or "")}
                self.samples.append((match["name"], labels, float(match["value"])))

    def value(self, name: str, **labels: str) -> float:
        """Return the sum of the samples of this name that have these labels."""
        return sum(value for found, have, value in self.samples if found == name and labels.items() <= have.items())

    def labels(self, name: str) -> list[dict[str, str]]:
        return [labels for found, labels, _ in self.samples if found == name]


def read(client: Any, path: str = PATH) -> Metrics:
    answer = client.rest(path)
    assert answer.code == 200, answer
    assert answer.headers["content-type"].startswith("text/plain")
    return Metrics(answer.text)


@contextlib.contextmanager
def monitored(command: Any, config: str, text: str, *flags: str, **files: str) -> Iterator[Any]:
    all_flags = ("--model_config_file={directory}/models", "--monitoring_config_file={directory}/monitoring", *flags)
    with (
        server_lab.started(command, *all_flags, files={"models": config, "monitoring": text, **files}) as server,
        server_lab.open_channel(server.target) as channel,
    ):
        yield client_lab.Client(rest_port=server.rest_port, channel=channel)


@pytest.fixture(scope="module")
def warmed(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's base path whose version brings two warm-up requests along."""
    import shutil

    from tensorflow_serving.apis import prediction_log_pb2

    base = tmp_path_factory.mktemp("warmed")
    shutil.copytree(zoo / "plus/1", base / "1")
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.CopyFrom(client_lab.predict_request("ignored", {"x": [1.0]}))
    tiny_models.write_warm_up(base / "1", *[log.SerializeToString()] * 2)
    return base


@pytest.fixture(scope="module")
def monitored_client(command: Any, zoo: Path, warmed: Path) -> Iterator[Any]:
    models = [server_lab.model_config(name, zoo / name) for name in ("half_plus_two", "half_plus_three", "features")]
    models.append(server_lab.model_config("warmed", warmed))
    with monitored(command, server_lab.config_text(*models), "prometheus_config { enable: true }") as client:
        yield client


class TestWhere:
    def test_the_default_path(self, monitored_client: Any) -> None:
        assert read(monitored_client).samples

    def test_a_path_of_ones_own(self, command: Any, zoo: Path) -> None:
        config = server_lab.config_text(server_lab.model_config("half_plus_two", zoo / "half_plus_two"))
        text = 'prometheus_config { enable: true path: "/own/metrics" }'
        with monitored(command, config, text) as client:
            assert read(client, "/own/metrics").samples
            assert client.rest_refused(PATH).code == 404

    def test_nothing_without_the_flag(self, standing: Any) -> None:
        assert standing.rest_refused(PATH).code == 404

    def test_a_file_that_cannot_be_parsed(self, command: Any, zoo: Path) -> None:
        flags = (f"--model_base_path={zoo / 'plus'}", "--monitoring_config_file={directory}/monitoring")
        ended = server_lab.run_to_the_end(command, *flags, files={"monitoring": "nothing that is known"})
        assert ended.exit_code == 255
        assert "Failed to start server. Error: " in ended.stdout


class TestForm:
    def test_every_metric_has_its_type_before_its_samples(self, monitored_client: Any) -> None:
        monitored_client.assert_serving()
        types: dict[str, str] = {}
        for line in read(monitored_client).text.splitlines():
            if line.startswith("# TYPE "):
                _, _, name, kind = line.split(" ")
                assert name not in types, f"{name} has two types"
                types[name] = kind
            elif line and not line.startswith("#"):
                name = SAMPLE.match(line)["name"]  # type: ignore[index]
                assert name in types or re.sub("_(bucket|sum|count)$", "", name) in types, line
        assert types[f"{SERVING}request_count"] == "counter"
        assert types[f"{SERVING}request_latency"] == "histogram"
        assert types[f"{SERVING}runtime_latency"] == "histogram"

    def test_histograms_are_cumulative_and_end_with_their_count(self, monitored_client: Any) -> None:
        monitored_client.assert_serving()
        metrics = read(monitored_client)
        name = f"{SERVING}runtime_latency"
        series: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = {}
        for found, labels, value in metrics.samples:
            if found == f"{name}_bucket":
                bound = float(labels["le"])
                key = tuple(sorted((k, v) for k, v in labels.items() if k != "le"))
                series.setdefault(key, []).append((bound, value))
        assert series
        for key, buckets in series.items():
            bounds, counts = zip(*buckets, strict=True)
            assert list(bounds) == sorted(bounds)
            assert list(counts) == sorted(counts)
            assert bounds[-1] == float("inf")
            assert counts[-1] == metrics.value(f"{name}_count", **dict(key))

    def test_bounds_grow_by_1_8_from_10_microseconds(self, monitored_client: Any) -> None:
        monitored_client.assert_serving()
        labels = read(monitored_client).labels(f"{SERVING}runtime_latency_bucket")
        bounds = sorted({float(entry["le"]) for entry in labels})
        assert bounds[:4] == pytest.approx([10, 18, 32.4, 58.32])
        assert len(bounds) == 34


class TestCounts:
    def grown(self, client: Any, act: Any, name: str, **labels: str) -> float:
        before = read(client).value(SERVING + name, **labels)
        act()
        return read(client).value(SERVING + name, **labels) - before

    @pytest.mark.parametrize("protocol", ["grpc", "rest"])
    def test_requests_by_model_and_status(self, monitored_client: Any, protocol: str) -> None:
        client = monitored_client

        def ask(model: str) -> None:
            if protocol == "grpc":
                client.refused(lambda: client.predict(model)) if model == "nobody" else client.predict(model)
            else:
                client.rest_predict(model, {"instances": [2.0]})

        good = {"model_name": "half_plus_three", "status": "OK"}
        assert self.grown(client, lambda: ask("half_plus_three"), "request_count", **good) == 1
        bad = {"model_name": "nobody", "status": "NOT_FOUND"}
        assert self.grown(client, lambda: ask("nobody"), "request_count", **bad) == 1

    def test_every_way_to_infer_is_counted(self, monitored_client: Any) -> None:
        client = monitored_client
        examples = [client_lab.example(age=1)]
        labels = {"model_name": "features", "status": "OK"}
        classify = lambda: client.classify("features", examples, signature="size")  # noqa: E731
        regress = lambda: client.regress("features", examples, signature="years")  # noqa: E731
        assert self.grown(client, classify, "request_count", **labels) == 1
        assert self.grown(client, regress, "request_count", **labels) == 1
        body = {"signature_name": "years", "examples": [{"age": 1}]}
        by_rest = lambda: client.rest("/v1/models/features:regress", body)  # noqa: E731
        assert self.grown(client, by_rest, "request_count", **labels) == 1

    @pytest.mark.parametrize(
        ("api", "entrypoint", "act"),
        [
            ("Predict", "GRPC", lambda client: client.predict("half_plus_three")),
            ("predict", "REST", lambda client: client.rest_predict("half_plus_three", {"instances": [2.0]})),
        ],
    )
    def test_latency_by_way_in(self, monitored_client: Any, api: str, entrypoint: str, act: Any) -> None:
        client = monitored_client
        labels = {"model_name": "half_plus_three", "API": api, "entrypoint": entrypoint}
        assert self.grown(client, lambda: act(client), "request_latency_count", **labels) == 1
        # In microseconds: no request takes less than one.
        assert self.grown(client, lambda: act(client), "request_latency_sum", **labels) > 1

    def test_refused_requests_have_no_latency(self, monitored_client: Any) -> None:
        client = monitored_client
        refused = lambda: client.refused(lambda: client.predict("half_plus_three", signature="none"))  # noqa: E731
        assert self.grown(client, refused, "request_latency_count", model_name="half_plus_three") == 0

    def test_the_runtimes_part(self, monitored_client: Any) -> None:
        client = monitored_client
        labels = {"model_name": "half_plus_three", "API": "Predict", "runtime": "TF1"}
        act = lambda: [client.predict("half_plus_three") for _ in range(2)]  # noqa: E731
        assert self.grown(client, act, "runtime_latency_count", **labels) == 2

    def test_examples_of_multi_inference(self, monitored_client: Any) -> None:
        client = monitored_client
        tasks = [("features", "years", "regress"), ("features", "size", "classify")]
        act = lambda: client.multi_inference(tasks, [client_lab.example(age=1)] * 3)  # noqa: E731
        assert self.grown(client, act, "request_example_counts_count", model="features") == 1
        assert self.grown(client, act, "request_example_count_total", model="features") == 3

    def test_warm_up(self, monitored_client: Any, warmed: Path) -> None:
        metrics = read(monitored_client)
        labels = {"model_path": str(warmed / "1"), "status": "OK"}
        assert metrics.value(f"{SERVING}model_warmup_latency_count", **labels) == 1
        assert metrics.value(f"{SERVING}model_warmup_records_read_count", **labels) or metrics.value(
            f"{SERVING}model_warmup_records_read", **labels
        )

    def test_loads(self, monitored_client: Any, zoo: Path) -> None:
        loads = read(monitored_client).labels(":tensorflow:cc:saved_model:load_attempt_count")
        assert {"model_path": str(zoo / "half_plus_two/123"), "status": "success"} in loads

    def test_batches(self, command: Any, zoo: Path) -> None:
        config = server_lab.config_text(server_lab.model_config("half_plus_two", zoo / "half_plus_two"))
        parameters = """
            max_batch_size { value: 4 } batch_timeout_micros { value: 0 } num_batch_threads { value: 1 }
            max_enqueued_batches { value: 10 } allowed_batch_sizes: 4 thread_pool_name { value: "pool" }
        """
        flags = ("--enable_batching", "--batching_parameters_file={directory}/batching")
        with monitored(command, config, "prometheus_config { enable: true }", *flags, batching=parameters) as client:
            client.predict(inputs={"x": [1.0, 2.0, 3.0]})
            metrics = read(client)
            name = f"{SERVING}batching_session:"
            assert metrics.value(f"{name}queuing_latency_count", thread_pool_name="pool") == 1
            assert metrics.value(f"{name}wrapped_run_count") == 1
            assert (metrics.value(f"{name}input_batch_size_count"), metrics.value(f"{name}input_batch_size_sum")) == (
                1,
                3,
            )
            assert metrics.value(f"{name}processed_batch_size_sum") == 4
            assert metrics.value(f"{name}padding_size_sum", execution_batch_size="4") == 1
