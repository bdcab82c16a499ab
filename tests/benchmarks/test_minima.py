"""How often a search misses the shortest curve: random networks, each pair against many random starts."""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from pullgeo import Newton, PullbackManifold
from pullgeo.curve import DiscreteCurve, straight_line
from pullgeo.geodesic import InitialCurve, Solution, StraightLine
from tests.benchmarks.side_by_side import show

ACTIVATIONS: tuple[Callable[[], nn.Module], ...] = (nn.Tanh, nn.Softplus, nn.GELU, nn.SiLU, nn.Sigmoid, nn.ELU)
"""Those of the random networks; ELU has a second derivative that jumps."""

PAIRS = 12
"""Of one network."""

STARTS = 24
"""Random curves from which the shortest one is sought."""

CHORDS = 4096
"""With which curves are measured in the end."""


@dataclass(frozen=True, eq=False)
class Case:
    """A random network in float32 with pairs of latents."""

    decoder: nn.Module
    z0: Tensor
    z1: Tensor

    @staticmethod
    def of(seed: int) -> "Case":
        """Of 1 to 3 hidden layers, 16 to 64 wide, with 2, 3 or 5 latents; weights two to four times the usual ones."""
        generator = torch.Generator().manual_seed(seed)

        def draw(*choices: int) -> int:
            return choices[int(torch.randint(len(choices), (), generator=generator))]

        d, width, layers = (2, 3, 5)[seed % 3], draw(16, 32, 64), draw(1, 2, 3)
        gain = 2 + 2 * float(torch.rand((), generator=generator))
        activation = ACTIVATIONS[draw(*range(len(ACTIVATIONS)))]
        parts: list[nn.Module] = []
        for n_in, n_out in pairwise([d, *[width] * layers, 20]):
            linear = nn.Linear(n_in, n_out)
            with torch.no_grad():
                linear.weight.copy_(gain / math.sqrt(n_in) * torch.randn(n_out, n_in, generator=generator))
                linear.bias.copy_(torch.randn(n_out, generator=generator))
            parts += [linear, activation()]
        z = 2 * torch.randn(2, PAIRS, d, generator=generator)
        return Case(nn.Sequential(*parts[:-1]), z[0], z[1])

    def measured(self, curve: DiscreteCurve) -> Tensor:
        """Lengths of curves by many chords, in float64."""
        decode = copy.deepcopy(self.decoder).double()
        t = torch.linspace(0, 1, CHORDS + 1, dtype=torch.float64)
        lengths = []
        with torch.no_grad():
            for nodes in curve.nodes.double():
                images = decode(DiscreteCurve(nodes.unsqueeze(0))(t).squeeze(0))
                lengths.append(images.diff(dim=0).norm(dim=1).sum())
        return torch.stack(lengths)

    def shortest(self, seed: int = 0) -> Tensor:
        """The least length among the geodesics to which random starts lead, or the straight line."""
        manifold = PullbackManifold(self.decoder)
        generator = torch.Generator().manual_seed(seed)
        best = torch.full((PAIRS,), torch.inf, dtype=torch.float64)
        for start in (StraightLine(), *(InitialCurve(self._wave(generator)) for _ in range(STARTS))):
            with torch.no_grad():
                found = manifold.geodesic(self.z0, self.z1, Newton(starts=(start,), rtol=None))
            length = self.measured(found.curve)
            best = torch.where(found.converged & (length < best), length, best)
        return best

    def _wave(self, generator: torch.Generator) -> DiscreteCurve:
        """The straight lines with a few random sines on top, in size up to their own length."""
        line = straight_line(self.z0, self.z1, 32).nodes
        t = torch.linspace(0, math.pi, 33)
        sines = torch.stack([(k * t).sin() / k for k in (1, 2, 3)])
        size = torch.rand(PAIRS, generator=generator) * (self.z1 - self.z0).norm(dim=1) / math.sqrt(line.shape[2])
        weights = size[:, None, None] * torch.randn(PAIRS, 3, line.shape[2], generator=generator)
        return DiscreteCurve(line + torch.einsum("ks,pkd->psd", sines, weights))


def solved(case: Case, solver: Newton) -> tuple[Solution, float]:
    """What a solver finds, and the seconds of the processor that it takes."""
    manifold = PullbackManifold(case.decoder)
    start = time.process_time()
    with torch.no_grad():
        solution = manifold.geodesic(case.z0, case.z1, solver)
    return solution, time.process_time() - start


def test_against_random_starts() -> None:
    """24 networks, 288 pairs; takes some minutes, nearly all for the random starts."""
    cases = [Case.of(seed) for seed in range(24)]
    solvers = {"Newton()": Newton(), 'search="thorough"': Newton(search="thorough")}
    solved(cases[0], Newton())  # what is loaded on first use is not timed
    found = {name: [solved(case, solver) for case in cases] for name, solver in solvers.items()}
    lengths = {name: [c.measured(s.curve) for c, (s, _) in zip(cases, found[name], strict=True)] for name in solvers}
    best = [case.shortest() for case in cases]
    for name in solvers:
        good = [s.converged for s, _ in found[name]]
        best = [
            torch.where(ok, least.minimum(length), least)
            for ok, least, length in zip(good, best, lengths[name], strict=True)
        ]
    rows: list[dict[str, object]] = []
    quick = sum(spent for _, spent in found["Newton()"])
    for name in solvers:
        ok = torch.cat([s.converged for s, _ in found[name]])
        excess = (torch.cat(lengths[name]) / torch.cat(best) - 1)[ok]
        rows.append(
            {
                "solver": name,
                "pairs": len(ok),
                "converged": int(ok.sum()),
                "over 0.1 % longer, %": 100 * float((excess > 1e-3).double().mean()),
                "over 1 % longer, %": 100 * float((excess > 1e-2).double().mean()),
                "most": float(excess.max()),
                "pairs with several minima": int((torch.cat([s.minima for s, _ in found[name]]) > 1).sum()),
                "time / Newton()": sum(spent for _, spent in found[name]) / quick,
            }
        )
    title = f"random networks against the best of {STARTS} random starts, {CHORDS} chords"
    note = "24 networks with 2, 3 and 5 latents; shares of the pairs that converged."
    show(title, rows, "minima", note=note)
    assert float(str(rows[0]["over 0.1 % longer, %"])) < 5
