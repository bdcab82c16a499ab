"""Geodesics and parallel transport from initial values, for any connection."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo._torch.grad_mode import check_same_weights, check_transforms, leaves
from pullgeo.errors import GeometryError
from pullgeo.manifold.bvp.corrections import SETTINGS as NEWTON
from pullgeo.manifold.bvp.corrections import newton, slopes_at
from pullgeo.manifold.bvp.outlook import Outlook
from pullgeo.manifold.bvp.pieces import Pieces
from pullgeo.manifold.bvp.settle import settle
from pullgeo.manifold.bvp.sketch import Sketch, sketch
from pullgeo.manifold.bvp.transport import transport_pieces
from pullgeo.manifold.equation import Equation
from pullgeo.numerics.bisect_batch import where_defined
from pullgeo.numerics.ode.dop853 import MAX_STEPS, RTOL, integrate

Connection = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``(z, u, w) -> Γ(u, w)`` at points ``(b, d)``."""


@dataclass(frozen=True)
class ArrivalSettings:
    """How geodesics are followed by collocation.

    Attributes:
        turn: the first piece takes the time in which a geodesic would turn by so much, relative to its velocity. Set by
            hand; every piece corrects it.
        soon: after this part of it, ``z̈`` is looked at again for its derivative. Between rounding errors of the
            difference and what changes of it.
        ahead: pieces that are sketched before they are solved for together. Set by hand.
        fewer: what of that is left after none of them was found. Set by hand.
        roughly: relative residual at six points of each piece with which more points are taken. Their own error is not
            smaller.
        resolved: the part of a velocity's change that the two highest of six degrees may make; see `SketchSettings`.
        settled: relative error that is small enough. A tenth of what `Manifold.expmap` promises, as errors add up.
        gained: what the last correction leaves, at most: less than each one before it. Set by hand.
        shorter: a piece that was not found is tried again for this part of its duration. Set by hand.
        slow: a shorter piece of a smooth geodesic has less than this part of the error. Smooth ones have far less: the
            method is of order 24.
        patience: so many first pieces may fail one after the other. Set by hand.
        max_rounds: bound on the sketches of a geodesic. Set by hand.
        missed: relative error of a derivative along the geodesic, which is known, that shows that others are wrong too.
            Far above what these derivatives are exact to.
    """

    turn: float = 2.0
    soon: float = 1e-4
    ahead: int = 32
    fewer: float = 0.34
    roughly: float = 1e-3
    resolved: float = 5e-3
    settled: float = 1e-10
    gained: float = 0.1
    shorter: float = 0.5
    slow: float = 0.003
    patience: int = 5
    max_rounds: int = 100
    missed: float = 1e-4


SETTINGS = ArrivalSettings()


def shoot(
    connection: Connection,
    z: Float[Tensor, "b d"],
    velocity: Float[Tensor, "b d"],
    *transported: Float[Tensor, "b d"],
    duration: float = 1.0,
    rtol: float = RTOL,
    max_steps: int = MAX_STEPS,
) -> tuple[Float[Tensor, "b d"], ...]:
    """Follow geodesics for some time: ``z̈ = -Γ(ż, ż)``, carrying vectors along in parallel, ``ẇ = -Γ(ż, w)``.

    Returns:
        End points, velocities there, and the transported vectors there; NaN for a geodesic that cannot be continued for
        so long, because it leaves the chart or the metric degenerates.
    """

    def field(state: Tensor) -> Tensor:
        point, speed, tangents = state[:, 0], state[:, 1], state[:, 1:]
        return torch.cat([speed.unsqueeze(1), -christoffel_batch(connection, point, speed, tangents)], 1)

    def size(state: Tensor) -> Tensor:
        own = state.abs().amax(2)
        # a point's error counts against the distance covered in unit time, wherever the origin is
        return torch.cat([own[:, 1:2], own[:, 1:]], 1)

    return integrate(
        field, torch.stack([z, velocity, *transported], 1), size, duration=duration, rtol=rtol, max_steps=max_steps
    ).unbind(1)


