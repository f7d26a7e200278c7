"""Pseudo labels, what the detector is taught: a CAM, refined, two thresholds, a band between them.

A refiner maps (image, crack map) to a sharper crack map in [0, 1]; refiners run in the order of
the config. To add one: write `refine_by_...`, enter it in `REFINERS`, and name it in
`wpcrack.label_config.PseudoLabelConfig`. The filters below them are separable or made of running
sums, so their cost does not depend on the radius of a box. All functions are pure.

Shape letters: B images, C channels, G channels of a guide (1 or 3), H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wpcrack.data.batch import Batch, CrackPart, Exact, Foreseen
from wpcrack.label_config import DarknessConfig, ParConfig, PseudoLabelConfig
from wpcrack.labels.cam import label_map
from wpcrack.labels.dense_crf import dense_crf_batch, require_crf
from wpcrack.networks import Classifier, Features

Refiner = Callable[[Tensor, Tensor, PseudoLabelConfig], Tensor]

GRAY_LEVEL = 1 / 255
MIN_DEVIATION = 2 * GRAY_LEVEL
"""Darkness is not measured in deviations smaller than the camera's noise (two gray levels)."""
MIN_ROAD = 0.01
"""What a pixel counts as road however sure the CAM is, so that surroundings are never empty."""


@dataclass(frozen=True)
class PseudoLabel:
    """Target of the detector."""

    target: Tensor
    """(B, 1, H, W) 1 on crack pixels, else 0."""
    weight: Tensor
    """(B, 1, H, W) 1 where the target counts, 0 in the ignored band."""


@dataclass(frozen=True)
class Opinion:
    """What a detector adds to the labels that teach it (mean teacher)."""

    of: Callable[[Tensor], Tensor]
    """(B, 3, H, W) images in [0, 1] -> (B, 1, H, W) crack probability."""
    weight: float
    """In [0, 1), beside the refined CAM."""


def label_batch(
    teacher: Classifier,
    batch: Batch,
    config: PseudoLabelConfig,
    cam_norm: Literal["sigmoid", "max"],
    features: Features | None = None,
    opinion: Opinion | None = None,
) -> PseudoLabel:
    """Make the pseudo label of a batch from the CAM of a classifier, without gradient.

    A road image has no crack to refine, so only the crack images are looked at. Drawn images have
    their exact mask.

    Args:
        teacher: the classifier whose CAM counts.
        batch: the local batch.
        config: refiners and thresholds.
        cam_norm: how CAM logits become a map.
        features: of the teacher's encoder on the batch, if they are known.
        opinion: of a detector that has a say too (self-training), but on images that were foreseen.
    """
    part = CrackPart.to_label(batch)
    image, shown = batch.to_label[part.index], part.shown.view(-1, 1, 1, 1)
    with torch.no_grad():
        cam = teacher(image).cam if features is None else teacher.head(features.of(part.index))
        with torch.autocast(image.device.type, enabled=False):
            found = refine(image, shown * label_map(cam, batch.size, cam_norm), config)
        if opinion is not None:
            said = say(opinion, image, batch.foreseen and batch.foreseen.of(part.index))
            found = torch.lerp(found, shown * said, opinion.weight)
        refined = torch.zeros_like(batch.erased)
        refined[part.index] = found
        label = pseudo_label(refined, batch.has_crack, config)
        return label if batch.exact is None else with_exact(label, batch.exact)


def say(opinion: Opinion, image: Tensor, foreseen: Foreseen | None) -> Tensor:
    """Return what a detector says of images (B, 3, H, W): as foreseen where it was, else now."""
    if foreseen is None:
        return opinion.of(image)
    if bool(foreseen.known.all()):
        return foreseen.probability
    known = foreseen.known.view(-1, 1, 1, 1) > 0
    return torch.where(known, foreseen.probability, opinion.of(image))


def with_exact(label: PseudoLabel, exact: Exact) -> PseudoLabel:
    """Put what is known of drawn images in the place of their pseudo label."""
    drawn = exact.drawn.view(-1, 1, 1, 1) > 0
    return PseudoLabel(
        torch.where(drawn, exact.target, label.target),
        torch.where(drawn, exact.weight, label.weight),
    )


