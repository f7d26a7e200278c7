"""Windows -> crack probability with torch: the engine on a GPU, and the reference on a CPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from wpcrack.inference.machine import native_bfloat16
from wpcrack.inference.scales import ScaledProbability
from wpcrack.networks import Networks


class TorchPredictor:
    """A `wpcrack.inference.predict.WindowPredictor`.

    On a GPU, and on a CPU with native bfloat16 instructions, the networks run under bfloat16
    autocast; the probability is float32.
    """

    def __init__(
        self,
        networks: Networks,
        device: torch.device | None = None,
        *,
        low_precision: bool | None = None,
        scales: Sequence[float] = (1.0,),
        power: float = 2.0,
    ) -> None:
        """Move networks to their device.

        Args:
            networks: Trained networks; moved, not copied.
            device: None: the GPU if there is one, else the CPU.
            low_precision: Compute in bfloat16; None: if the device does so natively.
            scales: Sizes of a window that the networks look at.
            power: Of their fusion.
        """
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.probability = ScaledProbability(networks, scales, power).to(self.device).eval()
        self.probability.to(memory_format=torch.channels_last)
        native = self.device.type == "cuda" or native_bfloat16()
        self.low_precision = native if low_precision is None else low_precision

    @torch.inference_mode()
    def __call__(self, windows: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """Turn windows (N, H, W, 3) uint8 RGB into probability (N, H, W) float32 in [0, 1]."""
        pixels = torch.tensor(windows, device=self.device)  # copies: torch wants them writable
        image = pixels.permute(0, 3, 1, 2).float() / 255
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.low_precision):
            fused = self.probability(image)
        probability: NDArray[np.float32] = fused[:, 0].float().cpu().numpy()
        return probability
