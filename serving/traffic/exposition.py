"""A traffic report as Prometheus reads it (text format 0.0.4).

Its place in the flow: the front end's listener for metrics serves it at /metrics.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate

from serving.traffic.observation import LATENCY_BOUNDS_MS, TrafficReport, VersionTraffic

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PREFIX = "liftgate_front_end_"
_Sample = tuple[dict[str, str], float]


def exposition(report: TrafficReport) -> str:
    """Return a report in Prometheus' text format, each sample with its model, front end and version."""
    common = {"model": report.model, "front_end": report.front_end}
    versions = [({**common, "version": str(entry.version)}, entry) for entry in report.versions]
    shadows = [({**common, "version": str(entry.version)}, entry) for entry in report.shadows]
    lines = [
        *_family(
            "start_time_seconds",
            "gauge",
            "When this front end began to count.",
            [(common, report.started_at.timestamp())],
        ),
        *_counter("requests", "Questions to a version.", [(names, entry.requests) for names, entry in versions]),
        *_counter("errors", "Questions without a usable answer.", [(names, entry.errors) for names, entry in versions]),
        *_counter(
            "canary_fallbacks",
            "People who got the stable version because the canary was not loaded or had no place.",
            [(names, entry.fallbacks) for names, entry in versions],
        ),
        *_counter(
            "top_labels",
            "Answers by the label that won.",
            [({**names, "label": top}, n) for names, entry in versions for top, n in sorted(entry.top_counts.items())],
        ),
        *_histogram(versions),
        *_counter("shadow_compared", "Copies compared.", [(names, entry.compared) for names, entry in shadows]),
        *_counter(
            "shadow_agreed", "Copies where the same label won.", [(names, entry.agreed) for names, entry in shadows]
        ),
        *_counter("shadow_failed", "Copies without an answer.", [(names, entry.failed) for names, entry in shadows]),
        *_counter("shadow_dropped", "Copies not made.", [(names, entry.dropped) for names, entry in shadows]),
        *_counter(
            "shadow_score_distance",
            "Sum of the total variation distances of the copies that were compared.",
            [(names, entry.score_distance_sum) for names, entry in shadows],
        ),
        *_family(
            "shadow_score_distance_max",
            "gauge",
            "The largest of these distances since the start.",
            [(names, entry.score_distance_max) for names, entry in shadows],
        ),
    ]
    return "".join(f"{line}\n" for line in lines)


def _counter(name: str, help_text: str, samples: Iterable[_Sample]) -> list[str]:
    return _family(f"{name}_total", "counter", help_text, samples)


def _family(name: str, kind: str, help_text: str, samples: Iterable[_Sample]) -> list[str]:
    lines = [_sample(f"{_PREFIX}{name}", names, value) for names, value in samples]
    return [*_head(name, kind, help_text), *lines] if lines else []


def _histogram(versions: list[tuple[dict[str, str], VersionTraffic]]) -> list[str]:
    name = f"{_PREFIX}prediction_duration_seconds"
    bounds = [f"{bound / 1000:g}" for bound in LATENCY_BOUNDS_MS] + ["+Inf"]
    lines = []
    for names, entry in versions:
        totals = list(accumulate(entry.latency_counts))
        lines += [
            _sample(f"{name}_bucket", {**names, "le": bound}, total)
            for bound, total in zip(bounds, totals, strict=True)
        ]
        lines.append(_sample(f"{name}_sum", names, entry.latency_sum_ms / 1000))
        lines.append(_sample(f"{name}_count", names, totals[-1]))
    head = _head("prediction_duration_seconds", "histogram", "How long the model server took for an answer.")
    return [*head, *lines] if lines else []


def _head(name: str, kind: str, help_text: str) -> list[str]:
    return [f"# HELP {_PREFIX}{name} {help_text}", f"# TYPE {_PREFIX}{name} {kind}"]


def _sample(name: str, names: dict[str, str], value: float) -> str:
    inner = ",".join(f'{key}="{_escaped(text)}"' for key, text in names.items())
    return f"{name}{{{inner}}} {value!r}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
