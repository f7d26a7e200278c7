"""`wpcrack dataset`: an image-level set from photographs and pixel masks, and what it contains."""

from __future__ import annotations

from pathlib import Path

from wpcrack.data.build import BuildOptions, BuildReport, build_image_level
from wpcrack.errors import first_few


def run_dataset(
    images: Path, masks: Path, out: Path, options: BuildOptions | None = None
) -> BuildReport:
    """Build the set in `out` and print its balance, sources, frames, identical files and warnings.

    Raises:
        WpcrackError: as `build_image_level`.
    """
    report = build_image_level(images, masks, out, options=options)
    print(render(report))
    return report


def render(report: BuildReport) -> str:
    """Lay the report out for a terminal."""
    lines = [f"{'split':8}{'crack':>8}{'road':>8}{'sources':>10}{'frames':>9}"]
    lines += [f"{c.split:8}{c.crack:8}{c.road:8}{c.sources:10}{c.frames:9}" for c in report.counts]
    lines.append(
        f"identical files across splits: {len(report.identical)}, across classes: "
        f"{len(report.contradictory)}"
    )
    if report.overlapping:
        pairs = first_few(f"{a} and {b}" for a, b in report.overlapping)
        lines.append(f"sources with contents that overlap, held as one frame: {pairs}")
    lines += [f"warning: {warning}" for warning in report.warnings]
    lines.append(f"set with {sum(c.crack + c.road for c in report.counts)} items in {report.out}")
    return "\n".join(lines)
