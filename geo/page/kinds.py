"""How a page tells of what it shows: layers, classes, sentences and tables, in words."""

from __future__ import annotations

from dataclasses import dataclass, replace

from geo.layers.style import RANK_TITLES, SEVERITY_HEADING


@dataclass(frozen=True)
class Table:
    """A table beside the map: heading, and columns with their names, headings, whether text."""

    heading: str
    columns: tuple[tuple[str, str, bool], ...]


@dataclass(frozen=True)
class Kind:
    """How a page shows and tells one kind of thing; {column} in a text stands for its value.

    Attributes:
        overlay: name in the list of layers.
        heading: of its legend.
        legend: name of its legend.
        by: column of its classes; "": there is one class.
        begin, title: of the sentence that says what a thing is; parts without a value are left out.
        figures: parts of the sentence with its main figures.
        table: heading and columns (name, heading, whether text) of the table of the worst.
    """

    overlay: str
    heading: str
    legend: str
    by: str
    begin: str
    title: tuple[str, ...]
    figures: tuple[str, ...]
    table: Table | None = None


@dataclass(frozen=True)
class Filter:
    """What is filtered: name of the classes, columns of which the longer is a length, a noun."""

    label: str
    lengths: tuple[str, ...]
    noun: str


MAP_KINDS = {
    "cracks": Kind(
        overlay="cracks",
        heading=SEVERITY_HEADING,
        legend="severity",
        by="severity_d6433",
        begin="Crack, ",
        title=("{type}",),
        figures=("{length_m} long", "{width_mean_mm} wide", "severity: {severity_d6433}"),
        table=Table(
            "Cracks, worst first",
            (
                ("severity_d6433", "severity", True),
                ("crack_id", "crack", True),
                ("length_m", "length m", False),
                ("width_mean_mm", "width mm", False),
            ),
        ),
    ),
    "networks": Kind(
        overlay="networks",
        heading="Networks",
        legend="severity",
        by="severity_d6433",
        begin="Network of ",
        title=("{kind} cracking",),
        figures=("{area_m2}", "{crack_length_m} of cracks", "severity: {severity_d6433}"),
        table=Table(
            "Networks, largest first",
            (
                ("severity_d6433", "severity", True),
                ("network_id", "network", True),
                ("area_m2", "area m²", False),
                ("kind", "kind", True),
            ),
        ),
    ),
    "segments": Kind(
        overlay="road segments",
        heading="Road segments",
        legend="priority",
        by="priority",
        begin="Segment ",
        title=("{name}", "{segment_id}"),
        figures=("{cracking_pct} cracked", "{crack_length_m} of cracks", "{coverage_pct} seen"),
        table=Table(
            "Segments, worst first",
            (
                ("rank", "rank", False),
                ("segment_id", "segment", True),
                ("name", "street", True),
                ("cracking_pct", "cracked %", False),
                ("crack_length_m", "cracks m", False),
            ),
        ),
    ),
    "inspected": Kind(
        overlay="inspected",
        heading="Imagery",
        legend="status",
        by="status",
        begin="Imagery: ",
        title=("{status}",),
        figures=("{reason}",),
    ),
}
"""Of the map of a survey, whose segments are ranked by `RANKED_BY`."""

RANKED_BY = "cracking_pct"


def map_kinds(rank_by: str) -> dict[str, Kind]:
    """Return the kinds of a map: the table of segments has the figure by which they are ranked."""
    segments = MAP_KINDS["segments"]
    assert segments.table is not None
    columns = tuple(
        (rank_by, RANK_TITLES[rank_by], False) if column[0] == RANKED_BY else column
        for column in segments.table.columns
    )
    table = replace(segments.table, columns=columns)
    return MAP_KINDS | {"segments": replace(segments, table=table)}


MAP_FILTER = Filter("Severity", ("length_m",), "cracks")

CHANGE_KINDS = {
    "cracks": Kind(
        overlay="cracks",
        heading="Cracks",
        legend="change",
        by="change",
        begin="Crack: ",
        title=("{change}",),
        figures=(
            "{before_m} then",
            "{after_m} now",
            "{width_before_mm} wide then",
            "{width_after_mm} wide now",
        ),
        table=Table(
            "Cracks, most growth first",
            (
                ("change", "change", True),
                ("growth_m", "change m", False),
                ("before_m", "m then", False),
                ("after_m", "m now", False),
            ),
        ),
    ),
    "networks": Kind(
        overlay="networks",
        heading="Networks",
        legend="area_change",
        by="area_change",
        begin="Network: ",
        title=("{area_change}",),
        figures=("{before_m2} then", "{after_m2} now"),
        table=Table(
            "Networks, most growth first",
            (
                ("area_change", "change", True),
                ("growth_m2", "change m²", False),
                ("before_m2", "m² then", False),
                ("after_m2", "m² now", False),
            ),
        ),
    ),
    "segments": Kind(
        overlay="road segments",
        heading="Road segments",
        legend="trend",
        by="trend",
        begin="Segment ",
        title=("{name}", "{segment_id}"),
        figures=("{before_m} of cracks then", "{after_m} now", "{inspected_pct} seen by both"),
        table=Table(
            "Segments, most growth first",
            (
                ("change_m", "change m", False),
                ("segment_id", "segment", True),
                ("name", "street", True),
                ("change_sd_m", "± m", False),
                ("after_m", "m now", False),
            ),
        ),
    ),
    "inspected": Kind(
        overlay="seen by both",
        heading="Ground",
        legend="ground",
        by="",
        begin="Seen by both surveys",
        title=(),
        figures=(),
    ),
}
"""Of the changes between two surveys."""

CHANGE_FILTER = Filter("Change", ("before_m", "after_m"), "changes")
