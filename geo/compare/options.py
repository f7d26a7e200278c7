"""Every limit of a comparison, once, with its reason."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace

from geo.errors import InputError

MOST_LIMIT_M = 2.0
"""Of a shift that a user may allow."""


@dataclass(frozen=True)
class RegistrationOptions:
    """How two surveys are brought together.

    Attributes:
        limit_m: a larger shift is refused: it is an error of the imagery that should be mended
            there, and neighboring cracks begin to be taken for one another.
        search_m: shifts are looked for up to here, so that one beyond the limit is recognized.
        cell_m: side of a neighborhood. A street of 8 m holds some dozen cracks on 25 m, and
            orthophotos bend little over it.
        step_m: distance of the samples on the lines.
        samples: most samples of a neighborhood; more do not make the fit better.
        angle_deg: lines that agree differ less in direction (a wiggle of 5 mm over 10 cm is 3).
        min_support_m: a neighborhood with fewer meters of agreeing cracks takes its shift from
            its neighbors.
        min_share: so does one where a smaller share of its old cracks agrees: unrelated lines
            reach a quarter by chance.
        bend_m: how much the shifts of two neighborhoods differ, where they meet (standard
            deviation; mosaics bend by a few pixels).
        bend_deg: the same for their rotations.
        rotation_deg: rotations to be expected (standard deviation).
        correlation_m: noise of a line is the same over about this length, so that samples closer
            together say little more.
        certain_m: a shift known worse than this is none.
    """

    limit_m: float = 0.5
    search_m: float = 0.8
    cell_m: float = 25.0
    step_m: float = 0.25
    samples: int = 400
    angle_deg: float = 20.0
    min_support_m: float = 3.0
    min_share: float = 0.4
    bend_m: float = 0.02
    bend_deg: float = 0.05
    rotation_deg: float = 0.2
    correlation_m: float = 0.3
    certain_m: float = 0.08


@dataclass(frozen=True)
class MatchOptions:
    """What counts as the same line, and what as a change.

    Attributes:
        step_m: distance of the samples: the resolution of every length.
        sigmas: a difference is a change beyond this many standard deviations (99.7 % of what did
            not change lies within 3); lines closer together than that can be the same.
        position_px: noise of a centerline across itself, in pixels (standard deviation).
        min_tolerance_m, max_tolerance_m: lines farther apart are different ones, whatever the
            noise: below 4 cm wiggles of the drawing decide, beyond 12 cm neighbors of an
            alligator pattern are taken for one another.
        angle_deg: lines that differ more in direction only cross.
        bridge_m: a shorter interruption between two pieces that agree is one of seeing, not of
            the crack: on drawn pavement 0.5 % of the gaps within a crack are longer.
        join_m: what a crack grew joins it: on maps of drawn cities it begins within 6 cm, what
            only lies in line with an old crack from 11 cm on.
        min_match_m: shorter contacts of two lines are crossings.
        tip_px: noise of the end of a crack along itself, in pixels (standard deviation): ends
            are thin, and the last piece is often missed.
        min_crack_m: of a shorter crack that only one survey has, nothing is said (AASHTO R 85
            counts from 0.3 m).
        width_px: error of a mean width, in pixels (2 mm at 5 mm on drawn pavement).
        width_share: widths are compared where this share of both cracks agrees.
        edge_m: closer to the border of what was inspected nothing is expected to be seen.
        outline_m: noise of the outline of a network (closed by 10 cm when it is made).
        outline_correlation_m: length over which that noise is the same.
        min_network_m2: smaller changes of a network's area are none.
    """

    step_m: float = 0.1
    sigmas: float = 3.0
    position_px: float = 1.0
    min_tolerance_m: float = 0.04
    max_tolerance_m: float = 0.12
    angle_deg: float = 35.0
    bridge_m: float = 0.6
    join_m: float = 0.08
    min_match_m: float = 0.15
    tip_px: float = 8.0
    min_crack_m: float = 0.3
    width_px: float = 0.4
    width_share: float = 0.5
    edge_m: float = 0.1
    outline_m: float = 0.05
    outline_correlation_m: float = 0.5
    min_network_m2: float = 0.1


@dataclass(frozen=True)
class CompareOptions:
    """All limits of a comparison."""

    registration: RegistrationOptions = field(default_factory=RegistrationOptions)
    match: MatchOptions = field(default_factory=MatchOptions)

    @classmethod
    def with_limit(cls, limit_m: float) -> CompareOptions:
        """Return the usual limits with another largest shift of the surveys.

        Raises:
            InputError: it is no length.
        """
        if not 0 < limit_m <= MOST_LIMIT_M:
            raise InputError(
                f"the limit of the shift is {limit_m:g} m; give more than 0, at most "
                f"{MOST_LIMIT_M:g} (beyond, neighboring cracks are taken for one another)"
            )
        usual = RegistrationOptions()
        beyond = usual.search_m - usual.limit_m
        return cls(replace(usual, limit_m=limit_m, search_m=limit_m + beyond))

    def text(self) -> str:
        """Return JSON, for the layer run."""
        return json.dumps(asdict(self))
