"""The authors' released checkpoint, turned into a model of this package.

Its tensors are called net_main.* (classifier), net_recon.* (reconstructor) and seg_decoder.*
(detector); each prefix becomes the place of the same tensor here. The classifier's own U-Net and
its feature reductions, which the method never uses, are dropped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from wpcrack.config import ModelConfig, PaamConfig
from wpcrack.errors import CheckpointError, first_few
from wpcrack.model import ModelInfo
from wpcrack.networks import Networks
from wpcrack.networks.paper.resnet38d import MEAN, RESNET38D, STD
from wpcrack.tensor_files import LISTED, compare, read_tensors

RELEASED = ModelConfig(
    encoder=RESNET38D,
    pretrained="none",
    decoder="released",
    detector="released",
    cam_channels=256,
    pool_fraction=1.0,
    cam_norm="max",
    recon_channels=448,
    decoder_widths=(64, 128, 256, 512, 512, 512, 512, 512),
    decoder_stride=1,
    paam=PaamConfig(kind="released", kernel_length=3, reduction=16, residual=False, low_levels=()),
)
"""How the released networks are built."""

REDUCERS = ("dr1", "dr2", "fc_recon")
UNUSED = tuple(f"net_main.{name}." for name in (*REDUCERS, "genUnet"))


def import_released(path: Path, config: ModelConfig = RELEASED) -> tuple[Networks, ModelInfo]:
    """Read a released checkpoint.

    Args:
        path: Lightning checkpoint, or state dict of the same names.
        config: Networks of that file.

    Returns:
        The networks in eval mode, and their description.

    Raises:
        CheckpointError: Unreadable, or tensors are missing, unknown, misshapen or not finite.
    """
    found = {k: v for k, v in read_tensors(path).items() if not k.startswith(UNUSED)}
    with torch.device("meta"):  # shapes only: nothing is allocated or drawn at random
        networks = Networks(config)
    wanted = {released_name(k): v for k, v in networks.state_dict().items() if not is_ours(k)}
    check_released(found, wanted, path)
    tensors = {
        k: own_tensor(k) if is_ours(k) else found[released_name(k)].to(v.dtype).contiguous()
        for k, v in networks.state_dict().items()
    }
    networks.load_state_dict(tensors, assign=True)
    trained: dict[str, str] = {"imported": path.name, "sha256": sha256(path)}
    return networks.eval().requires_grad_(False), ModelInfo(model=config, trained=trained)


def released_name(name: str) -> str:
    """Return the name of one of our tensors in the released checkpoint.

    >>> released_name("reconstructor.decoder.down1.model.0.weight")
    'net_recon.genUnet.down1.model.0.weight'
    >>> released_name("classifier.head.fc8.weight")
    'net_main.fc8.weight'
    """
    network, _, rest = name.partition(".")
    if network == "detector":
        return f"seg_decoder.{rest}"
    part, _, inner = rest.partition(".")
    place = {"encoder": inner, "head": inner, "decoder": f"genUnet.{inner}"}.get(part, rest)
    return f"{'net_main' if network == 'classifier' else 'net_recon'}.{place}"


def is_ours(name: str) -> bool:
    """Tell whether only we have a tensor: the input's normalization."""
    return name.endswith((".encoder.mean", ".encoder.std"))


def own_tensor(name: str) -> Tensor:
    """Make ImageNet's mean or deviation."""
    return torch.tensor(MEAN if name.endswith("mean") else STD).view(1, 3, 1, 1)


def check_released(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> None:
    """Name missing, unknown, misshapen and not finite tensors.

    Raises:
        CheckpointError: There are any.
    """
    odd, both = compare(found, wanted), found.keys() & wanted.keys()
    problems = {
        "missing": odd.missing,
        "unknown": odd.unknown,
        "misshapen": odd.misshapen,
        "not finite": [k for k in both if not bool(torch.isfinite(found[k]).all())],
    }
    texts = [f"{kind}: {first_few(names, LISTED)}" for kind, names in problems.items() if names]
    if texts:
        raise CheckpointError(
            f"{path} does not hold the released networks ({'; '.join(texts)}); "
            "give the authors' checkpoint or a state dict of the same names"
        )


def sha256(path: Path) -> str:
    """Hash a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
