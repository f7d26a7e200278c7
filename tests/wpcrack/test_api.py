"""The package's face: it costs nothing until it is used, and its examples run."""

from __future__ import annotations

import doctest
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from factories import loaded_by, tiny_model
from numpy.typing import NDArray

import wpcrack
from wpcrack import api
from wpcrack.errors import CheckpointError, ConfigError, DataError
from wpcrack.inference.lattice import Lattice
from wpcrack.inference.machine import is_installed
from wpcrack.synthetic import WindowConfig, draw_training_street, draw_window

HEAVY = ("torch", "ray", "rasterio", "timm", "cv2", "openvino")


@pytest.fixture(scope="module")
def image() -> NDArray[np.uint8]:
    """Drawn pavement with a crack."""
    rng, config = np.random.default_rng(0), WindowConfig(size=96)
    return draw_window(rng, config, True, draw_training_street(rng, config)).image


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder with an untrained model, named as in the examples."""
    monkeypatch.chdir(tmp_path)
    tiny_model(tmp_path / "runs" / "first" / "model", gsd_mm=2.5)
    return tmp_path / "runs" / "first"


def test_importing_the_package_or_describing_a_model_loads_nothing_heavy() -> None:
    assert loaded_by("import wpcrack; wpcrack.__version__", HEAVY) == []
    assert loaded_by("from wpcrack.model import find_model, read_info, run_name", HEAVY) == []


def test_processes_of_the_dense_crf_do_not_load_torch() -> None:
    assert loaded_by("import wpcrack.labels.dense_crf", HEAVY) == []


def test_only_what_is_listed_is_offered() -> None:
    assert set(wpcrack.__all__) <= set(dir(wpcrack))
    with pytest.raises(AttributeError, match="has no attribute 'nonesuch'"):
        _ = wpcrack.nonesuch


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("name", wpcrack.__all__)
def test_the_example_of_each_name_runs_as_written(name: str, image: NDArray[np.uint8]) -> None:
    documented = getattr(api, name, wpcrack.__getattr__)
    (example,) = doctest.DocTestFinder().find(documented, name, globs={"image": image})
    assert example.examples
    assert doctest.DocTestRunner(verbose=False).run(example).failed == 0


def test_an_image_of_any_size_gives_a_probability_of_each_pixel(
    run: Path, image: NDArray[np.uint8]
) -> None:
    model = wpcrack.load_model(str(run), engine="torch", threads=1)
    for part in (image, image[:33, :50], np.tile(image, (1, 11, 1))):
        found = wpcrack.predict(model, part, lattice=Lattice(window=96, overlap=32, blend=16))
        assert found.shape == part.shape[:2]
        assert found.dtype == np.float32
        assert 0 <= found.min() < found.max() <= 1
    whole = model.predictor(image[None])[0]
    np.testing.assert_allclose(wpcrack.predict(model, image), whole, atol=0.51 / 255)


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_threads_may_share_a_model(
    run: Path, image: NDArray[np.uint8], engine: Literal["torch", "openvino"]
) -> None:
    """Each got the probability of another one's image."""
    if not is_installed(engine):
        pytest.skip(f"needs the package {engine}")
    model = wpcrack.load_model(run, engine=engine, threads=1)
    images = [image, image[::-1], image[:, ::-1], image[:64]]
    expected = [wpcrack.predict(model, one) for one in images]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(partial(wpcrack.predict, model), images * 10))
    for probability, wanted in zip(found, expected * 10, strict=True):
        np.testing.assert_array_equal(probability, wanted)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 3)),
        np.zeros((0, 8, 3), np.uint8),
        np.zeros((8, 8, 3), np.uint8).tolist(),
        np.ma.masked_array(np.zeros((8, 8, 3), np.uint8), True),  # would be looked at nevertheless
        "photo.jpg",
    ],
)
def test_what_is_no_image_is_refused(run: Path, wrong: Any) -> None:
    model = wpcrack.load_model(run, engine="torch")
    with pytest.raises(DataError, match=r"give .*\(H, W, 3\) uint8, RGB"):
        wpcrack.predict(model, wrong)


def test_a_model_that_is_not_loaded_is_refused(image: NDArray[np.uint8]) -> None:
    with pytest.raises(ConfigError, match=r"model is 'runs/first'; give what load_model returns"):
        wpcrack.predict("runs/first", image)  # type: ignore[arg-type]


@pytest.mark.parametrize("batch", [0, -1, None, "8", 1.5, True])
def test_a_batch_without_a_window_is_refused(
    run: Path, image: NDArray[np.uint8], batch: int
) -> None:
    """Nothing would be predicted, and the map would be 0."""
    model = wpcrack.load_model(run, engine="torch")
    with pytest.raises(ConfigError, match=f"batch is {batch!r}; give a number of windows"):
        wpcrack.predict(model, image, batch=batch)


def test_an_unknown_engine_and_no_thread_are_refused(run: Path) -> None:
    for unknown in ("numpy", "OpenVINO"):  # the one is installed, the other no package
        with pytest.raises(ConfigError, match=f"engine is '{unknown}'; give auto, torch, openvino"):
            wpcrack.load_model(run, engine=unknown)  # type: ignore[arg-type]
    for engine in ("torch", "openvino"):
        for threads in (0, 1.5, "2", True, [1], 10**6):
            with pytest.raises(ConfigError, match=r"^threads is .*; give a number of CPU cores"):
                wpcrack.load_model(run, engine=engine, threads=threads)  # type: ignore[arg-type]


def test_a_path_and_a_lattice_of_another_kind_are_refused(
    run: Path, image: NDArray[np.uint8]
) -> None:
    for path in (5, ["runs"], b"runs", True):
        with pytest.raises(ConfigError, match=r"^path is .*; give that of a run folder"):
            wpcrack.load_model(path)  # type: ignore[arg-type]
    model = wpcrack.load_model(run, engine="torch")
    for lattice in ({"window": 64}, {}, 5):
        with pytest.raises(ConfigError, match=r"^lattice is .*Lattice$"):
            wpcrack.predict(model, image, lattice=lattice)  # type: ignore[arg-type]


def test_a_run_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no model/model\.safetensors"):
        wpcrack.load_model(tmp_path)
