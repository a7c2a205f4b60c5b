"""What a step makes smaller: the weighted cross-entropy of a batch, and its gradients.

Its place in the flow: the loop runs it on every replica and sums what comes out. Everything is divided
by the batch of all replicas, so that sums need no further division.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from training_cluster.config.tables import OptimizationTable


class Objective:
    """The loss of one model under one optimizer.

    Args:
        model: uint8 pixels to logits.
        optimizer: knows the factor by which float16's losses are scaled.
        table: the configuration's [optimization].
        class_weights: how much an example of each class counts.
    """

    def __init__(
        self, model: keras.Model, optimizer: Any, table: OptimizationTable, class_weights: Sequence[float]
    ) -> None:
        self._model = model
        self._optimizer = optimizer
        self._table = table
        self._class_weights = tuple(class_weights)

    def gradients(self, pixels: Any, labels: Any, weights: Any) -> tuple[Sequence[Any], Any]:
        """Return the gradients of the variables that are trained, and three sums over the examples.

        The sums are loss, right answers and number; examples of weight 0 fill a batch up and are in none.
        """
        variables = [variable.value for variable in self._model.trainable_variables]
        with tf.GradientTape() as tape:
            logits = self._model(pixels, training=True)
            losses = self._losses(logits, labels) * weights
            scaled = self._scaled(tf.reduce_sum(losses) / self._table.batch_size + self._regularisation())
        gradients = tape.gradient(scaled, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        is_counted = tf.cast(weights > 0, tf.float32)
        is_right = tf.cast(tf.argmax(logits, axis=-1) == labels, tf.float32) * is_counted
        return gradients, tf.stack([tf.reduce_sum(losses), tf.reduce_sum(is_right), tf.reduce_sum(is_counted)])

    def unscaled(self, gradients: Sequence[Any]) -> Sequence[Any]:
        """Return gradients as they are without float16's factor."""
        scale = getattr(self._optimizer, "dynamic_scale", None)
        return gradients if scale is None else [gradient / scale.value for gradient in gradients]

    def _losses(self, logits: Any, labels: Any) -> Any:
        classes, smoothing = logits.shape[-1], self._table.label_smoothing
        targets = tf.one_hot(labels, classes, 1.0 - smoothing + smoothing / classes, smoothing / classes)
        losses = tf.nn.softmax_cross_entropy_with_logits(targets, logits)
        return losses * tf.gather(tf.constant(self._class_weights, tf.float32), labels)

    def _regularisation(self) -> Any:
        # Of layers in a network of the user's own; each replica adds its share, since gradients are summed.
        replicas = tf.distribute.get_replica_context().num_replicas_in_sync
        return tf.add_n(self._model.losses) / replicas if self._model.losses else 0.0

    def _scaled(self, loss: Any) -> Any:
        return self._optimizer.scale_loss(loss)
