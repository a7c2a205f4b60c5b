"""The step: what counts in the loss, what is averaged, frozen, clipped and scaled; a resumed training is the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from artifact_sync.errors import RefusedError
from artifact_sync.records import InputContract
from training_cluster.config.tables import ExecutionTable, ModelTable, OptimizationTable
from training_cluster.config.training_config import TrainingConfig
from training_cluster.training.loop import TrainingLoop
from training_cluster.training.predictor import Predictor, served_weights

_CONTRACT = InputContract(height=8, width=8, channels=1)
_CLASSES, _BATCH, _STEPS = 3, 8, 8


def _loop(
    architecture: str = "small-cnn-batchnorm",
    *,
    frozen_epochs: int = 0,
    dropout: float = 0.2,
    mixed_precision: Any = "off",
    is_compiled: bool = False,
    class_weights: Sequence[float] = (1.0, 1.0, 1.0),
    **optimization: Any,
) -> TrainingLoop:
    keras.utils.set_random_seed(3)
    config = TrainingConfig(
        model=ModelTable(
            architecture=architecture, widths=(4,), dense_units=4, dropout=dropout, frozen_epochs=frozen_epochs
        ),
        optimization=OptimizationTable(
            **{"batch_size": _BATCH, "epochs": 4, "learning_rate": 0.01, "schedule": "constant"} | optimization
        ),
        execution=ExecutionTable(mixed_precision=mixed_precision, is_compiled=is_compiled),
    )
    return TrainingLoop(
        tf.distribute.get_strategy(),
        config=config,
        contract=_CONTRACT,
        class_count=_CLASSES,
        total_steps=_STEPS,
        class_weights=class_weights,
    )


def _batch(step: int, *, weights: Sequence[float] = (1,) * _BATCH) -> tuple[Any, ...]:
    draw = np.random.default_rng(step)
    pixels = draw.integers(0, 256, (_BATCH, 8, 8, 1), dtype=np.uint8)
    return tf.constant(pixels), tf.constant(draw.integers(0, _CLASSES, _BATCH)), tf.constant(weights, tf.float32)


def _changed(before: Any, after: Any) -> set[str]:
    return {name for name, array in before.items() if not np.array_equal(array, after[name])}


_ALL_AT_ONCE: dict[str, Any] = {
    "optimizer": "adamw",
    "weight_decay": 0.01,
    "gradient_clip_norm": 0.5,
    "ema_decay": 0.9,
    "schedule": "cosine",
    "warmup_share": 0.3,
}


# Begun again in the frozen part, and at its end.
@pytest.mark.parametrize(("mixed_precision", "begin"), [("bfloat16", 3), ("float16", 4)])
def test_a_resumed_training_is_bit_identical_with_all_of_it_on(mixed_precision: str, begin: int) -> None:
    tf.config.experimental.enable_op_determinism()
    given = {"mixed_precision": mixed_precision, "frozen_epochs": 2, "class_weights": (1.0, 2.0, 3.0), **_ALL_AT_ONCE}
    states = []
    whole = _loop(**given)
    for step in range(_STEPS):
        whole.set_frozen(step < 4)
        states.append(whole.arrays())
        whole.step(_batch(step))
    resumed = _loop(**given)
    resumed.assign(states[begin])
    for step in range(begin, _STEPS):
        resumed.set_frozen(step < 4)
        resumed.step(_batch(step))
    assert _changed(whole.arrays(), resumed.arrays()) == set()
    assert len(_changed(states[0], whole.arrays())) > 20


def test_examples_of_weight_0_count_neither_in_the_loss_nor_in_the_figures_nor_in_the_gradient() -> None:
    weights = (1, 1, 1, 1, 1, 0, 0, 0)
    figures, states = [], []
    for other in (0, 9):
        pixels, labels, _ = _batch(1)
        keep = tf.reshape(tf.constant(weights, tf.uint8), (-1, 1, 1, 1))
        mixed = pixels * keep + _batch(other)[0] * (1 - keep)
        loop = _loop("small-cnn")
        figures.append([float(figure) for figure in loop.step((mixed, labels, tf.constant(weights, tf.float32)))])
        states.append(loop.arrays())
    assert figures[0] == pytest.approx(figures[1])
    assert all(np.allclose(states[0][name], states[1][name], atol=1e-6) for name in states[0])
    # Means over the five that count.
    assert figures[0][1] * 5 == pytest.approx(round(figures[0][1] * 5))


def test_a_class_counts_as_its_weight_says() -> None:
    pixels, _, weights = _batch(1)
    batch = (pixels, tf.constant([2] * _BATCH, tf.int64), weights)
    plain, weighted = _loop("small-cnn"), _loop("small-cnn", class_weights=(1.0, 2.0, 5.0))
    assert float(weighted.step(batch)[0]) == pytest.approx(5 * float(plain.step(batch)[0]))


def test_a_gradient_is_clipped_to_its_global_norm() -> None:
    loop = _loop("small-cnn", optimizer="sgd", momentum=0.0, learning_rate=1.0, gradient_clip_norm=0.25)
    before = [variable.numpy() for variable in loop.model.trainable_variables]
    loop.step(_batch(1))
    moved = [old - new.numpy() for old, new in zip(before, loop.model.trainable_variables, strict=True)]
    assert np.sqrt(sum((part**2).sum() for part in moved)) == pytest.approx(0.25, rel=1e-4)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "rmsprop", "lamb"])
def test_every_optimizer_learns_a_batch_by_heart(optimizer: str) -> None:
    loop = _loop("small-cnn", optimizer=optimizer, learning_rate=0.02)
    losses = [float(loop.step(_batch(1))[0]) for _ in range(15)]
    assert losses[-1] < 0.8 * losses[0], losses


def test_weight_decay_leaves_biases_and_normalisations_alone() -> None:
    loop = _loop(optimizer="adamw", learning_rate=0.1, weight_decay=0.5)
    before = {variable.path: variable.numpy() for variable in loop.model.trainable_variables}
    # Nothing counts, so there is no gradient.
    loop.step(_batch(1, weights=(0,) * _BATCH))
    for variable in loop.model.trainable_variables:
        share = 0.95 if len(variable.shape) > 1 else 1.0
        np.testing.assert_allclose(variable.numpy(), share * before[variable.path], rtol=1e-5, err_msg=variable.path)


def test_averages_follow_the_weights_and_are_what_is_evaluated() -> None:
    loop = _loop(ema_decay=0.5)
    kernel = loop.model.get_layer("logits").kernel
    expected = kernel.numpy()
    for step in range(6):
        loop.step(_batch(step))
        kept = min(0.5, (1 + step) / (10 + step))
        expected = kept * expected + (1 - kept) * kernel.numpy()
    served = loop.served_weights()
    (name,) = (name for name in served if served[name].shape == kernel.shape)
    np.testing.assert_allclose(served[name], expected, rtol=1e-5)
    assert not np.allclose(served[name], kernel.numpy())
    # The running means of normalisations as well, and nothing more than the model has.
    in_training = {name: array for name, array in loop.arrays().items() if name.startswith("model/")}
    assert served.keys() == in_training.keys()
    assert {name.rpartition("/")[2] for name in _changed(in_training, served)} >= {"moving_mean", "moving_variance"}
    predictor = Predictor(loop.config, contract=_CONTRACT, class_count=_CLASSES)
    predictor.take(loop.arrays())
    np.testing.assert_array_equal(predictor.model.get_layer("logits").kernel.numpy(), served[name])
    assert _changed(served, served_weights(loop.arrays())) == set()


def test_a_frozen_backbone_keeps_its_weights_and_its_running_means_until_it_is_tuned() -> None:
    loop = _loop(frozen_epochs=2)
    head = {"dense", "logits"}

    def trained(before: Any) -> set[str]:
        after = {v.path: v.numpy() for v in loop.model.variables if "seed" not in v.path}
        return {path for path in after if not np.array_equal(before[path], after[path])}

    def now() -> dict[str, Any]:
        return {v.path: v.numpy() for v in loop.model.variables}

    before = now()
    loop.set_frozen(True)
    loop.step(_batch(1))
    assert {path.split("/")[0] for path in trained(before)} == head
    moments = [name for name, array in loop.arrays().items() if name.startswith("optimizer/") and array.any()]
    loop.set_frozen(False)
    left = [name for name, array in loop.arrays().items() if name.startswith("optimizer/") and array.any()]
    # The rate is what stays of the optimizer's state.
    assert (len(moments), len(left)) == (2 + 2 * 4, 1)
    loop.step(_batch(2))
    assert any("moving_mean" in path for path in trained(before))
    assert any("conv_0" in path for path in trained(before))


def test_a_step_whose_float16_gradients_overflow_is_left_out_and_the_next_are_scaled_less() -> None:
    loop = _loop(mixed_precision="float16", learning_rate=0.1)
    scale = loop.optimizer.dynamic_scale
    scale.assign(2.0**40)
    before = {variable.path: variable.numpy() for variable in loop.model.trainable_variables}
    loop.step(_batch(1))
    assert float(scale) == 2.0**39
    assert all(np.array_equal(v.numpy(), before[v.path]) for v in loop.model.trainable_variables)
    scale.assign(2.0**4)
    loop.step(_batch(1))
    assert not np.array_equal(loop.model.get_layer("logits").kernel.numpy(), before["logits/kernel"])


def test_histograms_hold_weights_and_unscaled_gradients_and_leave_the_training_as_it_was() -> None:
    loop = _loop(mixed_precision="float16", ema_decay=0.9)
    loop.step(_batch(1))
    before = loop.arrays()
    found = loop.histograms(_batch(2))
    assert _changed(before, loop.arrays()) == set()
    paths = [variable.path for variable in loop.model.trainable_variables]
    assert set(found) == {f"{kind}/{path}" for kind in ("weights", "gradients") for path in paths}
    norm = np.sqrt(sum((found[f"gradients/{path}"] ** 2).sum() for path in paths))
    assert 0.01 < norm < 100, norm


def test_the_state_of_another_training_is_refused() -> None:
    with pytest.raises(RefusedError, match=r"differ in \d+ variables"):
        _loop(ema_decay=0.9).assign(_loop().arrays())


_TWO_DEVICES = """
import json
import numpy as np, tensorflow as tf
from artifact_sync.errors import SettingsError

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import test_loop

