"""The page of a comparison: what changed, on a map that opens by double click."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import geopandas
import pandas as pd
import pyogrio

from geo.compare.layers import TITLE
from geo.files import write_text
from geo.layers.schema import CHANGE, CHANGE_NETWORK, CHANGE_RUN, CHANGE_SEGMENT, COMPARED
from geo.layers.style import CASING, CHANGE_COLORS, SEEN_BY_BOTH, change_legend
from geo.outputs import seal_text
from geo.page.kinds import CHANGE_FILTER, CHANGE_KINDS
from geo.page.map_page import MAX_CRACKS, NOTHING, TABLE_ROWS, bounds_of, page, records
from geo.paths import layer_names, literal


def write_change_page(package: Path, out: Path, summary: str) -> None:
    """Write the page of a finished comparison.

    Args:
        package: its GeoPackage.
        out: the page.
        summary: what stands above the legend.

    Raises:
        OutputError: the page cannot be written.
    """
    write_text(out, seal_text(page(change_data(package, summary))))


def change_data(package: Path, summary: str, max_cracks: int = MAX_CRACKS) -> dict[str, Any]:
    """Collect a comparison for the page; of many cracks those are drawn that changed most."""
    drawn, few = _most_changed(package, max_cracks)
    networks = geopandas.read_file(literal(package), layer=CHANGE_NETWORK.name)
    ground = geopandas.read_file(literal(package), layer=COMPARED.name)
    segments = NOTHING
    if CHANGE_SEGMENT.name in layer_names(package):
        found = geopandas.read_file(literal(package), layer=CHANGE_SEGMENT.name)
        order = found["change_m"].sort_values(ascending=False, kind="stable").index
        segments = records(found, CHANGE_SEGMENT, [int(k) for k in order[:TABLE_ROWS]])
    run = pyogrio.read_dataframe(literal(package), layer=CHANGE_RUN.name).iloc[0]
    areas = _changed_first(networks, "area_change", "growth_m2")
    return {
        "title": TITLE,
        "kinds": {name: asdict(kind) for name, kind in CHANGE_KINDS.items()},
        "filter": asdict(CHANGE_FILTER),
        "header": [(what, _survey(run, what)) for what in ("old", "new")],
        "summary": summary + few,
        "note": run["not_claimed"],
        "legend": {
            "casing": CASING,
            "ground": [asdict(SEEN_BY_BOTH)],
            **{
                column: [asdict(entry) for entry in change_legend(column)]
                for column in ("change", "area_change", "trend")
            },
        },
        "failures": [],
        "failed": 0,
        "bounds": bounds_of(ground),
        "image": None,
        "crops": [],
        "cracks": records(drawn, CHANGE, list(range(min(len(drawn), TABLE_ROWS)))),
        "networks": records(networks, CHANGE_NETWORK, areas[:TABLE_ROWS]),
        "segments": segments,
        "inspected": records(ground, COMPARED, []),
    }


def _most_changed(package: Path, most: int) -> tuple[geopandas.GeoDataFrame, str]:
    """Return the lines that changed most, and a sentence if these are not all."""
    lines = geopandas.read_file(literal(package), layer=CHANGE.name)
    drawn = lines.loc[_changed_first(lines, "change", "growth_m")[:most]].reset_index(drop=True)
    few = f" The {len(drawn)} largest changes are drawn." if len(drawn) < len(lines) else ""
    return drawn, few


def _changed_first(table: pd.DataFrame, column: str, growth: str) -> list[int]:
    """Return rows by what they grew, what shrank most next, then the rest by kind."""
    kinds = list(CHANGE_COLORS)
    keys = pd.DataFrame(
        {
            "still": table[growth] == 0,
            "growth": -table[growth],
            "kind": table[column].map(kinds.index),
        }
    )
    return [int(row) for row in keys.sort_values(list(keys), kind="stable").index]


def _survey(run: pd.Series, which: str) -> str:
    """Return file, day and pixel size of a survey."""
    day = run[f"{which}_date"]
    parts = [str(run[which]), "" if pd.isna(day) else str(day)[:10]]
    return ", ".join(filter(None, [*parts, f"pixels of {run[f'{which}_gsd_mm']:.3g} mm"]))
