"""Which epoch is best, judged without any pixel label; or with masks, if the user gives some.

Masks judge epochs, they never teach. For people to watch, `panels` shows what the networks see.
To change which epoch counts as best, and with it which checkpoints are kept: `objective` names the
metric, `AgreementCounter.result` computes it.

score = 0.5 IoU(detector, refined CAM of the averaged classifier; crack windows)
      + 0.5 F1 of "the detector finds a crack in this window" (image-level labels)
      - 10 x share of pixels that the detector marks on road windows.

Where the training starts from a model, the averaged detector has its say in the refined CAM as it
has in the labels, and only epochs of the detector stage count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields

import numpy as np
import torch
from torch import Tensor

from wpcrack import distributed
from wpcrack.config import MethodConfig, TrainConfig
from wpcrack.data.augment import as_planes
from wpcrack.data.batches import Shard
from wpcrack.data.images import Pair
from wpcrack.data.masks import read_pair
from wpcrack.data.pictures import Images
from wpcrack.inference.lattice import Lattice
from wpcrack.inference.predict import predict_image
from wpcrack.inference.torch_engine import TorchPredictor
from wpcrack.labels.cam import label_map
from wpcrack.labels.pseudo_label import refine
from wpcrack.networks import Classifier, Networks
from wpcrack.scoring import metrics
from wpcrack.scoring.metrics import Counts, Sums

THRESHOLD = 0.5

LABEL_FREE, MASKED_IOU = "val/score", "val/iou"
"""Metrics by which an epoch is judged; the second only where a masked validation set is given."""

COLUMNS = ("image", "CAM", "pseudo label", "prediction", "mask")
"""Of a panel, from left to right; the pseudo label is the refined CAM before its thresholds."""
GAP_PX = 2


def objective(metrics: Mapping[str, object]) -> str:
    """Name the metric that decides among epochs that were measured like this one."""
    return MASKED_IOU if MASKED_IOU in metrics else LABEL_FREE


@dataclass(frozen=True)
class Agreement:
    """Figures of one validation pass over the held-out windows."""

    score: float
    agreement_iou: float
    image_f1: float
    road_share: float
    cam_f1: float

    def by_name(self) -> dict[str, float]:
        """List the figures by metric name: val/score, val/agreement_iou, ..."""
        return {f"val/{field.name}": getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class AgreementSums(Sums):
    """What is counted over windows; a window is found if the detector marks enough of it."""

    both_px: float = 0.0
    """Pixels of crack windows that detector and refined CAM mark."""
    either_px: float = 0.0
    """Pixels of crack windows that one of them marks."""
    found_cracks: float = 0.0
    found_roads: float = 0.0
    missed_cracks: float = 0.0
    marked_road_px: float = 0.0
    """Pixels of road windows that the detector marks."""
    road_px: float = 0.0
    seen_cracks: float = 0.0
    """Windows that the averaged classifier says show a crack, as the next."""
    seen_roads: float = 0.0
    unseen_cracks: float = 0.0


class AgreementCounter:
    """Sums over windows, exact over ranks."""

    def __init__(self, config: TrainConfig) -> None:
        self.config, self.sums = config, AgreementSums()

    def add(self, detected: Tensor, refined: Tensor, seen: Tensor, has_crack: Tensor) -> None:
        """Add windows.

        Args:
            detected: (B, 1, H, W) bool, detector's mask.
            refined: (B, 1, H, W) bool, refined CAM's mask.
            seen: (B,) bool, the averaged classifier says crack.
            has_crack: (B,) bool, the image-level label.
        """
        crack = has_crack.view(-1, 1, 1, 1)
        found = detected.double().mean((1, 2, 3)) >= self.config.label_min_share
        self.sums += AgreementSums(
            both_px=float((detected & refined & crack).sum()),
            either_px=float(((detected | refined) & crack).sum()),
            found_cracks=float((found & has_crack).sum()),
            found_roads=float((found & ~has_crack).sum()),
            missed_cracks=float((~found & has_crack).sum()),
            marked_road_px=float((detected & ~crack).sum()),
            road_px=float((~has_crack).sum() * detected[0].numel()),
            seen_cracks=float((seen & has_crack).sum()),
            seen_roads=float((seen & ~has_crack).sum()),
            unseen_cracks=float((~seen & has_crack).sum()),
        )

    def result(self, device: torch.device) -> Agreement:
        """Compute the figures over all ranks (which talk through `device`); without any case 0."""
        mine = torch.tensor(astuple(self.sums), dtype=torch.float64)
        n = AgreementSums(*distributed.total(mine, device).tolist())
        iou = n.both_px / n.either_px if n.either_px else 0.0
        image_f1 = _f1(n.found_cracks, n.found_roads, n.missed_cracks)
        road_share = n.marked_road_px / n.road_px if n.road_px else 0.0
        return Agreement(
            score=0.5 * iou + 0.5 * image_f1 - self.config.false_alarm_weight * road_share,
            agreement_iou=iou,
            image_f1=image_f1,
            road_share=road_share,
            cam_f1=_f1(n.seen_cracks, n.seen_roads, n.unseen_cracks),
        )


def _f1(tp: float, fp: float, fn: float) -> float:
    return 2 * tp / (2 * tp + fp + fn) if tp else 0.0


def masked_iou(nets: Networks, pairs: Sequence[Pair], shard: Shard, device: torch.device) -> float:
    """Compute the crack IoU at scale 1, pooled over all pixels of all images.

    `wpcrack evaluate` pools in the same way, but fuses the scales of the delivered model.

    Args:
        nets: left in eval mode.
        pairs: images of any size and their masks; each rank predicts its share.
        shard: which share.
        device: of the networks.

    Returns:
        IoU over all ranks; 1 if there is neither truth nor prediction.

    Raises:
        DataError: an image or mask cannot be read, or their sizes differ.
    """
    predictor = TorchPredictor(nets, device, low_precision=False)
    mine = Counts()
    for pair in pairs[shard.rank :: shard.ranks]:
        image, truth = read_pair(pair)
        predicted = metrics.mask_at(predict_image(image, predictor, Lattice()), THRESHOLD)
        mine += metrics.count(predicted, truth)
    pooled = distributed.total(torch.tensor(astuple(mine), dtype=torch.float64), device)
    return metrics.iou(Counts(*(int(value) for value in pooled.tolist())))


def choose_windows(images: Images, count: int) -> list[int]:
    """Choose windows to watch, the same in every epoch: every fourth a road, spread evenly.

    Args:
        images: the validation windows.
        count: how many, if there are so many.

    Returns:
        Their positions in `images`.
    """
    cracks = [k for k, item in enumerate(images.items) if item.has_crack]
    roads = [k for k, item in enumerate(images.items) if not item.has_crack]
    wanted = ((cracks, count - count // 4), (roads, count // 4))
    return [
        side[k * len(side) // min(n, len(side))]
        for side, n in wanted
        for k in range(min(n, len(side)))
    ]


@torch.no_grad()
def panels(nets: Networks, teacher: Classifier, images: Tensor, config: MethodConfig) -> Tensor:
    """Draw one row of `COLUMNS` for each image; networks are in eval mode.

    Args:
        nets: whose detector predicts.
        teacher: whose CAM labels.
        images: (N, 3, H, W) in [0, 1].
        config: how a CAM becomes a map, and the refiners.

    Returns:
        (N, 3, H, W') in [0, 1] on the CPU.
    """
    size = (images.shape[-2], images.shape[-1])
    cam = label_map(teacher(images).cam, size, config.model.cam_norm)
    refined = refine(images, cam, config.pseudo_label)
    predicted = torch.sigmoid(nets(images).float())
    maps = (cam, refined, predicted, (predicted >= THRESHOLD).float())
    gap = torch.ones(len(images), 3, size[0], GAP_PX)
    parts = [images.float().cpu()]
    for values in maps:
        shown = values.float().nan_to_num().cpu()  # of a network that has diverged
        parts += [gap, shown.expand(-1, 3, -1, -1)]
    return torch.cat(parts, 3).clamp(0, 1)


def load_windows(images: Images, positions: list[int]) -> Tensor:
    """Load windows as (N, 3, H, W) in [0, 1], unchanged."""
    return torch.from_numpy(np.stack([as_planes(images.still(k)) for k in positions]))
