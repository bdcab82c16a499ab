"""Geodesics, curvature and transport on two surfaces whose answers everybody can check: a first tour.

A *decoder* is any map from coordinates to a space that measures. Here it is not trained: latitude and longitude go to
points of a sphere, two angles to points of a torus. The library sees a map and nothing else; what it finds is compared
with school geometry.

* **Distance.** ``manifold.geodesic(x, y)`` finds the shortest curve; on the sphere it is an arc of a great circle, of
  length ``R arccos⟨p, q⟩``.
* **Exponential and logarithm.** ``expmap`` walks straight ahead with a given velocity, ``logmap`` finds the velocity
  that arrives at a given point: each undoes the other.
* **Curvature.** A sphere has ``1/R²`` everywhere. A torus has ``cos θ / (r (R + r cos θ))``: positive outside, negative
  inside, and zero in total (Gauss and Bonnet).
* **Transport.** A tangent that is carried around a triangle without turning comes home turned, by the triangle's area
  over ``R²``. On the octant of a sphere, whose three angles are right, it is a right angle.
* **Clairaut.** Along a geodesic of a surface of revolution ``ρ² dφ/dt`` does not change: the further in, the faster
  round.

Run it with ``python examples/sphere_and_torus.py``; ``python examples/sphere_and_torus.py torus.html`` also draws the
torus with its geodesics. It takes ten seconds.
"""

import math
import sys

import torch
from torch import Tensor

from pullgeo import PullbackManifold, viz
from pullgeo.testing.charts import Torus

RADIUS = 2.0
R, r = 3.0, 1.0


def sphere(z: Tensor) -> Tensor:
    """Colatitude and longitude ``(b, 2)`` to points ``(b, 3)`` of the sphere of radius 2."""
    theta, phi = z.unbind(1)
    return RADIUS * torch.stack([theta.sin() * phi.cos(), theta.sin() * phi.sin(), theta.cos()], 1)


def turn(manifold: PullbackManifold, corners: Tensor, v: Tensor) -> float:
    """The angle between a tangent and what comes home after parallel transport along the sides of a polygon."""
    carried = v
    for begin, end in zip(corners, corners.roll(-1, 0), strict=True):
        carried = manifold.transp(begin[None], end[None], carried)
    home = corners[:1]
    cosine = manifold.inner(home, v, carried) / (manifold.norm(home, v) * manifold.norm(home, carried))
    return float(cosine.clamp(-1, 1).acos())


def main(figure: str | None = None) -> None:
    """Compare with closed forms, print the table, and draw."""
    generator = torch.Generator().manual_seed(0)
    rows: list[tuple[str, float, float]] = []

    globe = PullbackManifold(sphere)
    low, high = torch.tensor([0.4, 0.0]), torch.tensor([2.7, 2.0])
    x, y = (low + (high - low) * torch.rand(20, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    arc = RADIUS * ((sphere(x) * sphere(y)).sum(1) / RADIUS**2).acos()
    solution = globe.geodesic(x, y)
    assert bool(solution.converged.all())
    rows.append(("sphere: 20 distances, relative", float((solution.length / arc - 1).abs().max()), 1e-5))

    velocity = globe.logmap(x, y)
    rows.append(("sphere: length of the logarithm", float((globe.norm(x, velocity) / arc - 1).abs().max()), 1e-8))
    rows.append(("sphere: exponential of the logarithm", float((globe.expmap(x, velocity) - y).abs().max()), 1e-8))

    east, south = torch.eye(2, dtype=torch.float64).flip(0)
    curvature = globe.sectional_curvature(x, east.expand_as(x), south.expand_as(x))
    rows.append(("sphere: curvature 1/R²", float((curvature - 1 / RADIUS**2).abs().max()), 1e-10))

    # An octant around the point of longitude 0 on the equator: the chart's poles, where longitude has no meaning, and
    # its cut at longitude ±π stay outside.
    around = 0.3 + 2 * math.pi / 3 * torch.arange(3, dtype=torch.float64)
    first, height, side = math.sqrt(1 / 3), math.sqrt(2 / 3) * around.sin(), math.sqrt(2 / 3) * around.cos()
    corners = torch.stack([height.acos(), torch.atan2(side, torch.full_like(side, first))], 1)
    angle = turn(globe, corners, south[None])
    area = 4 * math.pi * RADIUS**2 / 8
    rows.append(("sphere: turn around an octant", abs(angle - area / RADIUS**2), 1e-6))

    torus = Torus(R, r)
    ring = PullbackManifold(torus)
    grid = torch.linspace(0, 2 * math.pi, 49, dtype=torch.float64)[:-1]
    places = torch.cartesian_prod(grid, grid[:1])
    found = ring.sectional_curvature(places, east.expand_as(places), south.expand_as(places))
    theta = places[:, 0]
    rows.append(("torus: curvature", float((found - theta.cos() / (r * (R + r * theta.cos()))).abs().max()), 1e-10))
    # all sections φ = const are alike, so the integral over the surface is 2π times that over one of them
    total = float((found * ring.log_volume(places).exp()).mean()) * (2 * math.pi) ** 2
    rows.append(("torus: total curvature 0", abs(total), 1e-9))

    begin = torch.tensor([[math.pi / 2, 0.0]] * 3, dtype=torch.float64)
    directions = torch.tensor([[1.0, 0.6], [1.0, 0.25], [0.4, 0.8]], dtype=torch.float64)
    times = torch.linspace(0, 1, 5, dtype=torch.float64)[1:]
    drift = 0.0
    for time in times:
        there, speed = ring.expmap_transp(begin, time * directions, directions)
        drift = max(drift, float((torus.clairaut(there, speed) - torus.clairaut(begin, directions)).abs().max()))
    rows.append(("torus: Clairaut's constant", drift, 1e-8))

    for name, error, bound in rows:
        print(f"{name:40s} error {error:8.1e}, at most {bound:.0e}")
        assert error < bound, name

    if figure is not None:
        start = torch.tensor([[0.3, -2.2], [2.2, -0.6], [-1.3, 0.3]], dtype=torch.float64)
        end = torch.tensor([[0.3, -0.2], [1.7, 1.9], [1.6, 1.5]], dtype=torch.float64)
        whole = ((-math.pi, math.pi), (-math.pi, math.pi))
        drawn = viz.embedded_surface(ring, start, ring.geodesic(start, end), extent=whole)
        drawn.update_layout(width=560, height=420).write_html(figure, config={"displayModeBar": False})


if __name__ == "__main__":
    main(*sys.argv[1:2])
