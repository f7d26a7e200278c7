"""The paper's networks: names and sizes as published, blocks as their formulas say."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from factories import tiny_released
from torch import Tensor, nn

from wpcrack.config import ModelConfig, PaamConfig
from wpcrack.errors import CheckpointError, ConfigError
from wpcrack.networks import Networks
from wpcrack.networks.norm import FrozenBatchNorm, GlobalBatchNorm
from wpcrack.networks.paper.decoder import ReleasedDecoder
from wpcrack.networks.paper.networks import ReleasedDirections, SqueezeExcite
from wpcrack.networks.paper.resnet38d import HEAD_BLOCKS, Bottleneck, Residual, Shape
from wpcrack.released_weights import RELEASED, UNUSED, is_ours, released_name

TINY = tiny_released()
IMAGE = (1, 3, 64, 96)

SHAPES = {  # a few tensors of every part, as the authors' checkpoint names them
    "net_main.conv1a.weight": (64, 3, 3, 3),
    "net_main.b2.conv_branch1.weight": (128, 64, 1, 1),
    "net_main.b4_5.conv_branch2b1.weight": (512, 512, 3, 3),
    "net_recon.b5.conv_branch2b1.weight": (1024, 512, 3, 3),
    "net_recon.b5_1.conv_branch2a.weight": (512, 1024, 3, 3),
    "net_main.b6.bn_branch2b2.running_var": (1024,),
    "net_main.b7.conv_branch2b2.weight": (4096, 2048, 1, 1),
    "net_main.bn7.num_batches_tracked": (),
    "net_main.fc8.weight": (256, 4096, 1, 1),
    "net_recon.fc9.weight": (2, 256, 1, 1),
    "net_recon.fc_recon.weight": (256, 4096, 1, 1),
    "net_recon.dr1.weight": (64, 512, 1, 1),
    "net_recon.dr2.weight": (128, 1024, 1, 1),
    "net_recon.genUnet.down1.model.0.weight": (64, 448, 4, 4),
    "net_recon.genUnet.down8.model.0.weight": (512, 512, 4, 4),
    "net_recon.genUnet.up2.model.0.weight": (1024, 512, 4, 4),
    "net_recon.genUnet.up7.model.0.weight": (256, 64, 4, 4),
    "net_recon.genUnet.final.1.bias": (3,),
    "seg_decoder.path_fusion.direction_conv.conv_45.weight": (1, 2048, 2, 2),
    "seg_decoder.path_fusion.reduce_conv.bias": (1024,),
    "seg_decoder.path_fusion.bn.running_mean": (1024,),
    "seg_decoder.se_block.fc.2.weight": (1024, 64),
    "seg_decoder.conv3.weight": (128, 256, 3, 3),
    "seg_decoder.deconv3.weight": (32, 1, 2, 2),
    "seg_decoder.bn5.bias": (32,),
}


def released_shapes() -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        nets = Networks(RELEASED)
    state = nets.state_dict().items()
    return {released_name(k): tuple(v.shape) for k, v in state if not is_ours(k)}


def tiny(**changes: object) -> Networks:
    torch.manual_seed(0)
    return Networks(TINY.model_copy(update=changes))


def shaken(module: nn.Module, seed: int = 0) -> nn.Module:
    """BatchNorm statistics as after training, so that they matter."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if name.endswith(("running_var", "bn_branch2a.weight", "bn.weight")):
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
        elif name.endswith(("running_mean", "bias")):
            tensor.copy_(0.1 * torch.randn(tensor.shape, generator=generator))
    return module


# -- names, shapes, sizes ----------------------------------------------------------------------


def test_fewer_channels_than_the_three_maps_need_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"recon_channels is 6, and .* set 7 or more"):
        Networks(TINY.model_copy(update={"recon_channels": 6}))


def test_tensors_have_the_names_and_shapes_of_the_released_checkpoint() -> None:
    found = released_shapes()
    assert {k: found[k] for k in SHAPES} == SHAPES


