"""The engines agree: OpenVINO, the folded networks and torch compute the same probability."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from factories import TINY_MODEL, tiny_model
from numpy.typing import NDArray

from wpcrack.config import ModelConfig, PaamConfig
from wpcrack.errors import CheckpointError, ConfigError
from wpcrack.inference import convert as conversion
from wpcrack.inference import engine
from wpcrack.inference import graph as graphs
from wpcrack.inference.convert import convert, fold
from wpcrack.inference.engine import load_predictor
from wpcrack.inference.graph import (
    CONSTANTS,
    GRAPH,
    RANGES,
    RECORD,
    deliver_graph,
    load_graph,
)
from wpcrack.inference.machine import is_installed, native_bfloat16
from wpcrack.inference.openvino_engine import OpenVinoPredictor
from wpcrack.inference.torch_engine import TorchPredictor
from wpcrack.model import ModelInfo, save_model
from wpcrack.networks import Networks
from wpcrack.synthetic import WindowConfig, draw_training_street, draw_window

Windows = NDArray[np.uint8]

SIDE = 128
STEPS = 25

FILES = {GRAPH, CONSTANTS, RECORD}

needs_openvino = pytest.mark.skipif(
    not is_installed("openvino"), reason="needs the package openvino"
)
needs_bfloat16 = pytest.mark.skipif(
    not native_bfloat16(), reason="needs a CPU with bfloat16 instructions"
)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def drawn() -> tuple[Windows, NDArray[np.bool_]]:
    config, rng = WindowConfig(), np.random.default_rng(0)
    windows = [draw_window(rng, config, True, draw_training_street(rng, config)) for _ in range(8)]
    return np.stack([w.image for w in windows]), np.stack([w.mask for w in windows])


@pytest.fixture(scope="module")
def networks(drawn: tuple[Windows, NDArray[np.bool_]]) -> Networks:
    """Networks of real shape whose detector has learned these windows: probabilities spread."""
    torch.manual_seed(0)
    networks = Networks(ModelConfig()).eval()
    image = torch.from_numpy(drawn[0]).permute(0, 3, 1, 2).float() / 255
    truth = torch.from_numpy(drawn[1])[:, None].float()
    with torch.no_grad():
        features = networks.classifier.encoder(image), networks.reconstructor.encoder(image)
    optimizer = torch.optim.Adam(networks.detector.parameters(), 0.01)
    for _ in range(STEPS):
        logits = networks.detector(*features, image.shape[-2:])
        loss = F.binary_cross_entropy_with_logits(logits, truth, pos_weight=torch.tensor(10.0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return networks.requires_grad_(False)


@pytest.fixture(scope="module")
def reference(networks: Networks, drawn: tuple[Windows, NDArray[np.bool_]]) -> NDArray[np.float32]:
    probability = TorchPredictor(networks, torch.device("cpu"), low_precision=False)(drawn[0])
    low, high = (probability < 0.1).mean(), (probability > 0.9).mean()
    assert low > 0.3, "the probabilities do not spread"
    assert high > 0.01, "the probabilities do not spread"
    return probability


@pytest.fixture(scope="module")
def graph(networks: Networks) -> Any:
    return convert(networks)


@pytest.fixture
def quick_convert(graph: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of what surrounds the conversion, which takes seconds."""
    monkeypatch.setattr(conversion, "convert", lambda *_: graph.clone())


@pytest.fixture
def run(tmp_path: Path, networks: Networks) -> Path:
    save_model(tmp_path / "run" / "model", networks, ModelInfo(model=networks.config))
    return tmp_path / "run"


@pytest.fixture
def tiny_run(tmp_path: Path) -> Path:
    """A run whose graph is made in a second or two."""
    tiny_model(tmp_path / "run" / "model")
    return tmp_path / "run"


