"""From a discrete geodesic to the geodesic: many short initial value problems that meet."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pullgeo.curve.discrete import DiscreteCurve
from pullgeo.errors import NonFiniteError, SingularMetricError
from pullgeo.manifold.exponential import Connection, shoot
from pullgeo.numerics.batch import Batch
from pullgeo.numerics.chunking import MANY
from pullgeo.numerics.damped_newton import STEP_LENGTH, Iterate, damped_newton
from pullgeo.numerics.ode.dop853 import RTOL


@dataclass(frozen=True)
class ShootingSettings:
    """How short geodesics are made to meet.

    Attributes:
        windows: number of short geodesics that make up a long one. Set by hand.
        probe: how far apart neighbours are shot for a derivative, relative to the velocity: between rounding and
            curvature. About the cube root of the relative error of the neighbours.
        rough_rtol: relative error of a step for these neighbours, whose differences need three digits. A thousandth of
            how far neighbours are apart.
        tol: relative mismatch at the joints that ends the search. Near the rounding errors of float64.
        corrections: bound on their number. Set by hand.
        max_steps: of a short geodesic; one that takes more has gone astray. Set by hand.
    """

    windows: int = 16
    probe: float = 3e-5
    rough_rtol: float = 1e-8
    tol: float = 1e-11
    corrections: int = 6
    max_steps: int = 100


SETTINGS = ShootingSettings()


DAMPING = replace(STEP_LENGTH, limit=100.0)
"""Of corrections with one derivative."""


def multiple_shooting(
    connection: Connection, curve: DiscreteCurve, *, max_rounds: int = 8
) -> tuple[Float[Tensor, "b S 2 d"], Float[Tensor, " b"]]:
    """The initial velocities of the geodesics that discrete geodesics approximate, by Newton's method.

    Unknown are points and velocities at the joints of short geodesics, and that these fit together is what is solved
    for. Where neighbouring geodesics run apart, the initial velocity alone would decide on the end only after all its
    rounding errors had been blown up; here errors grow no longer than one window, and all windows are followed at once.

    It takes much more time than `collocate`, and asks for less: steps shorten themselves where the connection jumps, as
    with ELU, which no polynomial follows.

    Returns:
        Points and velocities where the short geodesics begin, and by how much these fail to meet, relative to the
        velocity; NaN and infinity are not among the former, and the latter is infinite for a pair that could not be
        followed.

    Cost: a round follows ``16 (2d + 1)`` short geodesics for each pair in one batch and factorises a system of
    ``31 d`` unknowns; each of at most six corrections with it follows another 16.

    Source: Ascher, Mattheij, Russell, *Numerical Solution of Boundary Value Problems*, chapter 4.
    """
    d = curve.nodes.shape[2]
    parts = [
        _joined(connection, curve[part], max_rounds) for part in MANY.slices(len(curve), SETTINGS.windows * (2 * d + 1))
    ]
    if not parts:
        return curve.nodes[:, :, None, :].expand(-1, -1, 2, -1), curve.nodes[:, 0, 0]
    states, mismatches = zip(*parts, strict=True)
    return torch.cat(states), torch.cat(mismatches)


@dataclass(frozen=True, eq=False)
class _Joints(Batch):
    """Points and velocities where windows begin, the gaps from their ends to the next ones, and how large these are."""

    states: Float[Tensor, "b S 2 d"]
    defects: Float[Tensor, "b S 2 d"]
    mismatch: Float[Tensor, " b"]


def _joined(connection: Connection, curve: DiscreteCurve, max_rounds: int) -> tuple[Tensor, Tensor]:
    target = curve.end
    t = torch.arange(SETTINGS.windows, dtype=curve.nodes.dtype, device=curve.nodes.device) / SETTINGS.windows
    states = torch.stack([curve(t), curve.velocity(t)], 2)
    states = torch.cat([torch.stack([curve.begin, states[:, 0, 1]], 1).unsqueeze(1), states[:, 1:]], 1)
    found = _joints(connection, states, target)
    going = (found.mismatch > SETTINGS.tol).nonzero().squeeze(1)
    for _ in range(max_rounds):
        if not len(going):
            break
        before = found.mismatch[going]
        factor = _factorise(connection, found.states[going])
        found = found.put(going, _improve(connection, found[going], target[going], factor))
        # at rounding error a round changes nothing any more
        now = found.mismatch[going]
        going = going[(now > SETTINGS.tol) & (now < 0.5 * before)]
    return found.states, found.mismatch


@dataclass(frozen=True, eq=False, kw_only=True)
class _Corrected(Iterate):
    """Joints in the course of corrections with one factorised derivative."""

    joints: _Joints
    target: Float[Tensor, "b d"]
    factor: tuple[Tensor, Tensor]
    ended: Bool[Tensor, " b"]


@dataclass(frozen=True, eq=False)
class _Corrections:
    """Corrections with one derivative, as long as they gain a digit each; shorter ones where a whole one misses."""

    connection: Connection

    def done(self, now: _Corrected) -> Bool[Tensor, " b"]:
        return now.ended

    def step(self, now: _Corrected) -> tuple[_Corrected, Tensor, Tensor]:
        old = now.joints
        correction = _correction(now.factor, old.defects) / now.damping.view(-1, 1, 1, 1)
        trial = _joints(self.connection, old.states + correction, now.target)
        better = trial.mismatch < old.mismatch
        fast = better & (trial.mismatch > SETTINGS.tol) & (trial.mismatch < 0.1 * old.mismatch)
        # reduced it enough: the next derivative is taken here
        ended = ~(fast | (~better & (old.mismatch > 100 * SETTINGS.tol)))
        return replace(now, joints=trial.where(better, old), ended=ended), better, torch.ones_like(trial.mismatch)


def _improve(connection: Connection, found: _Joints, target: Tensor, factor: tuple[Tensor, Tensor]) -> _Joints:
    never = torch.zeros_like(found.mismatch, dtype=torch.bool)
    start = _Corrected(joints=found, target=target, factor=factor, ended=never, **DAMPING.begin(found.mismatch))
    return damped_newton(_Corrections(connection), start, DAMPING, SETTINGS.corrections).joints


def _joints(connection: Connection, states: Tensor, target: Tensor) -> _Joints:
    """Where windows lead beside where the next ones begin; at the end only the point is given."""
    ends = _follow(connection, states.flatten(0, 1), RTOL).reshape(states.shape)
    final = torch.stack([target, ends[:, -1, 1]], 1).unsqueeze(1)
    defects = ends - torch.cat([states[:, 1:], final], 1)
    size = states[:, :, 1].norm(dim=2).amax(1).clamp(min=torch.finfo(states.dtype).tiny)
    # a point's error counts against the length of the whole curve, as a velocity's does
    mismatch = (defects.norm(dim=3).amax((1, 2)) / size).nan_to_num(nan=torch.inf)
    return _Joints(states, defects, mismatch)


def _factorise(connection: Connection, states: Tensor) -> tuple[Tensor, Tensor]:
    """The factorised derivative of the defects with respect to the unknown states, to about three digits."""
    b, S, _, d = states.shape
    reach = SETTINGS.probe * states[:, :, 1].norm(dim=2).amax(1).clamp(min=torch.finfo(states.dtype).tiny).view(
        -1, 1, 1, 1
    )
    probes = torch.eye(2 * d, dtype=states.dtype, device=states.device).reshape(2 * d, 1, 1, 2, d)
    bundle = torch.cat([states.unsqueeze(0), states + reach * probes])
    ends = _follow(connection, bundle.reshape(-1, 2, d), SETTINGS.rough_rtol).reshape(bundle.shape)
    # [b, S, out (2), out d, in (2), in d]
    slopes = ((ends[1:] - ends[0]) / reach).reshape(2, d, b, S, 2, d).permute(2, 3, 4, 5, 0, 1)
    system = states.new_zeros(2 * S - 1, 2 * S - 1, b, d, d)
    window, inner = torch.arange(S), torch.arange(S - 1)
    # unknowns in the order u_0, z_1, u_1, ..., z_{S-1}, u_{S-1}; equations: a window's point, then its velocity
    blocks = slopes.permute(1, 2, 4, 0, 3, 5)  # [S, out, in, b, d, d]
    system[2 * window, 2 * window] = blocks[:, 0, 1]
    system[2 * inner + 1, 2 * inner] = blocks[:-1, 1, 1]
    system[2 * window[1:], 2 * window[1:] - 1] = blocks[1:, 0, 0]
    system[2 * inner[1:] + 1, 2 * inner[1:] - 1] = blocks[1:-1, 1, 0]
    one = torch.eye(d, dtype=states.dtype, device=states.device)
    system[2 * inner, 2 * inner + 1] = -one
    system[2 * inner + 1, 2 * inner + 2] = -one
    matrix = system.permute(2, 0, 3, 1, 4).reshape(b, (2 * S - 1) * d, -1)
    LU, pivots, _ = torch.linalg.lu_factor_ex(matrix)
    return LU, pivots


def _correction(factor: tuple[Tensor, Tensor], defects: Tensor) -> Tensor:
    b, S, _, d = defects.shape
    right = -defects.reshape(b, 2 * S, d)[:, :-1].reshape(b, -1, 1)
    step = torch.linalg.lu_solve(*factor, right).reshape(b, 2 * S - 1, d)
    # the first point stays where it is; a pair whose derivative is not finite stays as a whole
    step = torch.cat([torch.zeros_like(step[:, :1]), step], 1).reshape(defects.shape)
    good = torch.isfinite(step).flatten(1).all(1)
    return torch.where(good.view(-1, 1, 1, 1), step, 0.0)


def _follow(connection: Connection, states: Float[Tensor, "n 2 d"], rtol: float) -> Float[Tensor, "n 2 d"]:
    try:
        ends = shoot(
            connection,
            states[:, 0],
            states[:, 1],
            duration=1 / SETTINGS.windows,
            rtol=rtol,
            max_steps=SETTINGS.max_steps,
        )
        return torch.stack(ends, 1)
    except (NonFiniteError, SingularMetricError):
        if len(states) == 1:
            return torch.full_like(states, torch.nan)
        # a trial begins where the metric is not defined: find out which, the others go on
        return torch.cat([_follow(connection, half, rtol) for half in states.tensor_split(2)])
