"""IoU on images with masks, for the user who has some: judges epochs, never teaches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple

import torch

from wpcrack import distributed, metrics
from wpcrack.batches import Shard
from wpcrack.image_folders import Pair
from wpcrack.images import read_mask, read_rgb
from wpcrack.lattice import Lattice
from wpcrack.metrics import Counts
from wpcrack.networks import Networks
from wpcrack.predict import predict_image
from wpcrack.selection import THRESHOLD
from wpcrack.torch_engine import TorchPredictor


def masked_iou(nets: Networks, pairs: Sequence[Pair], shard: Shard, device: torch.device) -> float:
    """IoU of the crack class, pooled over all pixels of all images, as `wpcrack evaluate` has it.

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
        image = read_rgb(pair.image)
        truth = read_mask(pair.mask, image.shape[:2])
        predicted = metrics.predicted_at(predict_image(image, predictor, Lattice()), THRESHOLD)
        mine += metrics.count(predicted, truth)
    pooled = distributed.total(torch.tensor(astuple(mine), dtype=torch.float64), device)
    return metrics.iou(Counts(*(int(value) for value in pooled.tolist())))
