"""The members of an ensemble on a map: the metric of each, so that the page can tell where they disagree."""

from typing import Any

import torch

from pullgeo.errors import NonFiniteError
from pullgeo.manifold.base import Manifold
from pullgeo.manifold.decoders.ensemble import Ensemble
from pullgeo.manifold.pullback import PullbackManifold
from pullgeo.stats.uncertainty import AGREE, ROUGH, Verdict, member_manifolds
from pullgeo.viz.explore.slice import Slice
from pullgeo.viz.explore.surface import Interval, sample_metric

MOST_MEMBERS = 24
"""Members that a page carries; the first of more."""
NODES = 25_000
"""Lattice nodes of all members together: some 300 kB."""
COARSEST, FINEST = 32, 64
"""Nodes along the longer side."""


def members_of(manifold: Manifold) -> list[PullbackManifold] | None:
    """The members of an ensemble as manifolds, retrained or drawn from weights or dropout masks; ``None`` without."""
    ensemble = isinstance(manifold, PullbackManifold) and isinstance(manifold.decoder, Ensemble)
    if not isinstance(manifold, PullbackManifold) or not ensemble:
        return None
    members = member_manifolds("explore", manifold)
    return members if len(members) > 1 else None


def members_payload(manifold: Manifold, plane: Slice, x: Interval, y: Interval) -> dict[str, Any] | None:
    """``payload.members``: a surface for each member, with nothing but its metric, and what the page says of spreads.

    Args:
        manifold: the whole manifold, before `Slice.restrict`.
        plane: the plane that is shown.
        x: the interval of the map's first coordinate.
        y: the interval of the second one.

    Returns:
        ``None`` for decoders without members, and where a member's metric has rank two nowhere on the map.

    Cost: the metric of each member at up to 64² places, at 25 000 for all of them together.
    """
    members = members_of(manifold)
    if members is None:
        return None
    shown = members[:MOST_MEMBERS]
    side = min(FINEST, max(COARSEST, int((NODES / len(shown)) ** 0.5)))
    try:
        with torch.no_grad():
            surfaces = [sample_metric(plane.restrict(member).in_double(), x, y, side) for member in shown]
    except NonFiniteError:
        return None
    return {
        "count": len(members),
        "surfaces": [surface.payload() for surface in surfaces],
        # the largest coefficient of variation of each verdict, in the order in which they are tried
        "verdicts": [
            {"name": verdict.name, "limit": limit, "text": verdict.value}
            for verdict, limit in ((Verdict.AGREE, AGREE), (Verdict.ROUGH, ROUGH), (Verdict.DISAGREE, None))
        ],
        "unsolved": {"name": Verdict.NOT_SOLVED.name, "text": Verdict.NOT_SOLVED.value},
    }
