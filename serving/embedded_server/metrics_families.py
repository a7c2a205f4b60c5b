"""Counts become metrics: TensorFlow Serving's names, then our own with a version label.

Its place in the flow: metrics.py calls it when somebody looks. Distributions that the real server
exports without buckets (its batch sizes) have buckets here.
"""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from serving.embedded_server.catalogue import ModelVersion
from serving.embedded_server.metrics_counts import Counts, Distribution, Loads
from serving.embedded_server.metrics_text import Family, Labels
from serving.embedded_server.status import Code
from serving.embedded_server.transition import Stage

_SERVING = ":tensorflow:serving:"
_BATCHING = f"{_SERVING}batching_session:"
_SAVED_MODEL = ":tensorflow:cc:saved_model:"
# The other calls over gRPC are not in the real server's count.
_COUNTED_GRPC = ("Predict", "Classify", "Regress")
_STATES = {
    Stage.NEW: "START",
    Stage.LOADING: "LOADING",
    Stage.READY: "AVAILABLE",
    Stage.UNLOADING: "UNLOADING",
    Stage.ENDED: "END",
}


def families(counts: Counts, versions: Sequence[ModelVersion]) -> list[Family]:
    """Return every metric with its samples."""
    return [
        *_tensorflow_requests(counts),
        *_tensorflow_batches(counts),
        *_tensorflow_loads(counts),
        *_own_requests(counts),
        *_own_batches(counts),
        *_own_versions(counts, versions),
        *_process(),
    ]


def _tensorflow_requests(counts: Counts) -> Iterable[Family]:
    requests: Counter[Labels] = Counter()
    latencies: dict[Labels, Distribution] = {}
    for (model, _, api, entrypoint, status), found in counts.requests.items():
        if entrypoint == "REST" or api in _COUNTED_GRPC:
            requests[("model_name", model), ("status", status.name)] += sum(found.counts)
            if status is Code.OK:
                _add(latencies, (("model_name", model), ("API", api), ("entrypoint", entrypoint)), found)
    runtimes: dict[Labels, Distribution] = {}
    for (model, _, api), found in counts.runtimes.items():
        _add(runtimes, (("model_name", model), ("API", api), ("runtime", "TF1")), found)
    examples: dict[Labels, Distribution] = {
        (("model", model),): found for model, found in counts.examples_by_model.items()
    }
    totals = {labels: int(found.total) for labels, found in examples.items()}
    yield Family(f"{_SERVING}request_count", "counter", requests)
    yield Family(f"{_SERVING}request_example_counts", "histogram", examples)
    yield Family(f"{_SERVING}request_example_count_total", "counter", totals)
    yield Family(f"{_SERVING}request_latency", "histogram", latencies)
    yield Family(f"{_SERVING}runtime_latency", "histogram", runtimes)


def _tensorflow_batches(counts: Counts) -> Iterable[Family]:
    queuing: dict[Labels, Distribution] = {
        (("thread_pool_name", name),): found for name, found in counts.queuing_by_pool.items()
    }
    processed: dict[Labels, Distribution] = {}
    for found in counts.batches_by_version.values():
        _add(processed, (), found.sizes)
    runs = {labels: sum(found.counts) for labels, found in processed.items()}
    inputs: dict[Labels, Distribution] = {(): counts.input_sizes} if any(counts.input_sizes.counts) else {}
    padding: dict[Labels, Distribution] = {
        (("execution_batch_size", size),): found for size, found in counts.padding_by_size.items()
    }
    yield Family(f"{_BATCHING}queuing_latency", "histogram", queuing)
    yield Family(f"{_BATCHING}wrapped_run_count", "counter", runs)
    yield Family(f"{_BATCHING}input_batch_size", "histogram", inputs)
    yield Family(f"{_BATCHING}processed_batch_size", "histogram", processed)
    yield Family(f"{_BATCHING}padding_size", "histogram", padding)