def test_the_networks_are_as_large_as_published() -> None:
    with torch.device("meta"):
        nets = Networks(RELEASED)

    def millions(module: nn.Module) -> float:
        buffers = {"running_mean", "running_var", "num_batches_tracked", "mean", "std"}
        state = module.state_dict().items()
        return sum(v.numel() for k, v in state if k.split(".")[-1] not in buffers) / 1e6

    unet = millions(nets.reconstructor.decoder)
    assert unet == pytest.approx(54.9, abs=0.05)
    assert millions(nets.reconstructor) - unet == pytest.approx(107.3, abs=0.05)
    assert millions(nets.detector) == pytest.approx(8.5, abs=0.05)


@pytest.mark.data
def test_every_used_tensor_of_the_released_checkpoint_has_its_place(shared_data: Path) -> None:
    text = (shared_data / "released_reference" / "state_dict_shapes.json").read_text()
    listed = {k: tuple(v) for k, v in json.loads(text).items() if not k.startswith(UNUSED)}
    assert released_shapes() == listed


@pytest.mark.parametrize("side", ["classifier", "reconstructor"])
def test_the_trunk_is_what_the_detector_reads_and_no_more(side: str) -> None:
    nets = tiny().eval()
    names = {k.split(".")[0] for k in nets.classifier.encoder.state_dict()}
    assert not names & set(HEAD_BLOCKS)
    features = getattr(nets, side).encoder(torch.rand(IMAGE))
    assert [tuple(features.at(s).shape[-2:]) for s in (2, 4, 8)] == [(32, 48), (16, 24), (8, 12)]
    assert features.deep.shape == (1, 64, 8, 12)


def test_inference_never_runs_the_heads_or_the_decoder() -> None:
    nets = tiny().eval()

    def refuse(*_: object) -> None:
        raise AssertionError("not needed for inference")

    for module in (nets.classifier.head, nets.reconstructor.head, nets.reconstructor.decoder):
        module.register_forward_pre_hook(refuse)
    assert nets(torch.rand(IMAGE)).shape == (1, 1, 64, 96)


# -- blocks against their formulas -------------------------------------------------------------


def norm(module: nn.Module, x: Tensor) -> Tensor:
    mean, var = module.running_mean, module.running_var
    return F.batch_norm(x, mean, var, module.weight, module.bias, False, 0, 1e-5)