def arrive(
    equation: Equation, z: Float[Tensor, "b d"], velocity: Float[Tensor, "b d"], *transported: Float[Tensor, "b d"]
) -> tuple[Float[Tensor, "b d"], ...]:
    """`shoot` for unit time: by collocation, all of each geodesic at a time, where they are smooth.

    A geodesic is sketched piece by piece, and then solved for as a whole: all its times go through the manifold in one
    batch. What lies behind its first piece that does not settle is sketched anew, in shorter pieces; a geodesic with
    which that happens too often, as it does where second derivatives jump, is followed step by step from where it is.
    """
    state = torch.stack([z, velocity, *transported], 1)
    left = torch.ones_like(z[:, 0])
    acceleration = _acceleration(equation, z, velocity)
    # the time in which it turns by so much, if it goes on as it begins; a guess that is corrected
    time = (SETTINGS.turn * velocity.norm(dim=1) / acceleration.norm(dim=1)).nan_to_num(nan=1.0)
    soon = (SETTINGS.soon * time.clamp(max=1.0)).unsqueeze(1)
    after = _acceleration(equation, z + soon * (velocity + soon * acceleration / 2), velocity + soon * acceleration)
    outlook = Outlook.ahead(acceleration, (after - acceleration) / soon)
    worst = torch.full_like(left, torch.inf)
    most = torch.full_like(left, SETTINGS.ahead, dtype=torch.long)
    failed = torch.zeros_like(most)
    going = torch.isfinite(acceleration).all(1).nonzero().squeeze(1)
    for _ in range(SETTINGS.max_rounds):
        if not len(going):
            break
        found = sketch(
            equation, state[going, 0], state[going, 1], left[going], outlook[going], time[going], most[going]
        )
        pieces, errors = _solved(equation, found)
        fine = (SETTINGS.gained * errors[:, 1:] < SETTINGS.settled).cumprod(1)
        tangents = state[going, 2:]
        if transported:
            # what is not known is cut off
            stop = pieces.joints.gather(1, fine.sum(1, keepdim=True))
            tangents = transport_pieces(equation, replace(pieces, joints=pieces.joints.minimum(stop)), tangents)
            fine = fine * torch.isfinite(tangents).flatten(1).all(1, keepdim=True)
        reached = fine.sum(1)
        row = torch.arange(len(going), device=reached.device)
        arrived = reached > 0
        # pieces without duration are found as well
        all_found = (pieces.joints[row, reached] == pieces.joints[:, -1]) & arrived
        index = arrived.nonzero().squeeze(1)
        ends = pieces.states[row, reached]
        end = torch.cat([(pieces.origin + ends[:, 0]).unsqueeze(1), ends[:, 1:], tangents], 1)
        state = state.index_put((going[index],), end[index])
        last = pieces.piece(reached - 1)
        outlook = outlook.put(going[index], Outlook.behind(last[index]))
        # the first piece that was not found
        next_one = pieces.durations.squeeze(2)[row, reached.clamp(max=fine.shape[1] - 1)]
        time = time.index_put((going,), torch.where(all_found, found.time, SETTINGS.shorter * next_one))
        ahead = left[going] - pieces.joints[row, reached]
        there = all_found & (found.count < most[going]) & (ahead <= 1e-14)
        left = left.index_put((going,), torch.where(there, 0.0, ahead))
        # what is not smooth hardly becomes better
        first = errors[:, 1]
        rough = torch.isfinite(first) & (first > SETTINGS.slow * worst[going])
        few = ((SETTINGS.fewer * most[going]).long()).clamp(min=1)
        failed = failed.index_put(
            (going,), torch.where(arrived, 0, torch.where(rough, SETTINGS.patience, failed[going] + 1))
        )
        worst = worst.index_put((going,), torch.where(arrived, torch.inf, first))
        most = most.index_put((going,), torch.where(all_found, most[going], few))
        going = going[(left[going] > 0) & (failed[going] < SETTINGS.patience)]
    rest = (left > 0).nonzero().squeeze(1)
    if len(rest):
        begin = state[rest]
        # for unit time again
        scale = left[rest, None, None]
        ends = torch.stack(
            shoot(equation.manifold.connection, begin[:, 0], scale[:, 0] * begin[:, 1], *begin[:, 2:].unbind(1)), 1
        )
        ends = torch.cat([ends[:, :1], ends[:, 1:2] / scale, ends[:, 2:]], 1)
        state = state.index_put((rest,), ends)
    return state.unbind(1)


def _solved(equation: Equation, rough: Sketch) -> tuple[Pieces, Float[Tensor, "b J"]]:
    """The geodesics that sketches approximate, and their errors at joints."""
    slopes, force = rough.slopes, None
    if rough.pieces.origin.shape[1] < NEWTON.several:
        slopes, force = slopes_at(equation, rough.pieces)
    now, slopes, _ = newton(equation, rough.pieces, slopes, force, free=True, tol=SETTINGS.roughly)
    coarse = now.roughness > SETTINGS.resolved
    if bool(coarse.any()):
        finer = now.split(coarse)
        now, slopes = finer, slopes.between(now.joints, finer.joints)
    return settle(equation, now, slopes, free=True)


def _acceleration(equation: Equation, z: Tensor, u: Tensor) -> Float[Tensor, "b d"]:
    """``z̈`` of geodesics; NaN where there is none."""
    return -where_defined(lambda z, u: equation.manifold.connection(z, u, u), z.shape[1:], z, u)