def _tensorflow_loads(counts: Counts) -> Iterable[Family]:
    attempts: Counter[Labels] = Counter()
    microseconds: Counter[Labels] = Counter()
    for (path, status), loads in counts.loads_by_path.items():
        attempts[("model_path", path), ("status", "success" if status is Code.OK else "fail")] += loads.count
        microseconds[(("model_path", path),)] += int(loads.microseconds)
    warm_ups = {_path_labels(path, status): found[1] for (path, status), found in counts.warm_ups.items()}
    records = {_path_labels(path, status): found[0].records for (path, status), found in counts.warm_ups.items()}
    yield Family(f"{_SAVED_MODEL}load_attempt_count", "counter", attempts)
    yield Family(f"{_SAVED_MODEL}load_latency", "counter", microseconds)
    yield Family(f"{_SERVING}model_warmup_latency", "histogram", warm_ups)
    yield Family(f"{_SERVING}model_warmup_records_read", "counter", records)


def _own_requests(counts: Counts) -> Iterable[Family]:
    requests: dict[Labels, float] = {}
    latencies: dict[Labels, Distribution] = {}
    for (model, version, api, entrypoint, status), found in counts.requests.items():
        labels = (*_version_labels(model, version), ("api", api), ("entrypoint", entrypoint))
        requests[*labels, ("status", status.name)] = sum(found.counts)
        _add(latencies, labels, found)
    yield Family("liftgate_request_count", "counter", requests, "Requests answered.")
    yield Family("liftgate_request_latency_microseconds", "histogram", latencies, "From arrival to answer.")


def _own_batches(counts: Counts) -> Iterable[Family]:
    by_version = counts.batches_by_version.items()
    sizes = {_version_labels(*key): found.sizes for key, found in by_version}
    queuing = {_version_labels(*key): found.queuing for key, found in by_version}
    yield Family("liftgate_batch_size", "histogram", sizes, "Size of the batches that were run, with padding.")
    yield Family("liftgate_batch_queuing_microseconds", "histogram", queuing, "What a request waited for its batch.")


def _own_versions(counts: Counts, versions: Sequence[ModelVersion]) -> Iterable[Family]:
    loaded: Counter[Labels] = Counter()
    states: dict[Labels, float] = {}
    for entry in versions:
        loaded[(("model", entry.model),)] += entry.stage is Stage.READY
        if entry.stage is not Stage.ENDED or entry.error is not None:
            states[*_version_labels(entry.model, entry.version), ("state", _STATES[entry.stage])] = 1
    yield Family("liftgate_loaded_versions", "gauge", loaded, "Versions that answer.")
    yield Family("liftgate_version_state", "gauge", states, "1 for the state a version is in; ended ones if failed.")
    yield Family("liftgate_load_seconds", "summary", _load_seconds(counts.loads_by_version), "Attempts to load.")


def _load_seconds(loads: Mapping[tuple[str, int | str | None, Code], Loads]) -> dict[Labels, tuple[int, float]]:
    return {
        (*_version_labels(model, version), ("status", status.name)): (found.count, found.microseconds / 1e6)
        for (model, version, status), found in loads.items()
    }


def _process() -> Iterable[Family]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    yield Family("process_cpu_seconds_total", "counter", {(): usage.ru_utime + usage.ru_stime}, "User and system time.")
    yield _gauge("process_max_fds", resource.getrlimit(resource.RLIMIT_NOFILE)[0], "How many files may be open.")
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        open_files = sum(1 for _ in Path("/proc/self/fd").iterdir()) - 1
    except OSError:
        # Only Linux has them.
        return
    status = dict(line.split(":", 1) for line in lines if ":" in line)
    yield _gauge("process_open_fds", open_files, "Open files and sockets.")
    yield _gauge("process_threads", int(status["Threads"]), "Threads, TensorFlow's among them.")
    yield _gauge("process_resident_memory_bytes", int(status["VmRSS"].split()[0]) * 1024, "Resident memory.")


def _gauge(name: str, value: float, help_text: str) -> Family:
    return Family(name, "gauge", {(): value}, help_text)


def _add(table: dict[Labels, Distribution], labels: Labels, found: Distribution) -> None:
    table.setdefault(labels, Distribution(found.bounds)).add(found)


def _path_labels(path: str, status: Code) -> Labels:
    return (("model_path", path), ("status", status.name))


def _version_labels(model: str, version: Any) -> Labels:
    return (("model", model), ("version", "" if version is None else str(version)))