def test_frozen_batchnorm_is_batchnorm_in_eval_mode_and_never_learns() -> None:
    module = shaken(FrozenBatchNorm(5)).train()
    x = torch.randn(2, 5, 4, 3)
    torch.testing.assert_close(module(x), norm(module, x))
    assert list(module.parameters()) == []
    assert module(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("shape", [Shape(6, 8, 2), Shape(6, 4), Shape(4, 8, 1, (1, 2))])
def test_a_residual_block_follows_its_formula(shape: Shape) -> None:
    block = shaken(Residual(4, shape))
    x = torch.randn(2, 4, 10, 8)
    tap = torch.relu(norm(block.bn_branch2a, x))
    d1, d2 = shape.dilation
    z = F.conv2d(tap, block.conv_branch2a.weight, None, shape.stride, d1, d1)
    z = torch.relu(norm(block.bn_branch2b1, z))
    z = F.conv2d(z, block.conv_branch2b1.weight, None, 1, d2, d2)
    same = shape.out == 4 and shape.stride == 1
    short = x if same else F.conv2d(tap, block.conv_branch1.weight, None, shape.stride)
    out, found = block(x)
    torch.testing.assert_close(out, short + z)
    torch.testing.assert_close(found, tap)


def test_a_bottleneck_drops_channels_in_training_only() -> None:
    block = shaken(Bottleneck(4, 8, 4))
    x = torch.randn(2, 4, 10, 8)
    tap = torch.relu(norm(block.bn_branch2a, x))
    z = torch.relu(norm(block.bn_branch2b1, F.conv2d(tap, block.conv_branch2a.weight)))
    z = F.conv2d(z, block.conv_branch2b1.weight, None, 1, 4, 4)
    z = F.conv2d(torch.relu(norm(block.bn_branch2b2, z)), block.conv_branch2b2.weight)
    wanted = z + F.conv2d(tap, block.conv_branch1.weight)
    torch.testing.assert_close(block.eval()(x)[0], wanted)
    assert not torch.allclose(block.train()(x)[0], wanted)


@pytest.mark.parametrize("size", [(5, 7), (8, 8)])
def test_released_directions_sum_absolute_responses_of_any_size(size: tuple[int, int]) -> None:
    module = ReleasedDirections(3)
    x = torch.randn(2, 3, *size)
    h, w = size
    padded = F.pad(x, (1, 1, 1, 1))
    edge_row = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    edge_col = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    wanted = edge_row.sum(1, keepdim=True).abs() + edge_col.sum(1, keepdim=True).abs()
    for conv in (module.conv_45, module.conv_135):
        wanted = wanted + F.conv2d(padded[:, :, : h + 1, : w + 1], conv.weight).abs()
    torch.testing.assert_close(module(x), wanted)


def test_squeeze_and_excitation_scales_whole_channels() -> None:
    module = SqueezeExcite(8, 4)
    x = torch.rand(2, 8, 5, 6) + 0.5
    scale = module(x) / x
    torch.testing.assert_close(scale, scale[..., :1, :1].expand_as(scale))
    assert ((scale > 0) & (scale < 1)).all()


# -- decoder, detector, reconstructor ----------------------------------------------------------


@pytest.mark.parametrize("size", [(32, 32), (40, 72)])
def test_the_decoder_paints_any_size(size: tuple[int, int]) -> None:
    decoder = ReleasedDecoder(6, (8, 8, 8, 8, 8)).eval()
    assert decoder(torch.randn(1, 6, *size), size).shape == (1, 3, *size)


def test_dropout_stands_at_the_wide_levels_of_the_decoder() -> None:
    decoder = ReleasedDecoder(448, RELEASED.decoder_widths)
    dropping = {
        name.split(".")[0] for name, m in decoder.named_modules() if isinstance(m, nn.Dropout)
    }
    assert dropping == {"down4", "down5", "down6", "down7", "down8", "up1", "up2", "up3", "up4"}
    normed = {
        name.split(".")[0]
        for name, m in decoder.named_modules()
        if isinstance(m, nn.InstanceNorm2d)
    }
    assert {"down1", "down8"} & normed == set()
    assert len(normed) == 6 + 7


def test_z_holds_one_seventh_conv4_two_sevenths_conv5_and_the_rest_f() -> None:
    nets = tiny().eval()
    encoding = nets.reconstructor.encode(torch.rand(IMAGE))
    assert encoding.feature.shape == (1, 14, 64, 96)
    assert [m.out_channels for m in nets.reconstructor.reducers()] == [2, 4, 8]


def test_erased_features_cannot_reach_the_painting() -> None:
    nets = tiny().eval()
    keep = torch.zeros(1, 1, 64, 96)
    a, b = torch.randn(2, 1, 14, 64, 96)
    decode = nets.reconstructor.decode
    torch.testing.assert_close(decode(a, keep), decode(b, keep))


@pytest.mark.parametrize(
    "paam",
    [
        PaamConfig(kind="released", low_levels=()),
        PaamConfig(kind="directional", low_levels=(2, 4), kernel_length=3),
        PaamConfig(kind="directional", low_levels=(8,), channel=False),
    ],
)
def test_the_released_detector_learns_from_every_tensor(paam: PaamConfig) -> None:
    nets = tiny(paam=paam)
    nets(torch.rand(2, 3, 64, 64)).square().mean().backward()
    unused = [k for k, p in nets.detector.named_parameters() if p.grad is None]
    assert unused == []


def test_our_detector_and_decoder_work_on_the_papers_backbone() -> None:
    nets = tiny(detector="default", decoder="default", detector_channels=8, paam=PaamConfig())
    assert nets.eval()(torch.rand(IMAGE)).shape == (1, 1, 64, 96)
    encoding = nets.reconstructor.encode(torch.rand(IMAGE))
    assert nets.reconstructor.decode(encoding.feature).shape == IMAGE


def test_the_papers_detector_and_decoder_work_on_a_timm_encoder() -> None:
    nets = tiny(encoder="test_efficientnet").eval()
    assert nets(torch.rand(IMAGE)).shape == (1, 1, 64, 96)


# -- batch statistics --------------------------------------------------------------------------


def test_global_batchnorm_on_one_rank_is_batchnorm() -> None:
    ours, torchs = GlobalBatchNorm(4), nn.BatchNorm2d(4)
    for _ in range(3):
        x = torch.randn(4, 4, 5, 6)
        torch.testing.assert_close(ours(x), torchs(x))
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in torchs.state_dict().items()
    }
    x = torch.randn(1, 4, 5, 6)
    torch.testing.assert_close(ours.eval()(x), torchs.eval()(x))