def trained(strategy, architecture, steps=1, **execution):
    test_loop.tf.distribute.get_strategy = lambda: strategy
    loop = test_loop._loop(architecture, optimizer="adamw", gradient_clip_norm=0.5, ema_decay=0.9, **execution)
    replicas = strategy.num_replicas_in_sync
    for step in range(steps):
        batch = test_loop._batch(step, weights=(1, 1, 1, 1, 1, 1, 1, 0))
        if replicas > 1:
            batch = tuple(
                strategy.experimental_distribute_values_from_function(
                    lambda context, part=part: tf.split(part, replicas)[context.replica_id_in_sync_group]
                )
                for part in batch
            )
        figures = [float(figure) for figure in loop.step(batch)]
    return loop, figures

one, two = tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
plain = [trained(strategy, "small-cnn", steps=3, dropout=0.0) for strategy in (one, two)]
first, second = (loop.arrays() for loop, _ in plain)
difference = max(float(np.abs(first[name] - second[name]).max()) for name in first)
loop, _ = trained(two, "small-cnn-batchnorm")
means = [variable for variable in loop.model.variables if "moving" in variable.path]
copies = [[copy.numpy().tolist() for copy in variable.value.values] for variable in means]
compiled, _ = trained(one, "small-cnn", dropout=0.0, is_compiled=True)
tf.config.experimental.enable_op_determinism()
try:
    trained(one, "small-cnn", dropout=0.0, is_compiled=True)
except SettingsError as error:
    refusal = str(error)
print(json.dumps({
    "difference": difference,
    "figures": [figures for _, figures in plain],
    "copies": copies,
    "compiled": compiled.steps_done,
    "refusal": refusal,
}))
"""


def test_two_devices_learn_what_one_learns_and_xla_is_refused_where_it_cannot(repository: Any) -> None:
    # In a process of its own: devices are divided before TensorFlow's first use.
    done = subprocess.run(
        [sys.executable, "-c", _TWO_DEVICES],
        capture_output=True,
        text=True,
        check=False,
        cwd=repository,
        env={**os.environ, "PYTHONPATH": f"{repository}:{repository / 'tests/integration/training'}"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["difference"] < 1e-5
    assert found["figures"][0] == pytest.approx(found["figures"][1], rel=1e-5)
    assert found["copies"]
    assert all(here == there for here, there in found["copies"])
    assert found["compiled"] == 1
    assert "XLA cannot compile small-cnn on this device" in found["refusal"]
    assert "execution.is_deterministic" in found["refusal"]