@pytest.fixture(scope="module")
def tiny_converted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Such a run with its graph beside the model, for tests to copy, and this graph."""
    run = tmp_path_factory.mktemp("tiny") / "run"
    tiny_model(run / "model")
    return run, load_graph(run)


@pytest.mark.parametrize(
    "paam",
    [
        PaamConfig(),
        PaamConfig(spatial=False),
        PaamConfig(channel=False, residual=False, kernel_length=5),
        PaamConfig(low_levels=(4,)),
        PaamConfig(low_levels=(2, 4, 8), kernel_length=3),
    ],
    ids=["default", "no-spatial", "spatial-only", "stride4", "stride8"],
)
def test_folding_keeps_the_logits_and_the_original(paam: PaamConfig) -> None:
    torch.manual_seed(1)
    networks = Networks(ModelConfig(pretrained="none", paam=paam)).eval().requires_grad_(False)
    for parameter in networks.detector.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))  # no norm or bias stays at 1 or 0
    before = {name: tensor.clone() for name, tensor in networks.state_dict().items()}
    image = torch.rand(2, 3, 64, 96)
    wanted, found = networks(image), fold(networks)(image)
    assert found.shape == wanted.shape == (2, 1, 64, 96)
    assert wanted.std() > 1e-3
    assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max()
    after = networks.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)


@needs_openvino
def test_openvino_f32_equals_torch(
    graph: Any, drawn: tuple[Windows, NDArray[np.bool_]], reference: NDArray[np.float32]
) -> None:
    found = OpenVinoPredictor(graph.clone(), 1, "f32")(drawn[0])
    assert found.dtype == np.float32
    assert found.shape == reference.shape
    assert np.abs(found - reference).max() <= 1e-3


@needs_openvino
@needs_bfloat16
def test_openvino_bf16_is_close_to_torch(
    graph: Any, drawn: tuple[Windows, NDArray[np.bool_]], reference: NDArray[np.float32]
) -> None:
    predictor = OpenVinoPredictor(graph.clone(), 1)
    assert predictor.precision == "bf16"
    assert np.abs(predictor(drawn[0]) - reference).mean() <= 2e-3


@needs_openvino
def test_a_window_alone_equals_the_window_in_a_batch(
    graph: Any, drawn: tuple[Windows, NDArray[np.bool_]]
) -> None:
    windows = drawn[0]
    predictor = OpenVinoPredictor(graph.clone(), 1)
    batch = predictor(windows)
    for index in (0, 3, 7):
        assert np.array_equal(predictor(windows[index : index + 1])[0], batch[index])


@needs_openvino
def test_any_size_multiple_of_32_in_any_order(networks: Networks, graph: Any) -> None:
    predictor = OpenVinoPredictor(graph.clone(), 1, "f32")
    wanted = TorchPredictor(networks, torch.device("cpu"), low_precision=False)
    rng = np.random.default_rng(0)
    sizes = [(32, 32), (96, 32), (64, 160), (32, 96), (128, 128)]
    for height, width in [*sizes, sizes[0]]:  # more sizes than stay compiled
        windows = rng.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
        windows.flags.writeable = False  # as Ray hands them out
        assert np.abs(predictor(windows) - wanted(windows)).max() <= 1e-3


@needs_openvino
def test_the_graph_is_kept_beside_the_model_and_used_again(
    tiny_run: Path, drawn: tuple[Windows, NDArray[np.bool_]], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_predictor(tiny_run, "openvino", 1)(drawn[0][:1])
    (kept,) = (tiny_run / "model").glob("*openvino-*")
    assert {file.name for file in kept.iterdir()} - {RANGES} == FILES
    monkeypatch.setattr(conversion, "convert", None)
    again = load_predictor(tiny_run, "openvino", 1)(drawn[0][:1])
    assert np.abs(again - first).max() < 1e-6  # a graph that is read is folded in another order


@needs_openvino
@pytest.mark.usefixtures("quick_convert")
def test_other_weights_get_another_graph(run: Path) -> None:
    load_graph(run)
    weights = run / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    load_graph(run)
    assert len(list((run / "model").glob("openvino-*"))) == 2


def damage_text(place: Path) -> None:
    (place / "model.xml").write_text("<net", encoding="utf-8")


def flip_a_bit(place: Path) -> None:
    content = bytearray((place / "model.bin").read_bytes())
    content[len(content) // 2] ^= 64
    (place / "model.bin").write_bytes(content)


def forget_the_record(place: Path) -> None:
    (place / "hashes.json").unlink()


def plant_another(place: Path) -> None:
    """A graph that is whole, of other weights."""
    other = place.parents[2] / "other" / "model"
    networks = Networks(ModelConfig(**TINY_MODEL))
    save_model(other, networks, ModelInfo(model=networks.config))
    shutil.rmtree(place)
    shutil.copytree(deliver_graph(other), place)


DAMAGES = [damage_text, flip_a_bit, forget_the_record, plant_another]


@needs_openvino
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_graph_that_does_not_fit_its_hashes_is_made_again(
    damage: Callable[[Path], None],
    tiny_converted: tuple[Path, Any],
    tmp_path: Path,
    drawn: tuple[Windows, NDArray[np.bool_]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    whole, graph = tiny_converted
    run = shutil.copytree(whole, tmp_path / "run")
    first = OpenVinoPredictor(graph.clone(), 1)(drawn[0][:1])
    (kept,) = (run / "model").glob("openvino-*")
    damage(kept)
    monkeypatch.setattr(conversion, "convert", lambda *_: graph.clone())
    assert np.array_equal(load_predictor(run, "openvino", 1)(drawn[0][:1]), first)
    assert "is not used" in caplog.text
    assert {file.name for file in kept.iterdir()} - {RANGES} == FILES
    assert (kept / "model.xml").stat().st_size > 1000


@needs_openvino
def test_a_delivered_graph_is_used_if_it_fits_and_refused_without_torch_if_not(
    run: Path, graph: Any, drawn: tuple[Windows, NDArray[np.bool_]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, "convert", lambda *_: graph.clone())
    place = deliver_graph(run / "model")
    assert sum(file.stat().st_size for file in place.iterdir()) < 8e6
    monkeypatch.setattr(conversion, "convert", None)
    single = OpenVinoPredictor(graph.clone(), 1, "f32")(drawn[0])
    for installed in (True, False):
        monkeypatch.setattr(graphs, "is_installed", lambda _, there=installed: there)
        found = OpenVinoPredictor(load_graph(run), 1, "f32")(drawn[0])
        assert np.abs(found - single).max() < 0.02, "half precision is all that differs"
    flip_a_bit(place)
    with pytest.raises(CheckpointError, match=r"no graph that fits.*torch.*is not installed"):
        load_graph(run)


@needs_openvino
@pytest.mark.usefixtures("quick_convert")
def test_a_folder_that_cannot_be_written_to_is_no_obstacle(
    run: Path, drawn: tuple[Windows, NDArray[np.bool_]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *_: object) -> None:
        raise PermissionError(13, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)  # root may write to any folder, so chmod won't do
    assert load_predictor(run, "openvino", 1)(drawn[0][:1]).shape == (1, SIDE, SIDE)
    assert not list((run / "model").glob("*openvino-*"))


@needs_openvino
def test_two_workers_that_convert_at_once_leave_one_graph(
    run: Path, graph: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_worker_is_faster(*_: object) -> Any:
        monkeypatch.setattr(conversion, "convert", lambda *_: graph.clone())
        load_graph(run)
        return graph.clone()

    monkeypatch.setattr(conversion, "convert", other_worker_is_faster)
    assert load_graph(run).inputs
    assert len(list((run / "model").glob("*openvino-*"))) == 1


@needs_openvino
def test_a_model_that_a_training_replaces_while_it_is_converted_gets_a_graph_of_its_own(
    tiny_converted: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, graph = tiny_converted
    run, made = shutil.copytree(whole, tmp_path / "run"), list[int]()
    for kept in (run / "model").glob("openvino-*"):
        shutil.rmtree(kept)

    def meanwhile(*_: object) -> Any:
        made.append(len(made))
        if made == [0]:
            tiny_model(run / "model", seed=1)
        return graph.clone()

    monkeypatch.setattr(conversion, "convert", meanwhile)
    for _ in range(3):
        load_graph(run)
    assert made == [0, 1]  # the second is of the new weights, and used again


@needs_openvino
def test_openvino_reports_to_nobody(tiny_run: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    code = (
        "import sys, pathlib, numpy as np\n"
        "from wpcrack.inference.engine import load_predictor\n"
        "assert 'openvino' not in sys.modules, 'imported before it is used'\n"
        f"load_predictor(pathlib.Path({str(tiny_run)!r}), 'openvino', 1)"
        "(np.zeros((1, 32, 32, 3), np.uint8))\n"
        "assert 'openvino' in sys.modules\n"
        "names = [n for n in sys.modules if n.startswith('openvino_telemetry')]\n"
        "assert not names, names\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "CI"} | {"HOME": str(home)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=900)
    assert not list(home.glob("intel*"))


def test_auto_is_openvino_on_a_cpu_and_torch_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "has_device_file", lambda: True)
    for gpu, installed, wanted in [
        (False, True, "openvino"),
        (False, False, "torch"),
        (True, True, "torch"),
    ]:
        monkeypatch.setattr(torch.cuda, "is_available", lambda gpu=gpu: gpu)
        monkeypatch.setattr(torch.cuda, "device_count", lambda gpu=gpu: int(gpu))
        monkeypatch.setattr(
            engine, "is_installed", lambda name, there=installed: there or name == "torch"
        )
        assert engine.choose("auto") == wanted
        monkeypatch.setattr(torch.cuda, "is_available", lambda: pytest.fail("it was told"))
        assert engine.choose("auto", gpu=gpu) == wanted


def test_openvino_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "is_installed", lambda _: False)
    with pytest.raises(ConfigError, match=r"pip install openvino, or set engine=torch"):
        load_predictor(Path("run"), "openvino")


def test_torch_gives_the_reference(
    run: Path, drawn: tuple[Windows, NDArray[np.bool_]], reference: NDArray[np.float32]
) -> None:
    predictor = load_predictor(run, "torch", 1)
    assert isinstance(predictor, TorchPredictor)
    assert np.abs(predictor(drawn[0]) - reference).mean() <= 2e-3


@pytest.mark.parametrize("name", ["torch", pytest.param("openvino", marks=needs_openvino)])
def test_a_missing_model_is_named_by_every_engine(name: engine.Engine, run: Path) -> None:
    shutil.rmtree(run / "model")
    with pytest.raises(CheckpointError, match=r"holds no model/model\.safetensors"):
        load_predictor(run, name)


DROPPED = """
import signal
import numpy as np
from wpcrack.inference.graph import load_graph
from wpcrack.inference.openvino_engine import OpenVinoPredictor

signal.signal(signal.SIGTERM, lambda *_: print("handled"))
first, second = (OpenVinoPredictor(load_graph(None), threads=1, scales=1) for _ in range(2))
for predictor in (first, second):
    predictor(np.zeros((1, 32, 32, 3), np.uint8))
del predictor, first
del second
signal.raise_signal(signal.SIGTERM)
"""


@needs_openvino
def test_a_signal_is_handled_after_predictors_have_ended_in_any_order() -> None:
    ended = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", DROPPED],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, "handled\n"), ended.stderr
