"""Stars of curves, which begin in a common point, to second order in their nodes and in that point."""

from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pullgeo._torch.gradient_of import gradient_of
from pullgeo.geodesic.energy.base import DiscreteEnergy, MetricEnergy, QuadraticModel, relative_rounding
from pullgeo.geodesic.energy.gradient import slope as energy_slope
from pullgeo.geodesic.energy.near import near_energy, near_pairs
from pullgeo.numerics.batch import Batch, Grouped

S = TypeVar("S", bound="Star")

NEAR = 4
"""Segments from the common point that the derivatives with respect to it are computed from; the energy is local."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Curves(Batch):
    """Curves, but for where they begin.

    Attributes:
        inner: their inner nodes.
        z: where they end.
    """

    inner: Float[Tensor, "n m d"]
    z: Float[Tensor, "n d"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Star(Grouped):
    """Curves from p to z, of which those of one group share p.

    Attributes:
        p: the common points, one for each group.
        members: the curves.
    """

    p: Float[Tensor, "g d"]
    members: Curves

    @staticmethod
    def of(p: Tensor, inner: Tensor, z: Tensor, group: Tensor) -> "Star":
        """Curves from ``p[group]`` to ``z``."""
        return Star(p=p, members=Curves(inner=inner, z=z), group=group)

    @property
    def nodes(self) -> Float[Tensor, "n nodes d"]:
        """All nodes of each curve."""
        return torch.cat([self.p[self.group].unsqueeze(1), self.members.inner, self.members.z.unsqueeze(1)], 1)

    def sum(self, values: Float[Tensor, "n *rest"]) -> Float[Tensor, "g *rest"]:
        """Sums over groups."""
        return values.new_zeros(len(self.p), *values.shape[1:]).index_add(0, self.group, values)

    def most(self, values: Float[Tensor, " n"]) -> Float[Tensor, " g"]:
        """Largest value in each group."""
        return values.new_zeros(len(self.p)).scatter_reduce(0, self.group, values, "amax")

    def through(self: S, p: Float[Tensor, "g d"], inner: Float[Tensor, "n m d"]) -> S:
        """The same with other nodes."""
        return replace(self, p=p, members=replace(self.members, inner=inner))

    def rested(self: S) -> S:
        """The same with the curves between equal points at rest, whatever rounding errors a search has left there."""
        z = self.members.z
        same = (self.p[self.group] == z).all(1)
        return self.through(self.p, torch.where(same.view(-1, 1, 1), z.unsqueeze(1), self.members.inner))


@dataclass(frozen=True, eq=False)
class StarExpansion(Batch):
    """Energies of the curves of a star to second order.

    Attributes:
        at: the energies in their inner nodes.
        slope: ``∂E/∂p`` of each curve.
        own: ``∂²E/∂p²``.
        mixed: ``∂²E/∂x_j∂p`` for the inner nodes next to p; for all others it is zero.
    """

    at: QuadraticModel
    slope: Float[Tensor, "n d"]
    own: Float[Tensor, "n d d"]
    mixed: Float[Tensor, "n k d d"]


@dataclass(frozen=True, eq=False)
class Eliminated:
    """Each curve's system with its inner nodes eliminated: what is left of it at p.

    Attributes:
        good: whether the curve's own block is positive definite.
        slope: the derivative of the energy with respect to p, the curve following.
        schur: the second derivative: the Schur complement.
        respond: how the inner nodes follow a step of p, ``-H⁻¹ B``, one column after the other.
        relax: the step that they take by themselves.
    """

    good: Bool[Tensor, " n"]
    slope: Float[Tensor, "n d"]
    schur: Float[Tensor, "n d d"]
    respond: Float[Tensor, "d n m d"]
    relax: Float[Tensor, "n m d"]


def expand(space: DiscreteEnergy, star: Star) -> StarExpansion:
    """Energies to second order.

    A curve too short for differences of outputs has the energy of the metric, and is straight: its nodes have no say.
    What is left of its rounding error is that of p: as exact differences tell, not outputs.

    Cost: an expansion of all curves, as a geodesic's Newton step takes it, and d second-order passes over the nodes
    next to the common points.
    """
    nodes = star.nodes.detach()
    with torch.no_grad():
        at = space.expand_energy(nodes)
    return beside(space, nodes, at)


def beside(space: DiscreteEnergy, nodes: Float[Tensor, "n nodes d"], at: QuadraticModel) -> StarExpansion:
    """The expansion in the common points besides that in the inner nodes, which is known."""
    segments = nodes.shape[1] - 1
    short = nodes[:, : min(NEAR, segments) + 1].clone().requires_grad_()
    factor = segments / (short.shape[1] - 1)
    with torch.enable_grad():
        slope = gradient_of(space.energy(short), short, create_graph=True)[:, 0]
        rows = [gradient_of(slope[:, k], short, retain_graph=True) for k in range(nodes.shape[2])]
    second = factor * torch.stack(rows, 3)
    found = StarExpansion(at, factor * slope.detach(), second[:, 0], second[:, 1 : short.shape[1] - 1])
    return _known_by_metric(space, nodes, found)


def measured(space: DiscreteEnergy, star: Star, found: StarExpansion) -> StarExpansion:
    """Energies to first order, with second derivatives that are known already, to few digits perhaps.

    Args:
        space: what measures.
        star: the curves.
        found: their expansion nearby, of which all but the first derivatives is kept.

    Cost: a forward and a backward pass for each node.
    """
    nodes = star.nodes.detach()
    first = energy_slope(space, nodes)
    size = found.at.gradient.flatten(1).norm(dim=1)
    # a gradient that vanished has told no unit
    unit = torch.where(size > 0, found.at.residual / torch.where(size > 0, size, 1.0), torch.inf)
    left = first.gradient.flatten(1).norm(dim=1)
    at = replace(
        found.at,
        energy=first.energy,
        gradient=first.gradient,
        residual=torch.where(left > 0, unit * left, 0.0),
    )
    short = nodes[:, : min(NEAR, nodes.shape[1] - 1) + 1].clone().requires_grad_()
    with torch.enable_grad():
        slope = gradient_of(space.energy(short), short)[:, 0]
    factor = (nodes.shape[1] - 1) / (short.shape[1] - 1)
    return _known_by_metric(space, nodes, replace(found, at=at, slope=factor * slope))


def energies(space: DiscreteEnergy, nodes: Float[Tensor, "n nodes d"]) -> Float[Tensor, " n"]:
    """Energies of curves, those of very short ones by the metric; differentiable.

    Cost: the energies, and an expansion of curves with one inner node to see which are so short.
    """
    energy = space.energy(nodes)
    with torch.no_grad():
        at = space.expand_energy(nodes[:, [0, nodes.shape[1] // 2, -1]])
        near = near_pairs(space, nodes[:, 0], nodes[:, -1], at.energy, at.rounding, 2).index
    if not len(near) or not isinstance(space, MetricEnergy):
        return energy
    return energy.index_put((near,), near_energy(space, nodes[near, 0], nodes[near, -1]))


def _known_by_metric(space: DiscreteEnergy, nodes: Float[Tensor, "n nodes d"], found: StarExpansion) -> StarExpansion:
    """The expansion where points are too near to p for outputs; second derivatives do not suffer from that."""
    at = found.at
    near = near_pairs(space, nodes[:, 0], nodes[:, -1], at.energy, at.rounding, nodes.shape[1] - 1).index
    if not len(near) or not isinstance(space, MetricEnergy):
        return found
    z = nodes[near, -1]
    with torch.enable_grad():
        p = nodes[near, 0].clone().requires_grad_()
        energy = near_energy(space, p, z)
        slope = gradient_of(energy, p)
    energy, p = energy.detach(), p.detach()
    zero = torch.zeros_like(energy)
    changes = {
        "energy": energy,
        "gradient": torch.zeros_like(at.gradient[near]),
        "residual": zero,
        "rounding": relative_rounding(space.metric(p).quadratic(p.unsqueeze(0) / 2).squeeze(0), energy),
    }
    at = replace(at, **{name: getattr(at, name).index_put((near,), value) for name, value in changes.items()})
    return replace(found, at=at, slope=found.slope.index_put((near,), slope))


def eliminate(
    found: StarExpansion, damping: Float[Tensor, " n"], gradient: Tensor | None = None, slope: Tensor | None = None
) -> Eliminated:
    """Eliminate the inner nodes of every curve.

    Args:
        found: the energies.
        damping: for each curve, in units of the Gauss-Newton diagonal.
        gradient: with respect to the inner nodes, if other than the expansion's.
        slope: with respect to p, if other than the expansion's.
    """
    at = found.at
    gradient = at.gradient if gradient is None else gradient
    slope = found.slope if slope is None else slope
    k = found.mixed.shape[1]
    unit = at.damping.clamp(min=1e-12 * at.damping.flatten(1).amax(1)[:, None, None])
    factor = at.hessian.shifted(damping.view(-1, 1, 1) * unit).cholesky()
    rest = at.gradient.shape[1] - k
    columns = [torch.nn.functional.pad(column, (0, 0, 0, rest)) for column in found.mixed.unbind(3)]
    respond = torch.stack([-factor.solve(column) for column in columns])
    relax = -factor.solve(gradient)
    near = respond[:, :, :k]
    schur = found.own + torch.einsum("nkai,jnka->nij", found.mixed, near)
    total_pull = slope + torch.einsum("nkai,nka->ni", found.mixed, relax[:, :k])
    return Eliminated(factor.good, total_pull, (schur + schur.mT) / 2, respond, relax)
