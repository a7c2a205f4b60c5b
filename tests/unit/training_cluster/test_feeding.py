"""Which stage holds the inputs up, and whether GPUs of a stated speed would wait."""

from __future__ import annotations

import pytest

from training_cluster.measure.feeding import bottleneck, feeding, remedy
from training_cluster.measure.stages import StageRate


def test_the_slowest_stage_is_named_with_what_helps() -> None:
    stages = [StageRate("reading", 900.0, 1.0), StageRate("augmenting", 500.0, 1.0), StageRate("parsing", 800.0, 1.0)]
    assert bottleneck(stages).stage == "augmenting"
    assert "[augmentation]" in remedy("augmenting")


@pytest.mark.parametrize(
    ("gives", "takes", "hosts", "busy"),
    [(1000.0, 400.0, 1, 1.0), (1000.0, 1000.0, 1, 1.0), (1000.0, 1001.0, 2, 0.999), (1000.0, 4000.0, 4, 0.25)],
)
def test_as_many_hosts_are_asked_for_as_the_gpus_need(gives: float, takes: float, hosts: int, busy: float) -> None:
    found = feeding(gives, gpu_rate=takes)
    assert found.hosts == hosts
    assert found.busy_share == pytest.approx(busy, abs=0.001)


def test_it_is_said_how_long_gpus_would_wait() -> None:
    assert feeding(500.0, gpu_rate=400.0).sentence == "GPUs that take 400 images/s are fed by this host."
    assert "would wait 75% of the time on this host; 4 hosts like it feed them." in feeding(100, gpu_rate=400).sentence
