"""The packages as a house: no file and no room imports another that imports it in turn."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("wpcrack", "geo", "jobs")

Graph = Mapping[str, set[str]]


def modules() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


def imports(tree: ast.Module, known: Mapping[str, Path]) -> Iterator[str]:
    """Our modules that are imported, inside functions too; `if TYPE_CHECKING` loads nothing."""
    skipped = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                found = inner if inner in known else node.module  # a module, or a name of one
                if found in known:
                    yield found


def graph_of(room: Callable[[str], str]) -> Graph:
    """Which room imports which; a module is its own room where `room` is the identity."""
    known = modules()
    graph: dict[str, set[str]] = {}
    for name, path in known.items():
        tree = ast.parse(path.read_text("utf-8"))
        targets = {room(target) for target in imports(tree, known)}
        graph.setdefault(room(name), set()).update(targets - {room(name)})
    return graph


def circle(graph: Graph) -> list[str]:
    """Some way from a node back to it; empty if there is none."""
    done: set[str] = set()

    def search(node: str, way: list[str]) -> list[str]:
        if node in way:
            return [*way[way.index(node) :], node]
        if node in done:
            return []
        for target in sorted(graph.get(node, ())):
            if found := search(target, [*way, node]):
                return found
        done.add(node)
        return []

    return next((found for node in sorted(graph) if (found := search(node, []))), [])


def folder(name: str) -> str:
    """Of a module; a file beside the rooms, a package's face and an entry point stand alone."""
    parts = name.split(".")
    return name if len(parts) < 3 or parts[-1] == "__main__" else ".".join(parts[:2])


@pytest.mark.parametrize("room", [str, folder], ids=["files", "folders"])
def test_nothing_imports_what_imports_it(room: Callable[[str], str]) -> None:
    graph = graph_of(room)
    assert len(graph) > 20
    assert circle(graph) == []


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}}) == []


def test_every_path_that_pyogrio_gets_is_literal() -> None:
    """Else it reads `!` and `;` of a folder or file as parts of an address."""
    taking = re.compile(r".*\.to_file|geopandas\.read_file|pyogrio\.(?!list_drivers)\w+")
    for path in modules().values():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and taking.fullmatch(ast.unparse(node.func)):
                given = [ast.unparse(value).partition("(")[0] for value in node.args]
                assert "literal" in given, f"{path}:{node.lineno}"
