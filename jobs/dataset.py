"""`wpcrack dataset`: an image-level set from photographs and pixel masks, and what it contains."""

from __future__ import annotations

from pathlib import Path

from wpcrack.data.build import BuildOptions, BuildReport, build_image_level


def run_dataset(
    images: Path, masks: Path, out: Path, options: BuildOptions | None = None
) -> BuildReport:
    """Build the set in `out` and print its balance, sources, identical files and warnings.

    Raises:
        WpcrackError: as `build_image_level`.
    """
    report = build_image_level(images, masks, out, options=options)
    print(render(report))
    return report


def render(report: BuildReport) -> str:
    """Lay the report out for a terminal."""
    lines = [f"{'split':8}{'crack':>8}{'road':>8}{'sources':>10}"]
    lines += [f"{c.split:8}{c.crack:8}{c.road:8}{c.sources:10}" for c in report.counts]
    lines.append(f"identical files across splits: {len(report.identical)}")
    lines += [f"warning: {warning}" for warning in report.warnings]
    lines.append(f"set with {sum(c.crack + c.road for c in report.counts)} items in {report.out}")
    return "\n".join(lines)
