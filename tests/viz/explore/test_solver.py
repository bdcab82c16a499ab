"""The page's solver, in torch."""

import pytest
import torch
from torch import Tensor

from pullgeo import PullbackManifold
from pullgeo.geodesic.energy.base import ManifoldEnergy
from pullgeo.viz.explore.solver import ChordSpace, page_geodesics
from pullgeo.viz.explore.surface import sample_surface
from tests.viz.explore.decoders import KINDS, Clipped

BOX = ((-2.2, 2.2), (-2.1, 2.3))


def places(*shape: int, generator: torch.Generator) -> Tensor:
    return (2 * torch.rand(*shape, 2, generator=generator, dtype=torch.float64) - 1) * 2


@pytest.mark.parametrize("kind", ["tanh", "metric"])
def test_the_chord_space_has_exact_derivatives(kind: str, generator: torch.Generator) -> None:
    space = ChordSpace.of(sample_surface(KINDS[kind](), *BOX, side=32))
    assert isinstance(space, ManifoldEnergy)
    nodes = places(3, 8, generator=generator)

    def energy(inner: Tensor) -> Tensor:
        return 7 * space.squares(torch.cat([nodes[:, :1], inner, nodes[:, -1:]], 1)).sum()

    at = space.expand_energy(nodes)
    inner = nodes[:, 1:-1]
    gradient = torch.func.grad(energy)(inner)
    assert torch.allclose(at.gradient, gradient, rtol=1e-9, atol=1e-9 * float(gradient.abs().max()))
    v = places(3, 6, generator=generator)
    product = torch.func.jvp(torch.func.grad(energy), (inner,), (v,))[1]
    assert torch.allclose(at.hessian.matvec(v), product, rtol=1e-8, atol=1e-8 * float(product.abs().max()))
    assert torch.allclose(at.energy.sum(), energy(inner))
    layers = places(2, 4, 3, generator=generator)
    lengths = space.chord_lengths(layers)
    assert lengths.shape == (2, 3, 3, 3)
    one = torch.stack([layers[1, 2, 0], layers[1, 3, 2]])[None]
    assert torch.isclose(lengths[1, 2, 0, 2], space.squares(one)[0, 0].sqrt())


def test_flat_distances_and_their_errors(generator: torch.Generator) -> None:
    # a cylinder
    surface = sample_surface(PullbackManifold(lambda z: torch.cat([z.cos(), z.sin()], 1)), *BOX, side=96)
    a, b = places(17, generator=generator), places(17, generator=generator)
    found = page_geodesics(surface, a, b)
    assert bool(found.converged.all())
    exact = (a - b).norm(dim=1)
    assert float((found.length / exact - 1).abs().max()) < 1e-5
    assert torch.equal(found.nodes[:, 0], a)
    assert torch.equal(found.nodes[:, -1], b)


def test_a_curve_that_cannot_be_found_is_said_to_be_none() -> None:
    manifold = PullbackManifold(Clipped(torch.nn.Identity(), 0.8, 9.0))
    surface = sample_surface(manifold, *BOX, side=48)
    a = torch.tensor([[-1.5, 0.0], [-1.5, 1.5], [0.0, 0.0]], dtype=torch.float64)
    b = torch.tensor([[1.5, 0.1], [1.5, 1.5], [1.5, 0.0]], dtype=torch.float64)
    found = page_geodesics(surface, a, b)
    assert found.converged.tolist() == [False, True, False]
    assert bool(torch.isnan(found.length[2]))
    assert abs(float(found.length[1]) - 3) < 1e-6
