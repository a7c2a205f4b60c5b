"""The tables of a training's configuration: every key with its meaning, its bounds and its default.

Its place in the flow: `training_config` reads a TOML file into these; the resolved form, defaults
included, goes into run.json and its digest into the lineage of a version.
"""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from artifact_sync.canonical import FrozenModel

PositiveInt = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Factor = Annotated[float, Field(ge=0)]

ARCHITECTURES = (
    "small-cnn",
    "small-cnn-batchnorm",
    "mobilenet-v2",
    "mobilenet-v3-small",
    "mobilenet-v3-large",
    "efficientnet-b0",
    "efficientnet-b3",
    "efficientnet-v2-b0",
    "efficientnet-v2-s",
    "resnet-50",
    "convnext-tiny",
    "convnext-small",
)
"""The networks that have a name; "package.module:function" names a builder of the user's own."""

_OWN_BUILDER = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_MAY_HOLD_CODE = (".keras", ".pkl", ".pickle", ".pt", ".pth", ".pb", ".npy", ".npz")


class ModelTable(FrozenModel):
    """[model]: which network.

    Attributes:
        architecture: one of `ARCHITECTURES`, or "package.module:function" (see networks.network).
        weights: where the backbone's weights come from: "" (drawn from the seed), "imagenet" (Keras fetches
            them), or the path of an .h5 file, of a run folder or of a checkpoint of the same backbone, as it
            is on every host; in the file relative to it.
        frozen_epochs: so many first epochs train only the layers after the backbone (domain transfer).
        fine_tune_factor: what the learning rate is multiplied with once the backbone is trained too.
        input_size: "HEIGHTxWIDTH" that the dataset must have; "" takes the dataset's.
        widths: channels of each stage of the small CNNs.
        dense_units: units of the hidden layer before the classes; 0 leaves it out.
        dropout: share of units dropped before the classes while training.
        batch_norm_momentum: of the running means of normalisations; 0.9 settles in a few hundred steps.
        width_multiplier: the alpha of the MobileNets.
    """

    architecture: str = "small-cnn"
    weights: str = ""
    frozen_epochs: Annotated[int, Field(ge=0)] = 0
    fine_tune_factor: Annotated[float, Field(gt=0, le=1)] = 1.0
    input_size: Annotated[str, Field(pattern=r"^(\d+x\d+)?$")] = ""
    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=1, max_length=6)] = (16, 32)
    dense_units: Annotated[int, Field(ge=0)] = 128
    dropout: Share = 0.0
    batch_norm_momentum: Annotated[float, Field(gt=0, lt=1)] = 0.9
    width_multiplier: Annotated[float, Field(gt=0, le=2)] = 1.0

    @field_validator("architecture")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name in ARCHITECTURES or _OWN_BUILDER.fullmatch(name):
            return name
        near = difflib.get_close_matches(name, ARCHITECTURES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(ARCHITECTURES)}."
        raise ValueError(f'{name!r} is neither a network nor "package.module:function"; {hint}')

    @field_validator("weights")
    @classmethod
    def _holds_no_code(cls, weights: str) -> str:
        if weights.endswith(_MAY_HOLD_CODE):
            raise ValueError(
                f"{weights} may hold code, which loading would execute; save the weights alone, "
                'backbone.save_weights("NAME.weights.h5")'
            )
        return weights


class OptimizationTable(FrozenModel):
    """[optimization]: how long and how fast.

    Attributes:
        optimizer: "adam", "adamw", "sgd" (with Nesterov's momentum), "rmsprop" or "lamb" (large batches).
        batch_size: examples of one step over all devices of all hosts, however many there are.
        learning_rate: the highest rate, for batches of `reference_batch_size`.
        learning_rate_rule: "fixed" takes it as it stands; "linear" multiplies it with batch_size /
            reference_batch_size (Goyal et al., 2017), "square-root" with the root of that (for Adam).
        schedule: how the rate falls after the warm-up.
        decay_epochs: of "step": the epochs after which the rate is multiplied with `decay_factor`;
            of "exponential": the first of them is the epochs from one such multiplication to the next.
        final_rate_share: the share of the highest rate at which "cosine" and "linear" end.
        warmup_share: the share of all steps in which the rate rises linearly from 0.
        momentum: of "sgd" and "rmsprop".
        weight_decay: each step takes so much times the rate from every weight but biases and normalisations.
        label_smoothing: so much of each label is shared out over all classes.
        gradient_clip_norm: gradients of a larger global norm are scaled down to it; 0 leaves them.
        ema_decay: of the moving average of the weights that is evaluated and exported; 0 turns it off.
        early_stopping_epochs: end when the validation loss was not better for so many epochs; 0 never does.
            The best weights are the ones that are exported.
        class_weights: how much an example's loss counts: "none", "balanced" (inverse of its class' share),
            or a number for each label that is named, 1 for the others.
    """

    epochs: PositiveInt = 5
    batch_size: PositiveInt = 128
    optimizer: Literal["adam", "adamw", "sgd", "rmsprop", "lamb"] = "adam"
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    learning_rate_rule: Literal["fixed", "linear", "square-root"] = "fixed"
    reference_batch_size: PositiveInt = 256
    schedule: Literal["cosine", "linear", "step", "exponential", "constant"] = "cosine"
    decay_epochs: tuple[PositiveInt, ...] = ()
    decay_factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    final_rate_share: Share = 0.0
    warmup_share: Share = 0.0
    momentum: Share = 0.9
    weight_decay: Factor = 0.0
    label_smoothing: Share = 0.0
    gradient_clip_norm: Factor = 0.0
    ema_decay: Share = 0.0
    early_stopping_epochs: Annotated[int, Field(ge=0)] = 0
    class_weights: Literal["none", "balanced"] | dict[str, Annotated[float, Field(gt=0)]] = "none"

    @model_validator(mode="after")
    def _has_decay_epochs(self) -> OptimizationTable:
        if self.schedule in ("step", "exponential") and not self.decay_epochs:
            raise ValueError(f"schedule {self.schedule!r} needs decay_epochs")
        return self


