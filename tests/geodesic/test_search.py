"""Stages of a search, put together otherwise than the default solver does."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from pullgeo import Newton, PullbackManifold, Status
from pullgeo.errors import OptionError
from pullgeo.geodesic import LatticeSearch, StraightLine
from pullgeo.geodesic.solvers.search import (
    Audit,
    Descend,
    InParts,
    LookCloser,
    Polish,
    Propose,
    Retry,
    Search,
    Stage,
)
from pullgeo.numerics.chunking import Budget
from pullgeo.testing.charts import StereographicSphere

SPHERE = StereographicSphere(2)
TOL, STEPS, SEGMENTS = 1e-8, 100, 32


def ends(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    z = torch.randn(2, 5, 2, generator=generator, dtype=torch.float64)
    return z[0], z[1]


def begun(generator: torch.Generator) -> Search:
    space = PullbackManifold(SPHERE)
    return Search(space, space, *ends(generator))


def after(propose: Stage) -> Stage:
    return propose >> Descend(TOL, STEPS, 0) >> Polish(TOL, STEPS)


def test_a_short_pipeline_finds_great_circles(generator: torch.Generator):
    search = begun(generator)
    result = after(Propose((StraightLine(),), SEGMENTS)).result(search)
    assert result.status == 5 * (Status.CONVERGED,)
    torch.testing.assert_close(result.energy.sqrt(), SPHERE.distance(search.z0, search.z1), rtol=1e-5, atol=0)


def test_parts_are_searched_as_a_whole_is(generator: torch.Generator):
    search, starts = begun(generator), (LatticeSearch(),)
    follow = (
        Descend(TOL, STEPS, 0)
        >> LookCloser(starts, SEGMENTS, TOL, STEPS, 0)
        >> Polish(TOL, STEPS)
        >> Audit(starts)
        >> Retry(TOL, STEPS)
    )
    parts = (Propose(starts, SEGMENTS) >> InParts(follow, Budget(2), 1)).result(search)
    whole = Newton(rtol=None).minimise(search.energy, search.single, search.z0, search.z1)
    assert parts.status == whole.status
    torch.testing.assert_close(parts.nodes, whole.nodes, rtol=0, atol=1e-10)
    none = replace(search, z0=search.z0[:0], z1=search.z1[:0])
    assert len((Propose(starts, SEGMENTS) >> InParts(follow, Budget(2), 1)).result(none)) == 0


@dataclass(frozen=True)
class Learned(Stage):
    """Stands in for a network that proposes curves: here they are known but for some noise."""

    def __call__(self, search: Search) -> Search:
        proposed = Propose((StraightLine(),), SEGMENTS)(search).candidates
        assert proposed is not None
        known = after(Propose((LatticeSearch(),), SEGMENTS)).result(search).nodes
        wobble = 0.01 * torch.sin(torch.linspace(0, 4 * torch.pi, SEGMENTS + 1, dtype=known.dtype))[:, None]
        return replace(search, candidates=replace(proposed, nodes=known + wobble))


def test_a_stage_is_exchanged(generator: torch.Generator):
    search = begun(generator)
    learned, usual = after(Learned()).result(search), after(Propose((LatticeSearch(),), SEGMENTS)).result(search)
    torch.testing.assert_close(learned.energy, usual.energy, rtol=1e-10, atol=0)


def test_the_line_replaces_what_is_longer_or_failed(generator: torch.Generator):
    flat = PullbackManifold(nn.Linear(2, 3, dtype=torch.float64))
    z0, z1 = ends(generator)
    search = after(Propose((StraightLine(),), SEGMENTS))(Search(flat, flat, z0, z1))
    assert search.result is not None
    bad = replace(search.result, energy=4 * search.result.energy).ending(torch.arange(5) == 3, Status.MAX_STEPS)
    doubted = Audit((LatticeSearch(),))(replace(search, result=bad))
    assert doubted.doubtful is not None
    assert bool(doubted.doubtful.all())
    result = Retry(TOL, STEPS).result(doubted)
    assert bool(result.converged.all())
    torch.testing.assert_close(result.energy, search.result.energy)


def test_a_stage_that_lacks_what_it_needs(generator: torch.Generator):
    search = begun(generator)
    for stage, missing in (
        (Descend(TOL, STEPS, 0), "Descend: expected a search with candidates, got one without. .* such as Propose"),
        (Polish(TOL, STEPS), "Polish: expected a search with a descent"),
        (Audit((StraightLine(),)), "Audit: expected a search with a result"),
    ):
        with pytest.raises(OptionError, match=missing):
            stage(search)
    with pytest.raises(OptionError, match="Propose: expected a search with a result"):
        Propose((StraightLine(),), SEGMENTS).result(search)
