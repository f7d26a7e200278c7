"""What must hold before a training starts, checked before any network is built."""

from __future__ import annotations

from wpcrack.batches import Shard
from wpcrack.config import MethodConfig, ModelConfig
from wpcrack.errors import ConfigError


def require_sides(model: ModelConfig, *sizes: tuple[int, int]) -> None:
    """Refuses images that the decoder's downs would shrink to nothing.

    Args:
        model: Decoder stride and number of downs.
        sizes: (H, W) in pixels of every kind of image that will be read.

    Raises:
        ConfigError: if an image side is shorter than the decoder needs.
    """
    needed = model.decoder_stride * 2 ** len(model.decoder_widths)
    smallest = min(min(size) for size in sizes)
    if smallest < needed:
        raise ConfigError(
            f"model.decoder_widths has {len(model.decoder_widths)} levels, which need images of "
            f"{needed} pixels, but some have {smallest}; set fewer levels or use larger windows"
        )


def require_common_statistics(config: MethodConfig, shard: Shard) -> None:
    """Refuses BatchNorm statistics of less than the batch: of a worker's part or of a piece.

    The released detector's are those of all workers, but of one piece.

    Raises:
        ConfigError: if statistics would differ from those of the batch.
    """
    train = config.train
    if config.model.detector == "released" and train.accumulate > 1:
        raise ConfigError(
            f"model.detector=released normalizes over the whole batch, which train.accumulate="
            f"{train.accumulate} cuts into pieces; set train.accumulate=1"
        )
    if train.freeze_batchnorm or (shard.ranks == 1 and train.accumulate == 1):
        return
    how = f"{shard.ranks} workers" if shard.ranks > 1 else f"train.accumulate={train.accumulate}"
    raise ConfigError(
        f"train.freeze_batchnorm=false with {how} gives each part of a batch its own BatchNorm "
        "statistics; set train.freeze_batchnorm=true, or use one worker and train.accumulate=1"
    )
