"""The members of an ensemble on a map: what Python ships, and what the page makes of it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pullgeo import MetricManifold, PullbackManifold
from pullgeo.likelihood import Gaussian
from pullgeo.manifold import Ensemble, MeanAndDeviation
from pullgeo.stats import Verdict, member_distances
from pullgeo.viz.explore import members as module
from pullgeo.viz.explore.exact import Exact
from pullgeo.viz.explore.members import members_payload
from pullgeo.viz.explore.slice import Slice
from pullgeo.viz.explore.surface import sample_surface
from tests.viz.explore.decoders import mlp

BOX = ((-2.2, 2.2), (-2.1, 2.3))
FLAT = Slice.of_dims(torch.zeros(3, 2))
InFront = Callable[[dict[str, Any]], dict[str, Any]]


def ensemble(count: int = 5, spread: float = 0.3) -> Ensemble:
    """Networks that differ by a share of their weights."""
    first = mlp(seed=0).double()
    others = [mlp(seed=k).double() for k in range(1, count)]
    with torch.no_grad():
        for member in others:
            for p, q in zip(member.parameters(), first.parameters(), strict=True):
                p.mul_(spread).add_((1 - spread) * q)
    return Ensemble([first, *others])


def disagreement(members: tuple, z: Tensor, axes: Tensor) -> Tensor:
    """Over members, std over mean of ``|J_s v|`` with v along the axes of a plane, averaged over 8 directions."""
    angles = torch.arange(8, dtype=torch.float64) * torch.pi / 8
    directions = torch.stack([angles.cos(), angles.sin()], 1) @ axes
    speeds = torch.stack(
        [
            torch.stack(
                [(torch.autograd.functional.jacobian(f, p[None])[0, :, 0] @ directions.T).norm(dim=0) for p in z]
            )
            for f in members
        ]
    )
    return (speeds.std(0) / speeds.mean(0)).mean(1)


def made_of(payload: dict[str, Any], pages: InFront, places: Tensor, pairs: list | None = None) -> dict[str, Any]:
    surface = sample_surface(PullbackManifold(mlp().double()), *BOX, side=16)
    work = {"surface": surface.payload(), "places": places.tolist(), "members": payload, "pairs": pairs or []}
    return pages(work)


@pytest.mark.parametrize("d", [2, 5])
def test_the_layer_is_the_variation_of_short_steps(
    d: int, in_front: InFront, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ensemble(3)
    members: list[nn.Module] = [nn.Sequential(nn.Linear(d, 2).double(), f) for f in whole.members] if d > 2 else []
    decoder = Ensemble(members) if members else whole
    plane = Slice.of_dims(torch.zeros(3, d), (d - 1, 0))
    payload = members_payload(PullbackManifold(decoder), plane, *BOX)
    assert payload is not None
    assert (payload["count"], len(payload["surfaces"])) == (3, 3)
    xy = (2 * torch.rand(53, 2, generator=generator, dtype=torch.float64) - 1) * 2
    found = torch.tensor(made_of(payload, in_front, xy)["disagreement"], dtype=torch.float64)
    expected = disagreement(decoder.members, plane.lift(xy), plane.axes)
    torch.testing.assert_close(found, expected, rtol=0.01, atol=2e-4)
    assert float(expected.min()) > 0.05  # there is something to see


def test_the_spread_is_that_of_the_librarys_distances(in_front: InFront) -> None:
    manifold = PullbackManifold(ensemble(4))
    ends = [[[-1.0, 0.5], [0.9, -1.1]], [[0.3, 1.2], [1.5, 0.2]], [[-1.2, -1], [1, 1.3]]]
    ends = torch.tensor(ends, dtype=torch.float64)
    payload = members_payload(manifold, FLAT, *BOX)
    assert payload is not None
    spreads = made_of(payload, in_front, ends[:, 0], ends.tolist())["spreads"]
    exact = member_distances(manifold, ends[:, 0], ends[:, 1])
    lengths = torch.tensor([spread["lengths"] for spread in spreads], dtype=torch.float64).T
    torch.testing.assert_close(lengths, exact.members, rtol=3e-3, atol=0)
    for pair, spread in enumerate(spreads):
        assert (spread["status"], spread["text"]) == (exact.verdict[pair].name, exact.verdict[pair].value)
        assert spread["cv"] == pytest.approx(float(exact.cv[pair]), rel=0.05)


def test_distances_to_places_nearby_have_the_layers_variation() -> None:
    manifold = PullbackManifold(ensemble(3))
    place = torch.tensor([[0.4, -0.7]], dtype=torch.float64)
    angles = torch.arange(8, dtype=torch.float64) * torch.pi / 8
    near = place + 1e-4 * torch.stack([angles.cos(), angles.sin()], 1)
    found = member_distances(manifold, place.expand(8, -1), near).cv.mean()
    torch.testing.assert_close(
        found, disagreement(manifold.decoder.members, place, torch.eye(2).double())[0], rtol=1e-3, atol=0
    )


def test_members_come_of_dropout_and_of_laplace_too_and_of_nothing_else(generator: torch.Generator) -> None:
    net = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 7))
    z = torch.randn(30, 2)
    dropout = Ensemble.of_dropout(net, z[:1], 3, generator)
    laplace = Ensemble.of_laplace(net.eval(), z, Gaussian(0.1), "last_layer", samples=5, generator=generator)
    for decoder, count in ((dropout, 3), (laplace, 5)):
        payload = members_payload(PullbackManifold(decoder), FLAT, *BOX)
        assert payload is not None
        assert payload["count"] == count
    gaussian = MeanAndDeviation(mlp(), nn.Sequential(mlp(), nn.Softplus()))
    metric = MetricManifold(lambda z: torch.eye(2).expand(len(z), 2, 2))
    for manifold in (PullbackManifold(net), PullbackManifold(gaussian), metric, PullbackManifold(Ensemble([net]))):
        assert members_payload(manifold, FLAT, *BOX) is None
    # one output has no area
    line = Ensemble([nn.Linear(2, 1), nn.Linear(2, 1)])
    assert members_payload(PullbackManifold(line), FLAT, *BOX) is None


def test_a_page_carries_the_first_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_MEMBERS", 2)
    payload = members_payload(PullbackManifold(ensemble(3)), FLAT, *BOX)
    assert payload is not None
    assert (payload["count"], len(payload["surfaces"])) == (3, 2)


def test_exact_answers_are_those_of_the_library() -> None:
    manifold = PullbackManifold(ensemble(3))
    exact = Exact(manifold, FLAT, torch.zeros(1, 2))
    answer = exact.task({"kind": "members", "a": [-1, 0.5], "b": [0.9, -1.1]})()
    z0, z1 = torch.tensor([[[-1.0, 0.5]], [[0.9, -1.1]]], dtype=torch.float64)
    own = member_distances(manifold, z0, z1)
    assert answer["lengths"] == pytest.approx(own.members[:, 0].tolist(), rel=1e-9)
    assert (answer["mean"], answer["std"], answer["cv"]) == pytest.approx(
        (float(own.mean), float(own.std), float(own.cv))
    )
    assert (answer["status"], answer["converged"]) == (own.verdict[0].name, True)
    assert answer["text"] == own.verdict[0].value
    lone = Exact(PullbackManifold(mlp()), FLAT, torch.zeros(1, 2)).task({"kind": "members", "a": [0, 0], "b": [1, 1]})()
    assert lone["status"] == "FAILED"
    assert "no ensemble" in lone["text"]


def test_members_whose_geodesics_fail_are_told() -> None:
    def broken(z: Tensor) -> Tensor:
        return torch.where(z[:, :1].abs() < 0.2, torch.nan, torch.cat([z, z.sin()], 1))

    exact = Exact(PullbackManifold(Ensemble([broken, broken])), FLAT, torch.zeros(1, 2))
    answer = exact.task({"kind": "members", "a": [-1, 0.5], "b": [1, 0.5]})()
    assert answer["lengths"] == [None, None]
    assert (answer["converged"], answer["status"], answer["mean"]) == (False, Verdict.NOT_SOLVED.name, None)
