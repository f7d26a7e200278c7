"""The figures of a comparison, for programs and as a page of Markdown."""

from __future__ import annotations

from typing import Any

import numpy as np

from geo.compare.areas import AreaChanges
from geo.compare.changes import Comparison
from geo.compare.layers import NOT_CLAIMED
from geo.compare.maps import SurveyMap, names_of
from geo.compare.segments import SegmentChanges
from geo.layers.schema import CHANGE_SEGMENT
from geo.layers.words import CLASS_WORDS
from geo.outputs import markdown_text

MM = 1000.0
NAMED_SEGMENTS = 10
"""Segments in the report; the layer has all."""


def figures(
    maps: tuple[SurveyMap, SurveyMap], result: Comparison, sums: SegmentChanges | None
) -> dict[str, Any]:
    """Return the figures of `--json`; lengths in meters, areas in square meters."""
    lines, found = result.lines, result.registration
    own = found.source == "own"
    shift = np.hypot(*found.shift_m[own].T)
    names = names_of(maps[0].path, maps[1].path)
    seen = lines.kind != "not_inspected"
    return {
        "old": _survey(maps[0], names[0]),
        "new": _survey(maps[1], names[1]),
        "inspected_by_both_m2": float(result.both.area),
        "registration": {
            "neighborhoods": {
                name: int((found.source == name).sum()) for name in ("own", "neighbors", "none")
            },
            "shift_median_m": float(np.median(shift)) if len(shift) else None,
            "shift_max_m": float(shift.max()) if len(shift) else None,
            "rotation_max_deg": (
                float(np.degrees(np.abs(found.rotation_rad[own]).max())) if len(shift) else None
            ),
            "sd_median_m": float(np.median(found.sd_m[own])) if len(shift) else None,
            "residual_m": found.residual_m if len(shift) else None,
        },
        "tolerance_m": result.tolerance_m,
        "meters": {kind: lines.meters(kind) for kind in CLASS_WORDS["change"]},
        "before_m": float(lines.before_m[seen].sum()),
        "after_m": float(lines.after_m[seen].sum()),
        "growth_m": float(lines.growth_m.sum()),
        "growth_sd_m": float(np.sqrt((lines.sd_m[lines.growth_m != 0] ** 2).sum())),
        "networks": {kind: _areas(result.areas, kind) for kind in CLASS_WORDS["area_change"]},
        "segments": _segments(maps[1], sums),
    }


def _survey(one: SurveyMap, name: str) -> dict[str, Any]:
    return {
        "map": name,
        "run_id": one.run_id,
        "survey_date": one.survey_date or None,
        "cracks": len(one.survey),
        "networks": len(one.survey.networks),
        "gsd_mm": one.survey.gsd_m * MM,
        "moved_from_crs": one.moved_from or None,
    }


def _areas(areas: AreaChanges, kind: str) -> dict[str, float]:
    own = areas.kind == kind
    return {
        "count": int(own.sum()),
        "before_m2": float(areas.before_m2[own].sum()),
        "after_m2": float(areas.after_m2[own].sum()),
    }


def _segments(new: SurveyMap, sums: SegmentChanges | None) -> list[dict[str, Any]]:
    """Return road segments, those with most growth first."""
    if sums is None or new.segments is None:
        return []
    change = sums.after_m - sums.before_m
    order = np.argsort(-change, kind="stable")
    return [
        {
            "segment_id": str(new.segments.ids[index]),
            "name": new.segments.names[index],
            "inspected_pct": float(sums.both_pct[index]),
            "before_m": float(sums.before_m[index]),
            "after_m": float(sums.after_m[index]),
            "change_m": float(change[index]),
            "change_sd_m": float(sums.sd_m[index]),
        }
        for index in order.tolist()
    ]


def summary(values: dict[str, Any], m2: str = "m2") -> str:
    """Return a few lines, for the terminal; a page and a report may have another `m2`, as m²."""
    meters = values["meters"]
    words = CLASS_WORDS["change"]
    parts = [f"{words[kind]} {length:.1f} m" for kind, length in meters.items() if length]
    return "\n".join(
        [
            f"{values['old']['cracks']} cracks then, {values['new']['cracks']} now; "
            f"{values['before_m']:.1f} m and {values['after_m']:.1f} m "
            f"on {values['inspected_by_both_m2']:.0f} {m2} that both surveys saw",
            *_registration_lines(values["registration"]),
            *(["; ".join(parts)] if parts else []),  # no survey found a crack here
            f"length gained less length lost: {values['growth_m']:+z.1f} m "
            f"(standard deviation {values['growth_sd_m']:.1f} m)",
        ]
    )


