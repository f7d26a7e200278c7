"""Columns, units and classes as people write them, where the plain name says too little."""

from __future__ import annotations

LABELS = {
    "gap_m": "gaps",
    "width_mean_mm": "mean width",
    "width_p95_mm": "width exceeded on 5 %",
    "width_max_mm": "widest run",
    "orientation_deg": "direction",
    "severity_d6433": "severity (ASTM D6433)",
    "severity_ltpp": "severity (LTPP)",
    "low_m": "of low severity",
    "medium_m": "of medium severity",
    "high_m": "of high severity",
    "not_measurable_m": "not measurable",
    "gsd_mm": "pixel size",
    "touches_nodata": "may go on unseen",
    "density_m_per_m2": "line per area",
    "cell_m": "block size",
    "coverage_pct": "seen",
    "cracking_pct": "cracked area",
    "zeb_cell_pct": "cells with a crack (ZEB)",
    "unknown_m": "of unknown type",
    "longitudinal_width_mm": "mean width, longitudinal",
    "transverse_width_mm": "mean width, transverse",
    "diagonal_width_mm": "mean width, diagonal",
    "valid_pct": "with imagery",
    "before_m": "length then",
    "after_m": "length now",
    "growth_sd_m": "growth, uncertainty",
    "width_before_mm": "width then",
    "width_after_mm": "width now",
    "width_sd_mm": "width change, uncertainty",
    "before_m2": "area then",
    "after_m2": "area now",
    "growth_sd_m2": "growth, uncertainty",
    "inspected_pct": "seen by both",
    "change_sd_m": "change, uncertainty",
    "network_before_m2": "networks then",
    "network_after_m2": "networks now",
    "network_sd_m2": "network change, uncertainty",
    "sd_m": "uncertainty",
    "support_m": "cracks that agree",
    "old_gsd_mm": "pixel size then",
    "new_gsd_mm": "pixel size now",
    "seconds": "time spent",
}
"""Names in words, where the column's own name says too little."""

ENDINGS = ("_m_per_m2", "_pct", "_deg", "_m2", "_mm", "_m")
"""Units in the names of columns."""

UNIT_SIGNS = {"m2": "m²", "m/m2": "m/m²", "deg": "°", "0-1": ""}
"""Units as people write them, where they differ."""

UNKNOWN = "not known"
"""Day, model or run of a map that nobody named."""

CLASS_WORDS: dict[str, dict[str, str]] = {
    "severity_d6433": {
        "high": "high",
        "medium": "medium",
        "low": "low",
        "not_measurable": "not measurable",
    },
    "severity_ltpp": {
        "high": "high",
        "moderate": "moderate",
        "low": "low",
        "not_measurable": "not measurable",
    },
    "type": {
        "longitudinal": "longitudinal",
        "transverse": "transverse",
        "diagonal": "diagonal",
        "unknown": "unknown (too short, or no road)",
    },
    "kind": {"alligator": "alligator", "block": "block"},
    "verdict": {"right": "right", "wrong": "wrong"},
    "priority": {"high": "high", "medium": "medium", "low": "low"},
    "change": {
        "new": "new",
        "grown": "longer",
        "widened": "wider",
        "unchanged": "unchanged",
        "narrowed": "narrower",
        "shrunk": "shorter, or sealed in part",
        "gone": "gone or sealed",
        "in_network": "in a network in one survey",
        "unsure": "too small to tell",
        "not_inspected": "seen by one survey only",
    },
    "area_change": {
        "new": "new",
        "grown": "larger",
        "unchanged": "unchanged",
        "shrunk": "smaller",
        "gone": "gone or sealed",
        "unsure": "too small to tell",
        "not_inspected": "seen by one survey only",
    },
    "trend": {"more": "more cracks", "fewer": "fewer cracks", "none": "no certain change"},
    "source": {
        "own": "from its own cracks",
        "neighbors": "from its neighbors",
        "none": "not known",
    },
    "status": {
        "inspected": "inspected",
        "partial": "partly failed",
        "nodata": "no imagery",
        "failed": "failed",
    },
}
"""Values of the columns of classes, in words."""

LABELS |= {f"{kind}_m": word for kind, word in CLASS_WORDS["change"].items()}
