"""Networks with 8-bit numbers see nearly the same, and run so only where that is known."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import tiny_model
from numpy.typing import NDArray

from wpcrack.errors import ConfigError
from wpcrack.inference import graph as graphs
from wpcrack.inference import openvino_engine
from wpcrack.inference.eight_bits import (
    attach_ranges,
    measure_ranges,
    quantize,
    ranges_of,
    round_rows,
)
from wpcrack.inference.graph import RANGES, deliver_graph, load_graph, write_ranges
from wpcrack.inference.machine import is_installed, openvino, openvino_core
from wpcrack.inference.openvino_engine import OpenVinoPredictor, fused_graph
from wpcrack.inference.rewrite import rewrite_graph
from wpcrack.model import SHIPPED
from wpcrack.synthetic.pavement import draw_alternating

if not is_installed("openvino"):
    pytest.skip("needs openvino", allow_module_level=True)

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def drawn() -> NDArray[np.uint8]:
    return np.stack([window.image for window in draw_alternating(5, 16, 192)])


def exact_convolutions(graph: Any) -> Counter[str]:
    """How many convolutions of a compiled graph take 8-bit numbers, and how many others."""
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino_core().compile_model(graph, "CPU", settings).get_runtime_model()
    notes = [operation.get_rt_info() for operation in compiled.get_ops()]
    return Counter(
        "8" if note["runtimePrecision"].astype(str) in ("i8", "u8") else "exact"
        for note in notes
        if note["layerType"].astype(str) == "Convolution"
    )


def test_the_shipped_model_marks_the_same_with_8_bits(drawn: NDArray[np.uint8]) -> None:
    exact = OpenVinoPredictor(load_graph(None), 1, "f32")(drawn)
    rounded = OpenVinoPredictor(load_graph(None), 1, "int8")(drawn)
    assert 1e-5 < np.abs(rounded - exact).mean() < 0.001
    first, second = exact > 0.5, rounded > 0.5
    assert first.mean() > 0.01, "nothing to compare"
    assert (first & second).sum() > 0.95 * (first | second).sum()


@pytest.mark.parametrize("count", [1, 3])
def test_large_convolutions_run_with_8_bits(count: int) -> None:
    whole = load_graph(None)
    ranges = ranges_of(whole)
    graph = fused_graph(whole, count)
    graph.reshape([1, 96, 128, 3])
    before = exact_convolutions(rewrite_graph(graph))
    assert before["8"] == 0
    rounded = rewrite_graph(quantize(graph, ranges))
    after = exact_convolutions(rounded)
    assert after["8"] == 27 * count
    assert after.total() == before.total()
    kinds = [Counter(each.get_type_name() for each in g.get_ops()) for g in (graph, rounded)]
    assert kinds[0]["FakeQuantize"] == 0 < kinds[1]["FakeQuantize"]


def test_ranges_hold_what_the_networks_compute(drawn: NDArray[np.uint8]) -> None:
    measured = measure_ranges(load_graph(None), drawn[:2])
    assert measured.keys() == ranges_of(load_graph(None)).keys()
    fewer = measure_ranges(load_graph(None), drawn[:1])
    assert all(measured[name][0] <= fewer[name][0] for name in fewer)
    assert all(measured[name][1] >= fewer[name][1] for name in fewer)
    assert any(measured[name] != fewer[name] for name in fewer)
    assert all(low < high and high > 0 for low, high in measured.values())


def convolution_of_ones(channels: int, values: NDArray[np.float32]) -> tuple[Any, Any]:
    """A graph that copies its input by a 1x1 convolution, and the ranges of its input."""
    op = openvino().opset13
    pixels = op.parameter([1, channels, 2, len(values)], np.float32, name="pixels")
    shifted = op.add(pixels, op.constant(np.float32(0)), name="shifted")
    kernel = np.eye(channels, dtype=np.float32)[:, :, None, None]
    copied = op.convolution(shifted, op.constant(kernel), [1, 1], [0, 0], [0, 0], [1, 1])
    graph = openvino().Model([copied], [pixels], "copy")
    name = f"{shifted.get_friendly_name()}:0"
    return graph, {name: (float(values.min()), float(values.max()))}


@pytest.mark.parametrize(
    "values", [np.linspace(0, 6, 64), np.linspace(-3, 5, 64), np.linspace(-9, -1, 64)]
)
def test_values_are_rounded_to_a_256th_of_their_range_and_zero_stays(
    values: NDArray[np.float64],
) -> None:
    given = np.r_[0, values[1:]].astype(np.float32)
    graph, ranges = convolution_of_ones(16, values.astype(np.float32))
    pixels = np.broadcast_to(given, (1, 16, 2, len(given))).copy()
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    rounded = openvino_core().compile_model(quantize(graph, ranges), "CPU", settings)(pixels)[0]
    step = (max(abs(values.min()), values.max()) * (1 if values.min() >= 0 else 2)) / 255
    assert np.abs(rounded - pixels).max() <= 0.51 * step + 1e-6
    assert not rounded[..., 0].any(), "zero is a level"
    assert (rounded != pixels).mean() > 0.5, "it is rounded"


def test_what_has_no_range_or_few_channels_stays_exact() -> None:
    graph, ranges = convolution_of_ones(16, np.float32([-1, 1]))
    assert "FakeQuantize" not in {each.get_type_name() for each in quantize(graph, {}).get_ops()}
    assert "FakeQuantize" not in {each.get_type_name() for each in graph.get_ops()}
    few, ranges = convolution_of_ones(15, np.float32([-1, 1]))
    assert "FakeQuantize" not in {each.get_type_name() for each in quantize(few, ranges).get_ops()}
    assert measure_ranges(few, []) == {}


def test_rows_keep_their_sum() -> None:
    values = RNG.normal(scale=20, size=(12, 7, 3, 3)).astype(np.float32)
    whole = round_rows(values)
    assert np.array_equal(whole, np.rint(whole))
    assert np.abs(whole - values).max() < 1
    sums = (whole - values).reshape(12, -1).sum(1)
    assert np.abs(sums).max() <= 0.501
    one_by_one = (np.rint(values) - values).reshape(12, -1).sum(1)
    assert np.abs(one_by_one).max() > 1


@pytest.mark.parametrize(
    ("native", "ranges", "expected"),
    [(True, True, "bf16"), (False, True, "int8"), (False, False, "f32")],
)
def test_8_bits_are_for_processors_without_bfloat16(
    native: bool, ranges: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_engine, "native_bfloat16", lambda: native)
    graph = load_graph(None)
    if not ranges:
        attach_ranges(graph, {})
    assert OpenVinoPredictor(graph, 1).precision == expected


def test_8_bits_without_ranges_are_refused() -> None:
    graph = load_graph(None)
    attach_ranges(graph, {})
    with pytest.raises(ConfigError, match=r"int8, and the graph .* without the ranges.*; set f32"):
        OpenVinoPredictor(graph, 1, "int8")


@pytest.mark.parametrize("damage", ["text", "digit", "another", "none"])
def test_ranges_that_do_not_fit_are_not_used(
    damage: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(graphs, "native_bfloat16", lambda: True)  # else they are measured
    model = shutil.copytree(SHIPPED, tmp_path / "model")
    place = model / "openvino" / RANGES
    record = json.loads(place.read_text(encoding="utf-8"))
    name = next(iter(record["ranges"]))
    if damage == "text":
        place.write_text("{", encoding="utf-8")
    elif damage == "none":
        place.unlink()
    else:
        if damage == "digit":
            record["ranges"][name] = [0.0, 60.0]
        else:
            record["graph"]["model.xml"] = "0" * 64
        place.write_text(json.dumps(record), encoding="utf-8")
    assert ranges_of(load_graph(model)) == {}
    assert ("its networks run with single precision" in caplog.text) == (damage != "none")


def test_the_ranges_that_ship_are_those_that_are_measured(tmp_path: Path) -> None:
    place = shutil.copytree(SHIPPED / "openvino", tmp_path / "openvino")
    (place / RANGES).unlink()
    write_ranges(place)
    shipped, anew = (
        json.loads((folder / RANGES).read_text(encoding="utf-8"))
        for folder in (SHIPPED / "openvino", place)
    )
    assert anew["graph"] == shipped["graph"]
    assert anew["ranges"].keys() == shipped["ranges"].keys()
    for name, ends in shipped["ranges"].items():
        assert np.allclose(anew["ranges"][name], ends, rtol=0.01, atol=0.01), name


@pytest.fixture
def quick_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "RANGE_WINDOWS", 2)
    monkeypatch.setattr(graphs, "CHECK_WINDOWS", 1)


@pytest.mark.usefixtures("quick_ranges")
def test_a_model_that_8_bits_would_change_has_no_ranges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_model(tmp_path / "model")
    deliver_graph(folder)
    assert ranges_of(load_graph(folder))
    monkeypatch.setattr(graphs, "LARGEST_SHIFT", 0.0)
    deliver_graph(folder)
    assert ranges_of(load_graph(folder)) == {}


@pytest.mark.usefixtures("quick_ranges")
@pytest.mark.parametrize("native", [True, False])
def test_a_graph_that_is_kept_gets_ranges_where_they_are_used(
    native: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "native_bfloat16", lambda: native)
    folder = tiny_model(tmp_path / "model")
    assert bool(ranges_of(load_graph(folder))) is not native
    (kept,) = folder.glob("openvino-*")
    assert (kept / RANGES).exists() is not native
    monkeypatch.setattr(graphs, "native_bfloat16", lambda: False)
    assert ranges_of(load_graph(folder))
    monkeypatch.setattr(graphs, "measure_ranges", None)
    assert ranges_of(load_graph(folder)), "they are measured once"


@pytest.mark.usefixtures("quick_ranges")
def test_ranges_that_cannot_be_written_are_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_model(tmp_path / "model")
    load_graph(folder)
    for kept in folder.glob("openvino-*"):
        (kept / RANGES).unlink(missing_ok=True)
    monkeypatch.setattr(graphs, "native_bfloat16", lambda: False)

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Read-only file system", str(path))

    monkeypatch.setattr(graphs, "whole_file", refuse)
    assert ranges_of(load_graph(folder)) == {}