def follow(
    equation: Equation,
    z: Float[Tensor, "b d"],
    velocity: Float[Tensor, "b d"],
    *transported: Float[Tensor, "b d"],
    ends: tuple[Float[Tensor, "b d"], ...] | None = None,
) -> tuple[Float[Tensor, "b d"], ...]:
    """`arrive`, differentiable to its arguments and to the weights behind the connection.

    Nothing is kept for the backward pass but the arguments: a graph through all steps would hold every activation of
    a decoder in each of them, whether or not a gradient is asked for. The backward pass follows the geodesics
    again.

    Args:
        equation: of the geodesics.
        z: where they begin.
        velocity: with which velocity.
        transported: tangents that go along.
        ends: what is returned, if that is known.

    Raises:
        GradModeError: reverse mode is on in a transform of ``torch.func``.
        GeometryError: in the backward pass, a geodesic has met jumps of the connection.
    """
    if ends is None:
        with torch.no_grad():
            ends = arrive(equation, z, velocity, *transported)
    connection = equation.manifold.connection
    if not torch.is_grad_enabled() or not len(z):
        return ends
    start = (z, velocity, *transported)
    weights = leaves(connection(z[:1].detach(), velocity[:1].detach(), velocity[:1].detach()))
    if not (weights or any(a.requires_grad for a in start)):
        return ends
    check_transforms("expmap", *start)
    followed: tuple[Tensor, ...] = _Followed.apply(connection, ends, len(start), *start, *weights)
    return followed


class _Followed(torch.autograd.Function):
    """Passes the ends of geodesics through; the backward pass shoots once more, with a graph."""

    @staticmethod
    def forward(
        ctx: Any, connection: Connection, ends: tuple[Tensor, ...], count: int, *inputs: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.connection, ctx.count = connection, count
        ctx.save_for_backward(*inputs)
        return tuple(end.clone() for end in ends)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        inputs, twice = ctx.saved_tensors, torch.is_grad_enabled()
        with torch.enable_grad():
            # what lies behind the arguments is the caller's, and not counted here
            start = [a.view_as(a) if twice else a.detach().requires_grad_(a.requires_grad) for a in inputs[: ctx.count]]
            # the derivative by the velocity is checked, whether or not it is asked for
            start[1] = start[1] if start[1].requires_grad else start[1].detach().requires_grad_()
            ends = shoot(ctx.connection, *start)
            of = [a for a in (*start, *inputs[ctx.count :]) if a.requires_grad]
            found = torch.autograd.grad(ends, of, cotangents, allow_unused=True, create_graph=twice, retain_graph=True)
        check_same_weights("the derivative of expmap", found[len(found) - len(inputs[ctx.count :]) :])
        gradients = dict(zip(map(id, of), found, strict=True))
        along = (gradients[id(start[1])] * start[1]).sum(1).detach()
        _check_along(ctx.connection, along, [end.detach() for end in ends], cotangents)
        behind = zip(inputs, (*start, *inputs[ctx.count :]), strict=True)
        return None, None, None, *(gradients[id(a)] if x.requires_grad else None for x, a in behind)


def _check_along(
    connection: Connection, along: Float[Tensor, " b"], ends: list[Tensor], cotangents: tuple[Tensor, ...]
) -> None:
    """`check_derivative` for a cotangent of all that is found at the end."""
    with torch.no_grad():
        rates = -christoffel_batch(connection, ends[0], ends[1], torch.stack(ends[1:], 1))
        rates[:, 0] += ends[1]
        known = torch.cat([ends[1].unsqueeze(1), rates], 1) * torch.stack(cotangents, 1)
        check_derivative("expmap", along - known.sum((1, 2)), known.abs().sum((1, 2)))


def check_derivative(where: str, error: Float[Tensor, " b"], size: Float[Tensor, " b"]) -> None:
    """Raise where automatic differentiation has passed over jumps of the connection.

    Where the initial velocity grows, a geodesic goes on along its own curve, so that this one derivative is known. A
    step that ends at a jump of the field does so at a time that depends on where the geodesic began, which automatic
    differentiation takes for constant: then this derivative is wrong, and with it all others.

    Args:
        where: whose derivative it is, for the message.
        error: of the derivative along the geodesic.
        size: what the error is relative to.

    Raises:
        GeometryError: there are such geodesics.
    """
    missed = error.abs() > SETTINGS.missed * size
    if bool(missed.any()):
        raise GeometryError(
            f"the derivative of {where}: {int(missed.sum())} of {len(missed)} geodesics, the first at index "
            f"{int(missed.nonzero()[0])}, cross jumps of the decoder's second derivatives, as ELU has them, and "
            "automatic differentiation does not see these move. Use an activation with continuous second derivatives, "
            "such as Softplus or SiLU. The derivatives of geodesic() and dist() are right all the same."
        )


def christoffel_batch(
    connection: Connection, z: Float[Tensor, "b d"], u: Float[Tensor, "b d"], tangents: Float[Tensor, "b k d"]
) -> Float[Tensor, "b k d"]:
    """``Γ(u, w)`` for several w at each point, in one call."""
    b, k, d = tangents.shape
    if k == 1:
        w = tangents.squeeze(1)
        # the same tensor twice: a connection may save half of its work
        return connection(z, u, u if torch.equal(u, w) else w).unsqueeze(1)
    points, velocities = (a.unsqueeze(1).expand(b, k, d).reshape(-1, d) for a in (z, u))
    return connection(points, velocities, tangents.reshape(-1, d)).reshape(b, k, d)
