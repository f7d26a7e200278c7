"""README and the manual say what the code does: commands, settings, files, columns, examples."""

from __future__ import annotations

import argparse
import functools
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.main
import yaml
from typer.testing import CliRunner

from jobs.cli import app

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
MANUAL = sorted(DOCS.glob("*.md"))
PAGES = [README, *MANUAL, *(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md"))]
PACKAGES = ("wpcrack", "geo", "jobs")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OUR_FILE = r"`((?:wpcrack|geo|jobs|configs|benchmarks|tests|docs)/[\w./-]+)`"
FILES = {".csv", ".gpkg", ".html", ".json", ".md", ".png", ".yaml"}
JOBS = {"train", "tune", "pretrain", "adapt", "infer", "assemble", "windows", "review"}
"""Commands that take key=value."""


def text(page: Path) -> str:
    return page.read_text("utf-8")


def blocks(page: Path, language: str) -> list[str]:
    """Blocks of code in a language; in none are commands and what they print."""
    found = FENCED.findall(text(page))
    return [block for name, block in found if name == language]


def code(page: Path) -> Iterator[str]:
    """Lines of commands and output, without a prompt, continued ones in one piece."""
    for block in blocks(page, ""):
        yield from (line.removeprefix("$ ") for line in block.replace("\\\n", "").splitlines())


def spans(page: Path) -> list[str]:
    """What stands between backticks in running text."""
    return re.findall(r"`([^`]+)`", FENCED.sub("", text(page)))


def commands(page: Path) -> list[list[str]]:
    """Words after `wpcrack` of every command; JOB and the like stand for any name."""
    lines = [
        line.split()[1:] for line in (*code(page), *spans(page)) if line.startswith("wpcrack ")
    ]
    return [words for words in lines if words and not words[0].isupper()]


def marked(pattern: str) -> list[Any]:
    """Matches on all pages, each once per page."""
    return [
        pytest.param(page, found, id=f"{page.name}-{found}")
        for page in PAGES
        for found in sorted(set(re.findall(pattern, text(page))))
    ]


@functools.cache
def settings(job: str) -> frozenset[str]:
    """Dotted keys of a job and their sections, as `wpcrack config` prints them."""
    if job in ("windows", "review"):  # the imagery of infer
        return settings("infer")
    printed = CliRunner().invoke(app, ["config", job]).output
    given = re.sub(r"^(\s*)# (\w+):  \(required\)$", r"\1\2: null", printed, flags=re.MULTILINE)
    shown = re.sub(r"^#((?:  )*\w+:(?: .*)?)$", r"\1", given, flags=re.MULTILINE)
    keys = frozenset(flat(yaml.safe_load(shown)))
    return keys | settings("train") if job == "tune" else keys


def flat(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")


def assert_command_exists(words: list[str]) -> None:
    group = typer.main.get_group(app)
    name, *rest = words
    assert name in group.commands, name
    known = {o for p in group.commands[name].params for o in (*p.opts, *p.secondary_opts)}
    assert {word for word in rest if word.startswith("--")} - {"--help"} <= known, name
    job = rest[0] if name == "submit" and rest else name
    keys = {word.partition("=")[0] for word in rest if re.match(r"[\w.]+=", word)}
    assert not keys or job in JOBS, f"{name} takes no {keys}"
    assert not keys or keys <= settings(job), name


def test_every_command_of_the_readme_exists_with_its_options() -> None:
    assert len(commands(README)) >= 5
    for words in commands(README):
        assert_command_exists(words)


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.name)
def test_every_command_of_the_manual_exists_with_its_options(page: Path) -> None:
    for words in commands(page):
        assert_command_exists(words)


def test_every_command_stands_in_the_manual() -> None:
    named = {words[0] for page in MANUAL for words in commands(page)}
    assert set(typer.main.get_group(app).commands) <= named


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_setting_of_a_page_exists(page: Path) -> None:
    known = frozenset().union(*map(settings, ("tune", "pretrain", "adapt", "infer", "assemble")))
    sections = {key.partition(".")[0] for key in known if "." in key}
    for span in spans(page):
        if span.startswith("wpcrack "):
            continue  # tested as a command
        keys = set(re.findall(r"(?<![\w.-])([a-z][\w.]*)=", span)) - {"key"}
        if re.fullmatch(r"[a-z_]+(\.\w+)+", span) and Path(span).suffix not in FILES:
            keys |= {span} if span.partition(".")[0] in sections else set()
        assert keys <= known, span


@pytest.mark.parametrize(("page", "target"), marked(r"\]\((?!http)([^)#]+)\)"))
def test_every_linked_file_exists(page: Path, target: str) -> None:
    assert (page.parent / target).is_file()


@pytest.mark.parametrize(("page", "path"), marked(OUR_FILE))
def test_every_named_file_exists(page: Path, path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize(("page", "module"), marked(r"\bpython -m (benchmarks[\w.]+)"))
def test_every_named_benchmark_can_be_run(page: Path, module: str) -> None:
    path = ROOT / module.replace(".", "/")
    assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()


BENCHMARKS = sorted(
    {s for page in PAGES for s in spans(page) if re.match(r"python -m benchmarks[\w.]* .", s)}
)


@pytest.mark.parametrize("line", BENCHMARKS)
def test_every_command_of_a_benchmark_is_understood(
    line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Understood(Exception):
        pass

    def once_understood(parse: Any) -> Any:
        def stop(*args: Any, **kwargs: Any) -> None:
            parse(*args, **kwargs)
            raise Understood

        return stop

    for name in ("parse_args", "parse_intermixed_args"):
        parse = getattr(argparse.ArgumentParser, name)
        monkeypatch.setattr(argparse.ArgumentParser, name, once_understood(parse))
    module, *words = shlex.split(line)[2:]
    monkeypatch.setattr(sys, "argv", [module, *words])
    for name in (module, f"{module}.__main__"):  # it runs anew
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(Understood):
        runpy.run_module(module, run_name="__main__")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_of_a_page_exists(page: Path) -> None:
    (phony,) = re.findall(r"^\.PHONY: (.*)$", text(ROOT / "Makefile"), flags=re.MULTILINE)
    lines = (*code(page), *spans(page))
    assert {found[1] for line in lines if (found := re.match(r"make ([a-z-]+)", line))} <= set(
        phony.split()
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_training_of_a_page_names_its_run_folder(page: Path) -> None:
    printed = re.findall(r"next: wpcrack (.*)", text(page))
    for words in (*commands(page), *map(str.split, printed)):
        if any(word.startswith("data.root=") for word in words):
            assert any(word.startswith("run_dir=") for word in words), words


def test_the_readme_is_two_pages() -> None:
    assert len(text(README).splitlines()) <= 200


def test_the_tree_of_the_readme_is_that_of_the_packages() -> None:
    (tree,) = re.findall(r"^## Where things are\n\n```\n(.*?)^```", text(README), re.M | re.S)
    shown, package = set(), ""
    for line in tree.splitlines():
        names = re.findall(r"[\w.]+(?:/|\.py|\.yaml)|Dockerfile", line)
        shown |= {package + name if line.startswith(" ") else name for name in names}
        if not line.startswith(" "):
            package = names[0]
    assert not [name for name in shown if not (ROOT / name).exists()]
    rooms = {
        f"{path.parent.relative_to(ROOT).as_posix()}/"
        for package in PACKAGES
        for path in (ROOT / package).glob("*/__init__.py")
    }
    assert rooms <= shown


@pytest.mark.parametrize(
    ("page", "tables"), [("layers.md", "LAYERS"), ("compare.md", "CHANGE_LAYERS")]
)
def test_the_layer_tables_are_those_of_the_schema(page: str, tables: str) -> None:
    from geo.layers import schema

    begin = "<!-- layers: generated by geo.layers.schema.readme_table() -->"
    written = text(DOCS / page).split(begin)[1].split("<!-- end of layers -->")[0]
    expected = schema.readme_table(getattr(schema, tables))
    assert written.strip() == expected.strip(), "make layers writes them anew"


def test_six_questions_of_a_newcomer_are_answered_by_one_file_each() -> None:
    (table,) = re.findall(
        r"^## Where is \.\.\.\n(.*?)^#", text(DOCS / "contributing.md") + "#", re.M | re.S
    )
    answers = re.findall(r"^\| .+\? \| `([\w./]+)` \|$", table, flags=re.MULTILINE)
    assert len(answers) == 6
    assert [answer for answer in answers if not (ROOT / answer).is_file()] == []


def test_the_contents_list_every_page() -> None:
    contents = yaml.safe_load(text(ROOT / "mkdocs.yml"))["nav"]
    assert sorted(page for entry in contents for page in entry.values()) == [
        page.name for page in MANUAL
    ]


def test_pictures_are_small() -> None:
    for path in DOCS.rglob("*"):
        assert path.is_dir() or path.stat().st_size < 300_000, path.name


def test_the_citation_names_this_version() -> None:
    version = tomllib.loads(text(ROOT / "pyproject.toml"))["project"]["version"]
    assert yaml.safe_load(text(ROOT / "CITATION.cff"))["version"] == version


def test_the_examples_of_the_python_page_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for number, block in enumerate(blocks(DOCS / "python.md", "python")):
        exec(compile(block, f"docs/python.md, block {number}", "exec"), names)
    assert names["probability"].shape == names["truth"].shape
    assert names["probability"].dtype == np.float32
    assert len(names["cracks"]) >= 1
    assert (tmp_path / "cracks.gpkg").is_file()


class _Loaded(HTMLParser):
    """Addresses that a browser asks for by itself when it shows a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        loads = {"src", "srcset", "data", "poster"} | ({"href"} if tag == "link" else set())
        self.addresses += [value for name, value in attrs if name in loads and value]


def test_the_built_manual_loads_nothing_from_the_network(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    run = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    loaded = _Loaded()
    for page in tmp_path.rglob("*.html"):
        loaded.feed(text(page))
    for sheet in tmp_path.rglob("*.css"):
        loaded.addresses += re.findall(r"(?:url\(|@import)\s*['\"]?([^)'\"]+)", text(sheet))
    assert len(loaded.addresses) > len(MANUAL)
    assert not [address for address in loaded.addresses if re.match(r"(https?:)?//", address)]