class AugmentationTable(FrozenModel):
    """[augmentation]: random changes of the training pixels, drawn from seed, epoch and position.

    Attributes:
        shift_pixels: up to so many pixels in both directions; the edge is mirrored into the picture.
        crop_share: the smallest share of the picture's area that a random crop keeps; 1 crops nothing.
        rotate_degrees: up to so many degrees in both directions.
        brightness: up to this share of the full range is added or taken.
        contrast: the distance from the mean is multiplied with 1 ± this.
        saturation: the distance from grey is multiplied with 1 ± this.
        erase_share: the largest share of the area that a grey rectangle covers (Zhong et al., 2017).
    """

    flip_horizontal: bool = False
    flip_vertical: bool = False
    shift_pixels: Annotated[int, Field(ge=0, le=256)] = 0
    crop_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    rotate_degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    brightness: Share = 0.0
    contrast: Share = 0.0
    saturation: Share = 0.0
    erase_share: Share = 0.0


class BoostTable(FrozenModel):
    """[data.boost]: how often an example is seen in an epoch: its class' times its slices' factors.

    A factor of 2 repeats each example, 0.5 leaves out every other one, another half in each epoch, 0 all.

    Attributes:
        classes: a factor for each label that is named.
        slices: a factor for each value of each slice column that is named.
    """

    classes: dict[str, Factor] = Field(default_factory=dict)
    slices: dict[str, dict[str, Factor]] = Field(default_factory=dict)


class DataTable(FrozenModel):
    """[data]: what of the shards is used, and how it is read.

    Attributes:
        validation_share: share of the examples kept from training: the first in the shards' order, so
            that an example stays on its side when others come or go, and near duplicates on one side.
        max_examples: train on only so many; 0 takes all that are not for validation.
        shuffle_megabytes: memory that holds the examples from which the next one is drawn.
        interleaved_shards: shards from which blocks are taken in turn.
        boost: re-weights classes and slices; in the file also the path of a boost manifest.
    """

    validation_share: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    max_examples: Annotated[int, Field(ge=0)] = 0
    shuffle_megabytes: PositiveInt = 256
    interleaved_shards: PositiveInt = 8
    boost: BoostTable = BoostTable()


class ExecutionTable(FrozenModel):
    """[execution]: seeds, threads, number formats and the rhythm of writing.

    Attributes:
        is_deterministic: the same seed, threads, hosts and machine kind give the same bits; costs 0 to 3 %.
        threads: of one TensorFlow operation and between operations; 0 leaves it to TensorFlow.
        mixed_precision: the number format of the activations: weights stay float32, the logits too.
        is_compiled: compile the step with XLA; for GPUs (on a CPU it is slower).
        is_evaluated: evaluate after each epoch; false leaves it to `liftgate evaluate` on another host.
        histograms_every_epochs: write histograms of weights and gradients so often; 0 only on demand.
    """

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    is_deterministic: bool = True
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    mixed_precision: Literal["off", "float16", "bfloat16"] = "off"
    is_compiled: bool = False
    is_evaluated: bool = True
    checkpoint_every_steps: PositiveInt = 500
    log_every_steps: PositiveInt = 20
    histograms_every_epochs: Annotated[int, Field(ge=0)] = 0


class ExportTable(FrozenModel):
    """[export]: what is made of the trained weights.

    Attributes:
        is_folded: fold batch normalisation into the convolutions before it.
        variants: further exports, each a run of its own inside the run: "bfloat16" for CPUs that have it.
    """

    is_folded: bool = True
    variants: tuple[Literal["bfloat16"], ...] = ()

    @field_validator("variants")
    @classmethod
    def _each_once(cls, variants: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(variants)) != len(variants):
            raise ValueError("each variant once")
        return variants
