"""One pair of a tiny decoder by geomstats, in this process: what it takes where it ends."""

import os
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pullgeo import Newton, PullbackManifold
from tests.benchmarks.side_by_side import show, turns

SEGMENTS = 32

NOTE = (
    "geomstats differentiates a decoder node by node, so that one this small was chosen: of a pair of digits, neither "
    "its default, shooting by 100 Euler steps, had ended after 150 seconds, nor PathStraightening with 33 nodes. Of "
    "this decoder the default had not ended after 60 seconds; with 10 Euler steps it ends. Lengths by 32 chords."
)


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::UserWarning"
)  # of geomstats' calls of scipy and torch
def test_one_pair_of_a_tiny_decoder() -> None:
    os.environ["GEOMSTATS_BACKEND"] = "pytorch"
    pytest.importorskip("geomstats", reason="pip install geomstats")
    from geomstats.geometry.base import ImmersedSet
    from geomstats.geometry.euclidean import Euclidean
    from geomstats.numerics.geodesic import PathStraightening

    torch.set_num_threads(1)
    decoder = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 5)).double().requires_grad_(False)
    z0, z1 = torch.tensor([[-0.5, 0.2]], dtype=torch.float64), torch.tensor([[0.6, -0.4]], dtype=torch.float64)
    t = torch.linspace(0, 1, SEGMENTS + 1, dtype=torch.float64)

    class Decoded(ImmersedSet):
        def __init__(self) -> None:
            super().__init__(dim=2)

        def immersion(self, point: Tensor) -> Tensor:
            return decoder(point.double())

        def _define_embedding_space(self) -> Euclidean:
            return Euclidean(5)

    shooting, straightening = Decoded(), Decoded()
    shooting.metric.exp_solver.integrator.n_steps = 10
    straightening.metric.log_solver = PathStraightening(straightening, n_nodes=SEGMENTS + 1)
    manifold = PullbackManifold(decoder)

    def by(space: ImmersedSet) -> Callable[[], Tensor]:
        return lambda: torch.as_tensor(space.metric.geodesic(z0[0], z1[0])(t)).double().reshape(-1, 2).detach()

    def ours() -> Tensor:
        with torch.no_grad():
            return manifold.geodesic(z0, z1, Newton(segments=SEGMENTS)).curve.nodes[0]

    contenders = {
        "Newton()": ours,
        "geomstats, PathStraightening": by(straightening),
        "geomstats, shooting, 10 Euler steps": by(shooting),
    }
    ours()  # what is loaded at the first call is not timed
    run = turns(contenders, rounds=3, warmup=0)
    best = float(manifold.geodesic(z0, z1, Newton(segments=256)).length)
    rows: list[dict[str, object]] = []
    for name, solve in contenders.items():
        nodes = solve()
        chords = float(decoder(nodes).diff(dim=0).norm(dim=1).sum())
        miss = float((nodes[[0, -1]] - torch.cat([z0, z1])).norm(dim=1).max())
        rows.append(
            {
                "solver": name,
                "time / Newton()": run.ratio(name, "Newton()"),
                "length / geodesic's - 1": chords / best - 1,
                "ends missed by": miss,
            }
        )
    show("one pair by geomstats, 2-8-5 tanh", rows, "geomstats", packages=["geomstats"], note=NOTE)
