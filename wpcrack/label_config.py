"""Typed configuration of the pseudo label: from coarse maps of a classifier to labels of pixels.

"Paper" is arXiv 2510.17566; "released" is the value of the authors' code.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from wpcrack.config_block import Block, Count, NonNegative, OddCount, Positive, Share


class DarknessConfig(Block):
    """Darkness of a pixel against its surroundings, in local standard deviations."""

    blur_px: Annotated[OddCount, Field(le=63)] = 3
    """Side of the Gaussian that removes aggregate texture; odd."""
    surround_px: OddCount = 101
    """Side of the box of the local mean and standard deviation; odd."""
    beside: bool = True
    """A pixel counts as surroundings by 1 - CAM, else a wide crack is measured against itself."""
    zero: float = 0.5
    """Up to this many deviations darker than the surroundings the CAM is multiplied by 0."""
    one: float = 2.0
    """From this many deviations on the CAM is kept; between both a linear ramp."""
    peak_share: Annotated[float, Field(ge=0, lt=1)] = 0.4
    """Edge of a crack, where the CAM is halved (a ramp from 0 to twice this): this share of the
    darkest point nearby; 0: no such rule."""
    peak_px: OddCount = 21
    """Side of the square in which that darkest point is looked for, inside the CAM; odd."""
    combine: Literal["min", "product"] = "min"
    """The weaker of CAM and darkness; or their product: two half-sure signs make no crack."""
    follow_px: Annotated[int, Field(ge=0)] = 64
    """A crack is followed along dark pixels this far into cells where the CAM is only above
    `cam_road` (hysteresis: Canny, PAMI 1986); 0: not followed."""

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.one <= self.zero:
            raise ValueError(f"one ({self.one:g}) must lie above zero ({self.zero:g})")
        return self


class ParConfig(Block):
    """Pixel-adaptive refinement of the CAM (Ru et al., CVPR 2022)."""

    iterations: Count = 10
    """Rounds of propagation."""
    dilations: Annotated[tuple[Count, ...], Field(min_length=1)] = (1, 2, 4, 8, 12, 24)
    """Rings of 3x3 neighbors."""
    color_weight: Positive = 0.3
    """Color differences are divided by this times their local deviation."""
    position_weight: NonNegative = 0.01
    """Weight of the position term."""


class GuidedConfig(Block):
    """Guided filter of the CAM by the image (He, Sun, Tang, TPAMI 2013)."""

    radius_px: Count = 8
    """Reach of the box: one CAM cell. The authors feather masks with 60."""
    eps: Positive = 1e-4
    """Variance (of gray levels in [0, 1]) below which the image counts as flat: a deviation of
    2.5 of 255 levels. The authors feather masks with 1e-6."""
    guide: Literal["gray", "color"] = "gray"
    """Whose edges the map takes: the mean of the channels, or their 3x3 covariance (3 x slower)."""


class CrfConfig(Block):
    """Dense conditional random field (Kraehenbuehl, Koltun 2011); extra `crf` (pydensecrf2)."""

    alpha: Positive = 6.0
    """Road probability is (1 - map)^alpha. Released: 0.5, which erases thin cracks."""
    iterations: Count = 10
    """Mean-field rounds."""
    near_px: Positive = 3.0
    """Reach of the smoothing kernel."""
    near_weight: NonNegative = 3.0
    """Weight of the smoothing kernel."""
    color_px: Positive = 80.0
    """Reach of the color kernel."""
    color_levels: Positive = 13.0
    """Color difference (of 255) at which the color kernel ends."""
    color_weight: NonNegative = 10.0
    """Weight of the color kernel."""
    processes: Count | None = None
    """Images refined at once; null: as many as torch has threads."""


class PseudoLabelConfig(Block):
    """From CAM to the target of the detector: refiners in order, then two thresholds."""

    source: Literal["ema", "eval", "train"] = "ema"
    """Whose CAM: the averaged classifier's (a second copy), the classifier's in eval mode, or as it
    trains, with dropout. Released: train."""
    refiners: tuple[Literal["darkness", "par", "guided", "crf"], ...] = ("darkness",)
    """Applied in this order. Darkness assumes cracks are darker than the surface."""
    self_training: Annotated[float, Field(ge=0, lt=1)] = 0.33
    """Weight of the averaged detector, beside the refined CAM, in the labels of the detector stage
    (mean teacher). 0: the CAM alone (paper). Needs `train.detector_ema`."""
    trained_detector: Annotated[float, Field(ge=0, lt=1)] = 0.7
    """In place of `self_training`, unless that is 0, where the training starts from a model
    (`model.init`): its detector knows cracks, and the CAM tells less where their edges are."""
    trained_crack: Share = 0.65
    """In place of `cam_crack` then: under a sure CAM a detector's 0.5 is crack. With 0.5 here it
    would be its 0.29, and cracks grow."""
    trained_road: Share = 0.35
    """In place of `cam_road` then: off the CAM a detector's 0.5 is the upper end of road."""
    look_around: bool = True
    """Whether that detector says what it sees of a window with what lies around it, where the set
    keeps that: as it was when the training began. Else the averaged one sees windows alone, in
    which it finds half of the cracks."""
    cam_crack: Share = 0.5
    """Refined CAM at least this: crack; see `trained_crack`."""
    cam_road: Share = 0.2
    """Refined CAM below this: road; between both: ignored."""
    darkness: DarknessConfig = DarknessConfig()
    """Local darkness."""
    par: ParConfig = ParConfig()
    """Pixel-adaptive refinement."""
    guided: GuidedConfig = GuidedConfig()
    """Guided filter."""
    crf: CrfConfig = CrfConfig()
    """Dense CRF; its result is 0 or 1, so nothing is ignored after it."""

    @model_validator(mode="after")
    def _leaves_a_band(self) -> Self:
        for kind in ("cam", "trained"):
            road, crack = getattr(self, f"{kind}_road"), getattr(self, f"{kind}_crack")
            if road > crack:
                raise ValueError(
                    f"{kind}_road ({road:g}) must not lie above {kind}_crack ({crack:g})"
                )
        return self