def pseudo_label(refined: Tensor, has_crack: Tensor, config: PseudoLabelConfig) -> PseudoLabel:
    """Apply two thresholds to a refined map; an image labeled road is road in every pixel.

    Args:
        refined: (B, 1, H, W) in [0, 1].
        has_crack: (B,) 0 or 1, the image-level label.
        config: The two thresholds.
    """
    shown = has_crack.view(-1, 1, 1, 1) > 0
    crack = (refined >= config.cam_crack) & shown
    road = (refined < config.cam_road) | ~shown
    return PseudoLabel(crack.to(refined.dtype), (crack | road).to(refined.dtype))


def refine(image: Tensor, crack_map: Tensor, config: PseudoLabelConfig) -> Tensor:
    """Apply the configured refiners to a crack map.

    Args:
        image: (B, 3, H, W) in [0, 1].
        crack_map: (B, 1, H, W) in [0, 1], the upsampled CAM.
        config: Which refiners, in which order.

    Returns:
        (B, 1, H, W) in [0, 1].
    """
    for name in config.refiners:
        crack_map = REFINERS[name](image, crack_map, config)
    return crack_map


def require_refiners(config: PseudoLabelConfig) -> None:
    """Check before a run that every refiner can work.

    Raises:
        ConfigError: An optional package is missing.
    """
    if "crf" in config.refiners:
        require_crf()


def darkness(image: Tensor, config: DarknessConfig, road: Tensor | None = None) -> Tensor:
    """Measure darkness: (local mean - pixel) / local deviation of the slightly blurred gray image.

    One rule for all surfaces: contrast is measured against the texture around it, so no
    threshold in gray levels has to be chosen per data set.

    Args:
        image: (B, 3, H, W) in [0, 1].
        config: Sides of the blur and of the surroundings, in pixels.
        road: (B, 1, H, W) in [0, 1], how much a pixel counts as surroundings; all equally if None.

    Returns:
        (B, 1, H, W) in local standard deviations, positive where darker than the surroundings.
    """
    gray = gaussian_blur(image.mean(1, keepdim=True), config.blur_px)
    weight = torch.ones_like(gray) if road is None else road.clamp_min(MIN_ROAD)
    share = box_mean(weight, config.surround_px)
    mean = box_mean(weight * gray, config.surround_px) / share
    variance = box_mean(weight * gray.square(), config.surround_px) / share - mean.square()
    return (mean - gray) / (variance.clamp_min(0).sqrt() + MIN_DEVIATION)


def refine_by_darkness(image: Tensor, crack_map: Tensor, config: PseudoLabelConfig) -> Tensor:
    """Take the weaker of CAM and min(ramp(darkness), ramp(darkness / darkest point nearby)).

    The first ramp is 0 up to `darkness.zero`, 1 from `darkness.one` deviations on: is this dark
    against the surface? The second is 0.5 at `darkness.peak_share` of the darkest point that the
    CAM holds nearby: is this inside the crack or on its blurred edge? A blurred edge of a wide,
    deep crack is darker than the core of a hairline, so neither ramp replaces the other.

    Then a crack is followed: dark pixels that are connected to it count as far as the CAM is above
    `cam_road`, since cells of a CAM end before the crack does.
    """
    rule = config.darkness
    dark = darkness(image, rule, 1 - crack_map if rule.beside else None)
    ramp = ((dark - rule.zero) / (rule.one - rule.zero)).clamp(0, 1)
    if rule.peak_share:
        held = dark.clamp_min(0) * (crack_map >= config.cam_crack)
        peak = dilate(held, rule.peak_px).clamp_min(rule.one)
        ramp = torch.minimum(ramp, (dark / (2 * rule.peak_share * peak)).clamp(0, 1))
    dark_cam = crack_map * ramp if rule.combine == "product" else torch.minimum(crack_map, ramp)
    if not rule.follow_px:
        return dark_cam
    return follow(dark_cam, ramp * (crack_map >= config.cam_road), rule.follow_px)


