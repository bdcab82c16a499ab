"""Geodesics and parallel transport from initial values, for any connection."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo._torch.grad_mode import check_same_weights, check_transforms, leaves
from pullgeo.errors import GeometryError
from pullgeo.manifold.bvp.outlook import Outlook
from pullgeo.manifold.bvp.stretch import SETTINGS as POLYNOMIAL
from pullgeo.manifold.bvp.stretch import stretch
from pullgeo.manifold.bvp.transport import transport_pieces
from pullgeo.manifold.equation import Equation
from pullgeo.numerics.bisect_batch import where_defined
from pullgeo.numerics.ode.dop853 import MAX_STEPS, RTOL, integrate

Connection = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``(z, u, w) -> Γ(u, w)`` at points ``(b, d)``."""


@dataclass(frozen=True)
class StretchSettings:
    """How geodesics are cut into stretches of one polynomial each.

    Attributes:
        turn: the first stretch takes the time in which a geodesic would turn by so much, relative to its velocity. Set
            by hand; every stretch corrects it.
        soon: after this part of it, ``z̈`` is looked at again for its derivative. Between rounding errors of the
            difference and what changes of it.
        settled: relative error of a stretch that is small enough. A tenth of what `Manifold.expmap` promises, as errors
            add up.
        margin: what of the length that the error allows is taken. Set by hand.
        shorter: the least factor from one stretch to the next. Set by hand.
        longer: the largest factor. Set by hand.
        not_exact: the largest factor after a solution that was not good enough. Set by hand.
        not_solved: the same after none was found. Set by hand.
        relaxed: what has failed is a bound, which grows by this factor with every stretch that succeeds. Set by hand.
        easy: relative residual of a guess from which a solution is found soon. Set by hand.
        slow: a shorter stretch of a smooth geodesic has less than this part of the error. Smooth ones have far less:
            the method is of order 24.
        nearly_all: a stretch that is so much of what is left is all of it. A short rest costs as much as a whole
            stretch.
        patience: so many stretches may fail one after the other. Set by hand.
        max_stretches: stretches of a geodesic at most. Set by hand.
        missed: relative error of a derivative along the geodesic, which is known, that shows that others are wrong too.
            Far above what these derivatives are exact to.
    """

    turn: float = 2.0
    soon: float = 1e-4
    settled: float = 1e-10
    margin: float = 0.9
    shorter: float = 0.2
    longer: float = 3.0
    not_exact: float = 0.8
    not_solved: float = 0.5
    relaxed: float = 1.3
    easy: float = 0.2
    slow: float = 0.1
    nearly_all: float = 0.9
    patience: int = 5
    max_stretches: int = 400
    missed: float = 1e-4


SETTINGS = StretchSettings()


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
    """`shoot` for unit time: by collocation, a long stretch of each geodesic at a time, where they are smooth.

    All times of a stretch go through the manifold in one batch. Stretches that do not settle are made shorter; a
    geodesic with which that happens too often, as it does where second derivatives jump, is followed step by step from
    where it is.
    """
    state = torch.stack([z, velocity, *transported], 1)
    left = torch.ones_like(z[:, 0])
    acceleration = _acceleration(equation, z, velocity)
    # the time in which it turns by so much, if it goes on as it begins; a guess that is corrected
    time = (SETTINGS.turn * velocity.norm(dim=1) / acceleration.norm(dim=1)).nan_to_num(nan=1.0)
    soon = (SETTINGS.soon * time.clamp(max=1.0)).unsqueeze(1)
    after = _acceleration(equation, z + soon * (velocity + soon * acceleration / 2), velocity + soon * acceleration)
    outlook = Outlook.ahead(acceleration, (after - acceleration) / soon)
    bound, worst = torch.full_like(left, torch.inf), torch.full_like(left, torch.inf)
    failed = torch.zeros_like(left, dtype=torch.long)
    going = torch.isfinite(acceleration).all(1).nonzero().squeeze(1)
    for _ in range(SETTINGS.max_stretches):
        if not len(going):
            break
        ahead, here = left[going], outlook[going]
        now = torch.minimum(time[going], here.longest)
        # nothing short is left at the end
        now = torch.where(now > SETTINGS.nearly_all * ahead, ahead, now)
        h = now.view(-1, 1, 1)
        found = stretch(
            equation,
            state[going, 0],
            (h * state[going, 1:2]).squeeze(1),
            h * h * here.accelerations(now, POLYNOMIAL.coarse),
        )
        index = (found.error < SETTINGS.settled).nonzero().squeeze(1)
        pieces = found.pieces[index]
        tangents = state[going[index], 2:]
        if transported:
            tangents = transport_pieces(equation, pieces, tangents)
        ends = pieces.ends[:, -1]
        end = torch.cat([(pieces.origin + ends[:, 0]).unsqueeze(1), ends[:, 1:] / h[index], tangents], 1)
        fine = torch.isfinite(end).flatten(1).all(1)
        index, pieces, end = index[fine], pieces[fine], end[fine]
        arrived = torch.zeros_like(now, dtype=torch.bool).index_put((index,), fine.new_ones(len(index)))
        # what is good enough, and what is found soon
        factor = torch.minimum(
            SETTINGS.margin * (SETTINGS.settled**0.5 / found.tail) ** (1 / POLYNOMIAL.fine),
            (SETTINGS.easy / found.guessed) ** (1 / 3),
        )
        most = torch.where(
            arrived, SETTINGS.longer, torch.where(torch.isfinite(found.error), SETTINGS.not_exact, SETTINGS.not_solved)
        )
        factor = torch.minimum(factor.nan_to_num(nan=SETTINGS.shorter), most).clamp(min=SETTINGS.shorter)
        limit = torch.where(found.guessed < SETTINGS.easy, factor * now, SETTINGS.relaxed * bound[going])
        limit = torch.where(arrived, SETTINGS.relaxed * bound[going], limit)
        bound = bound.index_put((going,), limit)
        time = time.index_put((going,), torch.minimum(factor * now, limit))
        # what is not smooth hardly becomes better
        rough = torch.isfinite(found.error) & (found.error > SETTINGS.slow * worst[going])
        failed = failed.index_put(
            (going,), torch.where(arrived, 0, torch.where(rough, SETTINGS.patience, failed[going] + 1))
        )
        worst = worst.index_put((going,), torch.where(arrived, torch.inf, found.error))
        left = left.index_put((going,), torch.where(arrived, torch.where(now < ahead, ahead - now, 0.0), ahead))
        state = state.index_put((going[index],), end)
        outlook = outlook.put(going[index], Outlook.behind(pieces, now[index]))
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
