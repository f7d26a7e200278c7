"""A crack map in words and numbers: totals, streets, coverage, failures, what is not claimed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import geopandas
import pandas as pd
import pyogrio

from geo.errors import count_of
from geo.files import write_text
from geo.layers.classes import D6433_CLASSES, NOT_MEASURABLE, fine_enough
from geo.layers.run_rows import MapTerms, failures, survey_days
from geo.layers.schema import CRACK, INSPECTED, NETWORK, ROAD_SEGMENT
from geo.layers.style import RANK_TITLES, severity_legend
from geo.options import Rules, SeverityOptions
from geo.outputs import markdown_text, seal_text
from geo.paths import layer_names, literal
from geo.review.estimate import Accuracy
from geo.review.record import read_accuracy

NAMED_FAILURES = 20
"""Failures that the text spells out; the layer inspected and the JSON have all."""


@dataclass(frozen=True)
class Street:
    """All segments of one name (of one road, where it has none)."""

    name: str
    segments: int
    length_m: float
    coverage_pct: float
    crack_length_m: float
    density_m_per_m2: float | None
    worst_segment: str | None
    network_m2: float
    low_m: float
    medium_m: float
    high_m: float
    not_measurable_m: float
    worst_value: float | None


@dataclass(frozen=True)
class Failure:
    """Tiles that failed, or a block in which some did."""

    where: str
    reason: str


@dataclass(frozen=True)
class MapReport:
    """The figures of one GeoPackage; lengths in meters, areas in square meters.

    Attributes:
        gsd_mm, coarsest_gsd_mm: smallest and largest pixels of the imagery; None without any.
        smallest_width_mm: that is given at the smallest pixels; None where they are too coarse.
        length_by_severity: line of branches of each class, without gaps.
        length_by_type: of cracks with their gaps.
        off_road_m, off_road_network_m2: of cracks and networks on no road; None without roads.
        accuracy: what people found who judged the map; None if nobody did.
    """

    package: str
    cracks: int
    length_m: float
    gap_m: float
    networks: int
    network_m2: float
    network_line_m: float
    not_measurable_m: float
    survey_date: str | None
    model: str
    run_id: str
    length_by_severity: dict[str, float]
    length_by_type: dict[str, float]
    gsd_mm: float | None
    coarsest_gsd_mm: float | None
    smallest_width_mm: float | None
    rules: Rules
    blocks: int
    inspected_m2: float
    streets: tuple[Street, ...]
    off_road_m: float | None
    off_road_network_m2: float | None
    failures: tuple[Failure, ...]
    not_claimed: str
    accuracy: Accuracy | None = None


def summarize(package: Path) -> MapReport:
    """Collect the figures of a finished GeoPackage."""
    cracks = pyogrio.read_dataframe(literal(package), layer=CRACK.name, read_geometry=False)
    inspected = geopandas.read_file(literal(package), layer=INSPECTED.name)
    networks = pyogrio.read_dataframe(literal(package), layer=NETWORK.name, read_geometry=False)
    blocks = inspected[inspected["block_id"].notna()]
    seen_m2 = blocks[blocks["valid_pct"] > 0].geometry.area
    classes = {name: float(cracks[f"{name}_m"].sum()) for name in D6433_CLASSES}
    days = survey_days(blocks, cracks)
    unit_m = inspected.crs.axis_info[0].unit_conversion_factor if inspected.crs else 1.0
    pixels = blocks.loc[blocks["valid_pct"] > 0, "gsd_mm"]
    gsd_mm = float(pixels.min()) if len(pixels) else None
    terms, segments = MapTerms.read(package), _segments(package)
    length_m, network_m2 = float(cracks["length_m"].sum()), float(networks["area_m2"].sum())
    return MapReport(
        package=package.name,
        cracks=len(cracks),
        length_m=length_m,
        gap_m=float(cracks["gap_m"].sum()),
        networks=len(networks),
        network_m2=network_m2,
        network_line_m=float(networks["crack_length_m"].sum()),
        not_measurable_m=classes[NOT_MEASURABLE],
        survey_date=days[0] if days else None,
        model=terms.model,
        run_id=terms.run_id,
        length_by_severity={name: meters for name, meters in classes.items() if meters > 0},
        length_by_type=_length_by(cracks, "type"),
        gsd_mm=gsd_mm,
        coarsest_gsd_mm=float(pixels.max()) if len(pixels) else None,
        smallest_width_mm=_smallest_width(gsd_mm, terms.rules.severity),
        rules=terms.rules,
        blocks=len(blocks),
        inspected_m2=float(seen_m2.sum()) * unit_m**2,
        streets=_streets(segments, terms.rules.segments.rank_by),
        off_road_m=_rest(length_m, segments, "crack_length_m"),
        off_road_network_m2=_rest(network_m2, segments, "network_area_m2"),
        failures=tuple(Failure(*pair) for pair in failures(inspected)),
        not_claimed=terms.not_claimed,
        accuracy=read_accuracy(package),
    )


def write_report(package: Path, markdown: Path, as_json: Path) -> MapReport:
    """Write a package's report as text and as JSON.

    Raises:
        OutputError: a file cannot be written.
    """
    report = summarize(package)
    write_text(markdown, seal_text(render(report)))
    write_text(
        as_json, json.dumps(asdict(report), indent=2, ensure_ascii=False, default=vars) + "\n"
    )
    return report


def render(report: MapReport) -> str:
    """Write the report as Markdown."""
    lines = [f"# Crack map {markdown_text(report.package)}", "", _origin(report), ""]
    lines += [*_totals(report), ""]
    classes = {entry.key: entry.label for entry in severity_legend(report.rules.severity)}
    by_class = {classes.get(k, k): length for k, length in report.length_by_severity.items()}
    lines += ["## Cracks", "", *_lengths("severity (ASTM D6433)", by_class), ""]
    by_type = {markdown_text(name): length for name, length in report.length_by_type.items()}
    lines += [*_lengths("type", by_type), ""]
    if report.gap_m > 0:
        line_m = sum(report.length_by_severity.values())
        lines += [
            f"Meters by severity add up to the line that was seen, {line_m:.1f} m; those by type "
            f"to the cracks with their gaps, {report.length_m:.1f} m.",
            "",
        ]
    if report.accuracy is not None:
        lines += ["## Accuracy", "", *_accuracy(report.accuracy), ""]
    if report.streets:
        lines += ["## Streets", "", *_street_table(report.streets, report.rules), ""]
        lines += [
            f"{report.off_road_m:.1f} m of cracks and {report.off_road_network_m2:.2f} m² of "
            "networks lie on none of these streets.",
            "",
        ]
    lines += ["## Not inspected", "", *_failure_lines(report.failures), ""]
    lines += ["## Not claimed", "", report.not_claimed]
    lines.append(_measurable(report))
    return "\n".join(lines) + "\n"


def _origin(report: MapReport) -> str:
    """Say when, by what model and in which run a map was made, as far as it is known."""
    named = (("surveyed", report.survey_date), ("model", report.model), ("run", report.run_id))
    known = [f"{what} {markdown_text(value)}" for what, value in named if value]
    text = ", ".join(known) or "day of the survey, model and run are not known"
    return f"{text[0].upper()}{text[1:]}."


def _measurable(report: MapReport) -> str:
    """Say which widths can be measured at the pixel size of the map."""
    if report.gsd_mm is None:
        return "Nothing was seen, so nothing is measured."
    width = report.smallest_width_mm
    if width is None:
        return "At this pixel size no width is given: cracks are found, but not measured."
    return (
        f"At this pixel size, widths from {width:g} mm are given; narrower cracks are found, but "
        "not measured."
    )


def _totals(report: MapReport) -> list[str]:
    lines = [
        f"{count_of(report.cracks, 'crack')}, {report.length_m:.1f} m, on "
        f"{report.inspected_m2:.1f} m² inspected in {count_of(report.blocks, 'block')}."
        f"{_pixels(report)}",
        f"{count_of(report.networks, 'network')} (alligator or block cracking), "
        f"{report.network_m2:.2f} m² with {report.network_line_m:.1f} m of cracks in them.",
    ]
    line = sum(report.length_by_severity.values())
    if line > 0:
        share = 100 * report.not_measurable_m / line
        lines.append(
            f"{report.not_measurable_m:.1f} m of cracks ({share:.0f} %) {_why_not(report)}; "
            f"{report.gap_m:.1f} m are gaps that were linked, not seen."
        )
    return ["\n\n".join(lines)]


def _why_not(report: MapReport) -> str:
    """Say why cracks have neither width nor severity."""
    coarse, rules = report.coarsest_gsd_mm, report.rules.severity
    if report.smallest_width_mm is None:
        return "have no width and no severity: the pixels are too coarse"
    if coarse is None or fine_enough(coarse, rules):
        return "are too thin for a width and a severity"
    return "have no width and no severity: they are too thin, or the pixels too coarse"


def _accuracy(accuracy: Accuracy) -> list[str]:
    """Say what people found where they judged the map."""
    lines = [accuracy.text()]
    for title, shares in (("type", accuracy.by_type), ("severity", accuracy.by_severity)):
        if shares:
            rows = [f"| {markdown_text(name)} | {share.text()} |" for name, share in shares.items()]
            lines += ["", f"| {title} | precision |", "|---|---|", *rows]
    lines += ["", f"Estimator: {markdown_text(accuracy.estimator)}. A missed crack has no type."]
    return lines


def _pixels(report: MapReport) -> str:
    fine, coarse = report.gsd_mm, report.coarsest_gsd_mm
    if fine is None or coarse is None:
        return ""
    size = f"{fine:.3g}" if f"{fine:.3g}" == f"{coarse:.3g}" else f"{fine:.3g} to {coarse:.3g}"
    return f" Pixels of {size} mm."


def _lengths(title: str, lengths: dict[str, float]) -> list[str]:
    if not lengths:
        return [f"No crack was found: no {title}."]
    rows = [f"| {name} | {length:.1f} |" for name, length in lengths.items()]
    return [f"| {title} | m |", "|---|---|", *rows]


def _street_table(streets: tuple[Street, ...], rules: Rules) -> list[str]:
    what = RANK_TITLES[rules.segments.rank_by]
    head = (
        "| street | segments | m | seen % | cracks m | networks m² | low m | medium m | high m "
        f"| not measurable % | worst segment | its {what} |"
    )
    rows = [
        f"| {markdown_text(s.name)} | {s.segments} | {s.length_m:.0f} | {s.coverage_pct:.0f} "
        f"| {s.crack_length_m:.1f} | {s.network_m2:.2f} | {s.low_m:.1f} | {s.medium_m:.1f} "
        f"| {s.high_m:.1f} | {_share(s)} "
        f"| {markdown_text(s.worst_segment or '-')} | {_number(s.worst_value)} |"
        for s in streets
    ]
    return [head, "|---" * 12 + "|", *rows]


def _share(street: Street) -> str:
    """Return the percentage of the line whose width cannot be measured."""
    line = street.low_m + street.medium_m + street.high_m + street.not_measurable_m
    return f"{100 * street.not_measurable_m / line:.0f}" if line > 0 else "-"


def _failure_lines(failures: tuple[Failure, ...]) -> list[str]:
    if not failures:
        return ["Nothing failed."]
    lines = [
        f"- {markdown_text(f.where)}: {markdown_text(f.reason)}" for f in failures[:NAMED_FAILURES]
    ]
    rest = len(failures) - NAMED_FAILURES
    return [*lines, f"- and {rest} more (layer inspected)"] if rest > 0 else lines


def ground_m2(segments: pd.DataFrame) -> pd.Series:
    """Return the ground of each segment, seen or not: length by width where nothing was seen.

    Streets that meet or overlap share it, so it is not everywhere length by width.
    """
    ground = segments["surveyed_area_m2"] / (segments["coverage_pct"] / 100)
    return ground.fillna(segments["length_m"] * segments["width_m"])


def street_of(segments: pd.DataFrame) -> pd.Series:
    """Return the street of each segment: its name, or the id of its road where it has none."""
    return segments["name"].fillna("road " + segments["road_id"])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _length_by(cracks: pd.DataFrame, column: str) -> dict[str, float]:
    sums = cracks.groupby(column)["length_m"].sum().sort_values(ascending=False)
    return {str(name): float(length) for name, length in sums.items()}


def _smallest_width(gsd_mm: float | None, options: SeverityOptions) -> float | None:
    if gsd_mm is None or not fine_enough(gsd_mm, options):
        return None
    return round(options.measurable_px * gsd_mm, 6)


def _segments(package: Path) -> pd.DataFrame | None:
    if ROAD_SEGMENT.name not in layer_names(package):
        return None
    return pyogrio.read_dataframe(literal(package), layer=ROAD_SEGMENT.name, read_geometry=False)


def _rest(total: float, segments: pd.DataFrame | None, column: str) -> float | None:
    """Return what of a total lies on no segment; sums may differ in their last digits."""
    return None if segments is None else max(0.0, total - float(segments[column].sum()))


def _streets(segments: pd.DataFrame | None, rank_by: str) -> tuple[Street, ...]:
    """Return the streets, each by its worst segment, as the pages of the PDF."""
    if segments is None:
        return ()
    by_rank = segments.sort_values(["rank", "segment_id"], na_position="last")
    streets = by_rank.groupby(street_of(by_rank), sort=False)
    return tuple(_street(str(name), group, rank_by) for name, group in streets)


def _street(name: str, group: pd.DataFrame, rank_by: str) -> Street:
    surveyed = float(group["surveyed_area_m2"].sum())
    length = float(group["crack_length_m"].sum())
    total = float(ground_m2(group).sum())
    ranked = group.dropna(subset=["rank"]).sort_values("rank").head(1)
    return Street(
        name=name,
        segments=len(group),
        length_m=float(group["length_m"].sum()),
        coverage_pct=100.0 * surveyed / total if total > 0 else 0.0,
        crack_length_m=length,
        density_m_per_m2=length / surveyed if surveyed > 0 else None,
        worst_segment=None if ranked.empty else str(ranked["segment_id"].iloc[0]),
        worst_value=None if ranked.empty else float(ranked[rank_by].iloc[0]),
        network_m2=float(group["network_area_m2"].sum()),
        **{f"{name}_m": float(group[f"{name}_m"].sum()) for name in D6433_CLASSES},
    )