def part_of_a_batch(rank: int, rendezvous: str, out: str) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2
    )
    module = GlobalBatchNorm(3)
    mine = (slice(0, 1), slice(1, 4))[rank]
    x = batch_of_four()[mine].requires_grad_()
    y = module(x)
    (y * weights_of_four()[mine]).sum().backward()
    result = {"y": y.detach(), "x": x.grad, **module.state_dict()}
    torch.save(result, f"{out}/{rank}.pt")
    torch.distributed.destroy_process_group()


def batch_of_four() -> Tensor:
    return torch.randn(4, 3, 5, 6, generator=torch.Generator().manual_seed(0)) * 3 + 1


def weights_of_four() -> Tensor:
    return torch.randn(4, 3, 5, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.slow
def test_two_ranks_normalize_like_one_with_the_whole_batch(tmp_path: Path) -> None:
    args = (str(tmp_path / "meet"), str(tmp_path))
    torch.multiprocessing.start_processes(part_of_a_batch, args, nprocs=2, start_method="fork")
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    module, x = nn.BatchNorm2d(3), batch_of_four().requires_grad_()
    y = module(x)
    (y * weights_of_four()).sum().backward()
    torch.testing.assert_close(torch.cat([p["y"] for p in parts]), y.detach())
    torch.testing.assert_close(torch.cat([p["x"] for p in parts]), x.grad, rtol=1e-4, atol=1e-5)
    for part in parts:
        torch.testing.assert_close(part["running_var"], module.running_var)
        assert torch.equal(part["running_mean"], parts[0]["running_mean"])


# -- pretrained backbone -----------------------------------------------------------------------


def backbone_state(nets: Networks) -> dict[str, Tensor]:
    """conv1a to bn7 of the classifier under their own names, and a classification layer."""
    parts = {**nets.classifier.encoder.state_dict(), **nets.classifier.head.state_dict()}
    kept = {k: v for k, v in parts.items() if k not in ("mean", "std") and k[:2] != "fc"}
    return {**kept, "linear1000.weight": torch.zeros(3)}


def with_file(path: Path) -> ModelConfig:
    return TINY.model_copy(update={"pretrained": "file", "weights_file": path})


def test_backbone_weights_of_a_file_fill_both_networks(tmp_path: Path) -> None:
    source = tiny()
    shaken(source.classifier, 7)
    torch.save(backbone_state(source), tmp_path / "backbone.pth")
    nets = Networks(with_file(tmp_path / "backbone.pth"))
    for side in (nets.classifier, nets.reconstructor):
        for name, tensor in source.classifier.state_dict().items():
            if ".fc" not in name:
                assert torch.equal(side.state_dict()[name], tensor), name


def test_a_backbone_file_without_a_tensor_or_of_another_width_is_refused(tmp_path: Path) -> None:
    path, state = tmp_path / "backbone.pth", backbone_state(tiny())
    torch.save({k: v for k, v in state.items() if k != "b4_3.conv_branch2a.weight"}, path)
    with pytest.raises(CheckpointError, match=r"no tensor b4_3\.conv_branch2a\.weight"):
        Networks(with_file(path))
    torch.save({**state, "b6.conv_branch1.weight": torch.zeros(2, 2)}, path)
    with pytest.raises(CheckpointError, match=r"b6\.conv_branch1\.weight is \(2, 2\) but must be"):
        Networks(with_file(path))


@pytest.mark.parametrize("pretrained", ["package", "timm", "file"])
def test_weights_that_do_not_exist_for_resnet38d_are_refused(pretrained: str) -> None:
    with pytest.raises(ConfigError, match="has no weights of resnet38d"):
        tiny(pretrained=pretrained)


def test_a_weight_file_is_for_resnet38d_only() -> None:
    with pytest.raises(ConfigError, match="pretrained=file is for resnet38d"):
        tiny(encoder="test_efficientnet", pretrained="file")


# -- reference ---------------------------------------------------------------------------------


def synthetic_tensor(name: str, shape: tuple[int, ...]) -> Tensor:
    """The reference's weights (shared/data/README.md): drawn from the tensor's own name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    if name.endswith("running_var") or (len(shape) == 1 and name.endswith(".weight")):
        values = 0.5 + rng.random(shape, np.float32)
    elif len(shape) == 1:  # running_mean and bias
        values = 0.1 * rng.standard_normal(shape, np.float32)
    else:
        scale = np.float32(np.sqrt(0.25 / np.prod(shape[1:])))
        values = rng.standard_normal(shape, np.float32) * scale
    return torch.from_numpy(np.asarray(values, np.float32))


@pytest.mark.data
@pytest.mark.slow
def test_synthetic_weights_give_the_outputs_of_the_released_networks(shared_data: Path) -> None:
    folder = shared_data / "released_reference"
    with torch.device("meta"):
        nets = Networks(RELEASED)
    tensors = {
        k: synthetic_tensor(released_name(k), tuple(v.shape))
        for k, v in nets.state_dict().items()
        if not is_ours(k)
    }
    zero_one = {
        f"{side}.encoder.{what}": torch.full((1, 3, 1, 1), value)
        for side in ("classifier", "reconstructor")
        for what, value in (("mean", 0.0), ("std", 1.0))
    }
    nets.load_state_dict({**tensors, **zero_one}, assign=True)
    nets.eval()
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 3, 256, 256), np.float32))
    with torch.inference_mode():
        seen = nets.classifier(x)
        encoding = nets.reconstructor.encode(x)
        features = encoding.activation.features
        z = nets.reconstructor.fuse(features, nets.reconstructor.head.semantics(features))
        probability = torch.sigmoid(nets.detector(seen.features, features, (256, 256)))
        found = {
            "classifier_cam": seen.cam,
            "classifier_logits": seen.logits,
            "classifier_trunk_b5": seen.features.deep[:, ::64, ::4, ::4],
            "reconstructor_cam": encoding.activation.cam,
            "reconstructor_logits": encoding.activation.logits,
            "reconstructor_feature448": z[:, ::28, ::4, ::4],
            "reconstructor_image": nets.reconstructor.decode(encoding.feature)[:, :, ::8, ::8],
            "detector_probability": probability[:, :, ::4, ::4],
        }
    wanted = np.load(folder / "outputs.npz")
    assert set(found) == set(wanted.files)
    for name in wanted.files:
        a, b = found[name].numpy(), wanted[name]
        assert a.shape == b.shape
        assert np.abs(a - b).max() <= 1e-4 * np.abs(b).max(), name