def _registration_lines(found: dict[str, Any]) -> list[str]:
    cells = found["neighborhoods"]
    if found["shift_median_m"] is None:
        return [
            "WARNING: too few cracks agree to register the surveys; they were compared as they lie"
        ]
    return [
        f"old survey moved by {found['shift_median_m'] * MM:.0f} mm (median; at most "
        f"{found['shift_max_m'] * MM:.0f} mm and {found['rotation_max_deg']:.2f} degrees), "
        f"known to {found['sd_median_m'] * MM:.0f} mm in {cells['own']} neighborhoods",
    ]


def render(values: dict[str, Any]) -> str:
    """Return the report as Markdown."""
    old, new = values["old"], values["new"]
    lines = [f"# Changes from {markdown_text(old['map'])} to {markdown_text(new['map'])}", ""]
    lines += [_origin(which, values[which]) for which in ("old", "new")]
    lines += [f"- {line[0].upper()}{line[1:]}." for line in summary(values, "m²").splitlines()]
    lines += ["", "## Cracks", "", "| what | m |", "|---|---|"]
    meters = values["meters"]
    words = CLASS_WORDS["change"]
    lines += [f"| {words[kind]} | {length:.1f} |" for kind, length in meters.items()]
    lines += ["", "## Networks", "", "| what | number | m² then | m² now |", "|---|---|---|---|"]
    words = CLASS_WORDS["area_change"]
    lines += [
        f"| {words[kind]} | {one['count']} | {one['before_m2']:.2f} | {one['after_m2']:.2f} |"
        for kind, one in values["networks"].items()
    ]
    if values["segments"]:
        lines += ["", "## Road segments", "", *_segment_table(values["segments"])]
    lines += ["", "## Registration", "", *_registration_text(values), ""]
    return "\n".join([*lines, "## Not claimed", "", NOT_CLAIMED]) + "\n"


def _origin(which: str, survey: dict[str, Any]) -> str:
    """Say which map a survey is: file, day, run and pixel size, as far as they are known."""
    day, run = survey["survey_date"], survey["run_id"]
    parts = [
        f"- The {which} survey: {markdown_text(survey['map'])}",
        f"of {day}" if day else "",
        f"run {markdown_text(run)}" if run else "",
        f"pixels of {survey['gsd_mm']:.3g} mm.",
    ]
    return ", ".join(filter(None, parts))


def _segment_table(segments: list[dict[str, Any]]) -> list[str]:
    head = "| segment | street | seen by both % | m then | m now | change m | +- m |"
    rows = [
        f"| {markdown_text(one['segment_id'])} | {markdown_text(one['name'] or '-')} "
        f"| {one['inspected_pct']:.0f} "
        f"| {one['before_m']:.1f} | {one['after_m']:.1f} | {one['change_m']:+z.1f} "
        f"| {one['change_sd_m']:.1f} |"
        for one in segments[:NAMED_SEGMENTS]
    ]
    rest = len(segments) - NAMED_SEGMENTS
    more = ["", f"and {rest} more, with less growth (layer {CHANGE_SEGMENT.name})"]
    return [head, "|---|---|---|---|---|---|---|", *rows, *(more if rest > 0 else [])]


def _registration_text(values: dict[str, Any]) -> list[str]:
    found = values["registration"]
    cells = found["neighborhoods"]
    lines = [f"- {line[0].upper()}{line[1:]}." for line in _registration_lines(found)]
    lines.append(
        f"- Neighborhoods: {cells['own']} by their own cracks, {cells['neighbors']} by their "
        f"neighbors, {cells['none']} too uncertain."
    )
    if found["residual_m"] is not None:
        lines.append(
            f"- Lines that agree are still {found['residual_m'] * MM:.0f} mm apart (standard "
            f"deviation); up to {values['tolerance_m'] * MM:.0f} mm they count as the same."
        )
    return lines
