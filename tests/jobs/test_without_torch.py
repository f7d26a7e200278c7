"""An installation without torch, timm and torchvision maps with the graph beside the weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from factories import street, tiny_model, write_tile
from PIL import Image

from wpcrack.inference.graph import deliver_graph
from wpcrack.inference.machine import is_installed

pytestmark = pytest.mark.skipif(not is_installed("openvino"), reason="needs the package openvino")

WITHOUT_TORCH = """
import sys
for name in ("torch", "torchvision", "timm"):
    sys.modules[name] = None  # as if it were not installed
"""

MAP = """
import factories
from jobs.infer import run as infer
infer.compute = factories.in_process
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with its graph, one without, a photograph, and the same as a tile."""
    folder = tmp_path_factory.mktemp("place")
    deliver_graph(tiny_model(folder / "run" / "model"))
    tiny_model(folder / "bare" / "model")
    image, _ = street(160)
    Image.fromarray(image).save(folder / "a.png")
    write_tile(folder / "tiles" / "a.tif", image)
    return folder


def wpcrack(
    place: Path, arguments: list[str], before: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a command in a process that cannot import torch."""
    call = f"from jobs.cli import app\nsys.argv = {['wpcrack', *arguments]!r}\napp()"
    root, tests = Path(__file__).parents[2], Path(__file__).parents[1]
    return subprocess.run(
        [sys.executable, "-c", f"{WITHOUT_TORCH}{before}\n{call}"],
        capture_output=True,
        text=True,
        cwd=place,
        env=os.environ | {"PYTHONPATH": f"{root}:{tests}"},
        timeout=900,
    )


def test_photographs_are_predicted(place: Path) -> None:
    run = wpcrack(place, ["predict", "--model", "run", "--out", "found", "a.png"])
    assert run.returncode == 0, run.stderr
    assert (place / "found" / "a_mask.png").is_file()


def test_windows_are_cut_and_ordered(place: Path) -> None:
    given = ["--images", ".", "--model", "run", "--window", "32", "--count", "5", "--out", "w"]
    run = wpcrack(place, ["windows", *given])
    assert run.returncode == 0, run.stderr
    assert "the model expects" in run.stdout


def test_labels_of_windows_judge_a_model(place: Path) -> None:
    for label in ("crack", "road"):
        (place / "set" / label).mkdir(parents=True)
        (place / "set" / label / f"{label}.png").write_bytes((place / "a.png").read_bytes())
    run = wpcrack(place, ["evaluate", "--model", "run", "--windows", "set", "--json", "f.json"])
    assert run.returncode == 0, run.stderr
    values = json.loads((place / "f.json").read_text("utf-8"))
    assert (values["cracks"], values["roads"]) == (1, 1)
    assert values["found"] == values["marked"]  # one picture under both labels


def test_tiles_are_mapped_and_assembled(place: Path) -> None:
    settings = ["tiles=tiles", "model=run", "out=out.gpkg", "probability=keep"]
    run = wpcrack(place, ["infer", *settings, "--json", "report.json"], MAP)
    assert run.returncode == 0, run.stderr
    assert json.loads((place / "report.json").read_text("utf-8"))["surveyed_mpx"] > 0
    again = ["assemble", "out.work", "out=again.gpkg", "threshold=0.4"]
    run = wpcrack(place, again, "import jobs.review.run, jobs.label.run, jobs.compare.run")
    assert run.returncode == 0, run.stderr
    assert (place / "again.gpkg").is_file()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["infer", "tiles=tiles", "model=bare", "out=o.gpkg", "--plan"], "no graph that fits"),
        (["predict", "--model", "bare", "--out", "none", "a.png"], "no graph that fits"),
        (["predict", "--model", "run", "--engine", "torch", "--out", "n", "a.png"], "needs the pa"),
        (["train", "data.root=set", "run_dir=new"], "needs the package torch"),
    ],
)
def test_what_needs_torch_is_refused_in_one_sentence(
    place: Path, arguments: list[str], sentence: str
) -> None:
    run = wpcrack(place, arguments)
    assert run.returncode == 1
    errors = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert sentence in errors[0]
    assert "Traceback" not in run.stderr
    assert not (place / "o.gpkg").exists()
