"""The three networks of WP-CrackNet, and what holds them together."""

from __future__ import annotations

from torch import Tensor, nn

from wpcrack.config import ModelConfig
from wpcrack.networks.classifier import CRACK, Activation, Classifier
from wpcrack.networks.detector import Detector
from wpcrack.networks.encoder import Features
from wpcrack.networks.paper.networks import ReleasedDetector, ReleasedReconstructor
from wpcrack.networks.paper.resnet38d import RESNET38D
from wpcrack.networks.reconstructor import BaseReconstructor, Encoding, Reconstructor

__all__ = [
    "CRACK",
    "Activation",
    "Classifier",
    "Detector",
    "Encoding",
    "Features",
    "Networks",
]


class Networks(nn.Module):
    """Classifier, reconstructor and detector; calling it is the inference path."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        backbone = config.encoder == RESNET38D
        self.classifier = Classifier(config)
        self.reconstructor: BaseReconstructor = (
            ReleasedReconstructor(config) if backbone else Reconstructor(config)
        )
        kind = ReleasedDetector if config.detector == "released" else Detector
        self.detector: Detector | ReleasedDetector = kind(
            self.classifier.encoder, self.reconstructor.encoder, config
        )

    def forward(self, image: Tensor) -> Tensor:
        """Compute (B, 1, H, W) crack logits of (B, 3, H, W) in [0, 1], without CAM or label."""
        logits: Tensor = self.detector(*self.see(image), image.shape[-2:])
        return logits

    def see(self, image: Tensor) -> tuple[Features, Features]:
        """Compute what the detector gets of (B, 3, H, W): of both encoders, or of one twice."""
        seen = self.classifier.encoder(image)
        return seen, seen if self.shares_encoder else self.reconstructor.encoder(image)

    @property
    def shares_encoder(self) -> bool:
        """Whether both inputs of the detector come from one encoder."""
        return self.reconstructor.encoder is self.classifier.encoder

    def share_encoder(self) -> None:
        """Let the detector read the classifier's encoder twice: inference takes half the time."""
        self.reconstructor.encoder = self.classifier.encoder
