"""`wpcrack label`: say crack or road to the windows of a folder, on a local page.

    wpcrack label windows
    wpcrack label windows --part 1/3 --name anna --again 0.1

The page is for this machine alone. Ctrl-C ends the program; the same command goes on.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from geo.errors import count_of
from jobs.label.agreement import Agreement
from jobs.label.server import make_app
from jobs.label.session import Who, open_session
from jobs.page.server import require_port, serve
from jobs.runtime.terminal import say
from wpcrack.data.manifest import Label
from wpcrack.errors import first_few


@dataclass(frozen=True)
class LabelReport:
    """What the folder holds at the end: labels by class, answers left here, agreement."""

    root: Path
    balance: Mapping[Label, int]
    left: int
    agreement: Agreement

    def summary(self) -> str:
        """Return one sentence for the terminal."""
        crack, road = self.balance["crack"], self.balance["road"]
        parts = [f"{count_of(crack + road, 'window')} labeled ({crack} crack, {road} road)"]
        if self.left:
            parts.append(f"{self.left} to go")
        if self.agreement.pairs:
            parts.append(self.agreement.text())
        if self.agreement.open:
            number = count_of(len(self.agreement.open), "window")
            parts.append(f"{number} in dispute: {first_few(self.agreement.open)}")
        return f"{'; '.join(parts)}; next: {self._next()}"

    def _next(self) -> str:
        root = shlex.quote(str(self.root))
        lacking = [label for label, count in self.balance.items() if not count]
        if lacking:
            return f"wpcrack label {root} (a training needs {' and '.join(lacking)} windows, too)"
        return f"wpcrack train data.root={root} run_dir=runs/own"


def run_label(
    root: Path, who: Who | None = None, *, port: int = 0, open_browser: bool = True
) -> LabelReport:
    """Serve the page until Ctrl-C or SIGTERM, writing each answer at once.

    Args:
        root: folder of windows with a manifest.
        who: labels which part, under what name.
        port: of the page; 0: any free one.
        open_browser: show the page.

    Raises:
        ConfigError: name, share or port cannot be taken.
        DataError: no folder, no manifest, no window, or something cannot be written.
    """
    require_port(port)
    with open_session(root, who or Who()) as session:
        if session.left_out:
            say(
                f"left out: {count_of(len(session.left_out), 'window')} that the manifest lists "
                f"and that no browser can show from this folder ({first_few(session.left_out)})"
            )
        serve(
            partial(make_app, session),
            session.write_manifest,
            port=port,
            open_browser=open_browser,
        )
    return LabelReport(root, session.balance(), session.progress().left, session.agreement())