def follow(seed: Tensor, path: Tensor, reach_px: int) -> Tensor:
    """Spread the seed along 8-connected pixels, nowhere above the path: gray-scale reconstruction.

    The soft form of hysteresis thresholding (Vincent, IEEE TIP 1993), cut off after `reach_px`.

    Args:
        seed: (B, 1, H, W) in [0, 1].
        path: (B, 1, H, W) in [0, 1].
        reach_px: how far it spreads.

    Returns:
        (B, 1, H, W), at least the seed.

    >>> seed, path = torch.tensor([0.0, 0.9, 0.0, 0.0, 0.0]), torch.tensor([0.0, 1, 0.6, 0.0, 1])
    >>> follow(seed.view(1, 1, 1, 5), path.view(1, 1, 1, 5), 4).flatten()
    tensor([0.0000, 0.9000, 0.6000, 0.0000, 0.0000])
    """
    grown = torch.minimum(seed, path)
    for _ in range(reach_px):
        grown = torch.minimum(dilate(grown), path)
    return torch.maximum(seed, grown)


def dilate(x: Tensor, side: int = 3) -> Tensor:
    """Take the maximum over side x side pixels (odd) of (B, 1, H, W) >= 0, faster than max_pool2d.

    Maxima over 1, 2, 4, ... pixels follow from each other (van Herk 1992 gives the idea of reuse).
    """
    x = F.pad(x, (side // 2,) * 4)
    for axis in (-2, -1):
        reach = 1  # pixels that each value is the maximum of
        while reach < side:
            step = min(reach, side - reach)
            length = x.shape[axis] - step
            x = torch.maximum(x.narrow(axis, 0, length), x.narrow(axis, step, length))
            reach += step
    return x


def refine_by_pixels(image: Tensor, crack_map: Tensor, config: PseudoLabelConfig) -> Tensor:
    """Refine pixel-adaptively (PAR; Ru et al., Learning Affinity from Attention, CVPR 2022).

    affinity = softmax(-(|dI| / (0.3 std))^2) + 0.01 softmax(position term) over the 8 neighbors
    at each dilation; the map is replaced by its affinity-weighted mean, `iterations` times.
    """
    rule: ParConfig = config.par
    around = neighbors(image, rule.dilations)  # (B, 3, N, H, W)
    difference = (around - image[:, :, None]).abs()
    deviation = around.std(2, keepdim=True) + 1e-8
    color = -((difference / deviation / rule.color_weight) ** 2).mean(1, keepdim=True)
    distance = offsets(rule.dilations, image)
    position = -((distance / (distance.std() + 1e-8) / rule.color_weight) ** 2)
    affinity = color.softmax(2) + rule.position_weight * position.softmax(0).view(1, 1, -1, 1, 1)
    affinity = affinity / affinity.sum(2, keepdim=True)
    for _ in range(rule.iterations):
        crack_map = (neighbors(crack_map, rule.dilations) * affinity).sum(2)
    return crack_map.clamp(0, 1)


def refine_by_guide(image: Tensor, crack_map: Tensor, config: PseudoLabelConfig) -> Tensor:
    """Filter the map so that it is locally linear in the image: its edges move to the image's."""
    rule = config.guided
    guide = image if rule.guide == "color" else image.mean(1, keepdim=True)
    return guided_filter(guide, crack_map, 2 * rule.radius_px + 1, rule.eps).clamp(0, 1)


def refine_by_crf(image: Tensor, crack_map: Tensor, config: PseudoLabelConfig) -> Tensor:
    """Run a dense CRF on each image, on the CPU: 0 or 1; a map that is 0 everywhere stays so."""
    refined = torch.zeros_like(crack_map)
    marked = crack_map.flatten(1).amax(1).nonzero().flatten().tolist()
    if marked:
        pixels = (image[marked] * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
        found = dense_crf_batch(
            list(pixels.cpu().numpy()),
            list(crack_map[marked, 0].float().cpu().numpy()),
            config.crf,
            config.crf.processes or torch.get_num_threads(),
        )
        refined[marked, 0] = torch.from_numpy(np.stack(found)).to(refined)
    return refined


REFINERS: Mapping[str, Refiner] = {
    "darkness": refine_by_darkness,
    "par": refine_by_pixels,
    "guided": refine_by_guide,
    "crf": refine_by_crf,
}


def box_mean(x: Tensor, side: int) -> Tensor:
    """Average over a square of `side` pixels (odd; at most the image), reflected at edges."""
    for axis in (2, 3):
        radius = min(side // 2, x.shape[axis] - 1)
        pad = (0, 0, radius, radius) if axis == 2 else (radius, radius, 0, 0)
        sums = F.pad(x, pad, mode="reflect").double().cumsum(axis)
        sums = F.pad(sums, (0, 0, 1, 0) if axis == 2 else (1, 0, 0, 0))
        width = 2 * radius + 1
        count = x.shape[axis]
        x = (sums.narrow(axis, width, count) - sums.narrow(axis, 0, count)).to(x.dtype) / width
    return x


def gaussian_blur(x: Tensor, side: int) -> Tensor:
    """Blur (B, 1, H, W) by a separable Gaussian of `side` pixels (odd), sigma = side / 5."""
    radius = side // 2
    grid = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device)
    kernel = torch.exp(-(grid**2) / (2 * (side / 5) ** 2))
    kernel = kernel / kernel.sum()
    x = F.conv2d(F.pad(x, (radius, radius, 0, 0), mode="reflect"), kernel.view(1, 1, 1, -1))
    return F.conv2d(F.pad(x, (0, 0, radius, radius), mode="reflect"), kernel.view(1, 1, -1, 1))


def guided_filter(guide: Tensor, x: Tensor, side: int, eps: float) -> Tensor:
    """Filter x by the edges of a guide (He, Sun, Tang, TPAMI 2013; eq. 5-8 gray, 14-16 color).

    In each box q = a . guide + b fits x with the least squares and a penalty eps |a|^2; a pixel
    averages the a and b of all boxes that hold it. Where the guide is flat against eps, x is
    smoothed; where it has an edge, x gets that edge.

    Args:
        guide: (B, G, H, W) in [0, 1]; G = 1 or 3.
        x: (B, 1, H, W), what is filtered.
        side: of the box, in pixels, odd.
        eps: variance of the guide below which a box counts as flat, in squared gray levels of
            [0, 1].

    Returns:
        (B, 1, H, W); it may leave the range of x a little.
    """
    channels = guide.shape[1]
    mean = box_mean(guide, side)
    mean_x = box_mean(x, side)
    covariance = box_mean(guide * x, side) - mean * mean_x  # (B, G, H, W)
    rows, cols = torch.triu_indices(channels, channels, device=guide.device)
    upper = box_mean(guide[:, rows] * guide[:, cols], side) - mean[:, rows] * mean[:, cols]
    spread = upper.new_zeros(*upper.shape[:1], channels, channels, *upper.shape[2:])
    spread[:, rows, cols] = upper
    spread[:, cols, rows] = upper
    spread = spread.permute(0, 3, 4, 1, 2) + eps * torch.eye(channels, device=guide.device)
    a = torch.linalg.solve(spread, covariance.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    b = mean_x - (a * mean).sum(1, keepdim=True)
    return (box_mean(a, side) * guide).sum(1, keepdim=True) + box_mean(b, side)


def neighbors(x: Tensor, dilations: tuple[int, ...]) -> Tensor:
    """Stack the 8 neighbors at each dilation, edges replicated: (B, C, 8 D, H, W)."""
    h, w = x.shape[-2:]
    reach = max(dilations)
    padded = F.pad(x, (reach,) * 4, mode="replicate")
    return torch.stack(
        [
            padded[..., reach + dy : reach + dy + h, reach + dx : reach + dx + w]
            for dy, dx in shifts(dilations)
        ],
        2,
    )


def shifts(dilations: tuple[int, ...]) -> list[tuple[int, int]]:
    """List (dy, dx) of the 8 neighbors at each dilation, in pixels."""
    ring = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
    return [(d * dy, d * dx) for d in dilations for dy, dx in ring]


def offsets(dilations: tuple[int, ...], like: Tensor) -> Tensor:
    """Compute the (8 D,) distances in pixels of the neighbors, on the device of `like`."""
    steps = torch.tensor(shifts(dilations), dtype=like.dtype, device=like.device)
    return steps.square().sum(1).sqrt()
