"""Curves in pieces, as collocation solves for them."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pullgeo.curve.discrete import DiscreteCurve
from pullgeo.numerics.batch import Batch
from pullgeo.numerics.ode.gauss_legendre import Gauss, gauss
from pullgeo.numerics.ode.piecewise import STAGES, interpolated, like, located, picked, resampled, weights

NEGLIGIBLE = 1e-12
"""Relative roughness of a piece below which it need not be shorter."""


@dataclass(frozen=True, eq=False)
class Pieces(Batch):
    """Curves in S pieces, ``z̈`` a polynomial through s values on each.

    Points are displacements from where the curve begins: those of a short curve are known to all digits, wherever the
    origin of the chart is.

    Attributes:
        joints: times at which pieces begin, and 1.
        origin: where the curves begin.
        points: where the pieces begin, relative to the origin.
        velocities: those there.
        accelerations: ``z̈`` at Gauss's points.
        target: where the last piece shall end, relative to the origin; not used where the end is free.
    """

    joints: Float[Tensor, "b J"]
    origin: Float[Tensor, "b d"]
    points: Float[Tensor, "b S d"]
    velocities: Float[Tensor, "b S d"]
    accelerations: Float[Tensor, "b S s d"]
    target: Float[Tensor, "b d"]

    @staticmethod
    def through(origin: Float[Tensor, "b d"], curve: DiscreteCurve, pieces: int) -> "Pieces":
        """Pieces of equal duration on given curves, whose nodes are displacements from the origin."""
        nodes = curve.nodes
        t = torch.linspace(0, 1, pieces + 1, dtype=nodes.dtype, device=nodes.device)
        inner = (t[:-1, None] + like(gauss(STAGES).points, nodes) / pieces).flatten()
        accelerations = curve.acceleration(inner).unflatten(1, (pieces, STAGES))
        points = torch.cat([curve.begin.unsqueeze(1), curve(t[1:-1])], 1)
        return Pieces(t.expand(len(curve), -1), origin, points, curve.velocity(t[:-1]), accelerations, curve.end)

    def with_accelerations(self, accelerations: Float[Tensor, "b S s d"], *, free: bool) -> "Pieces":
        """Curves with these accelerations that begin with the same velocity; unless free, they end at the target."""
        at = _integrated(self.joints, self.origin, self.velocities[:, 0], accelerations)
        if free:
            return at
        missed = self.target - at.target
        points = at.points + self.joints[:, :-1, None] * missed.unsqueeze(1)
        return replace(at, points=points, velocities=at.velocities + missed.unsqueeze(1), target=self.target)

    @property
    def rule(self) -> Gauss:
        """The quadrature at the points of each piece."""
        return gauss(self.accelerations.shape[2])

    @property
    def durations(self) -> Float[Tensor, "b S 1"]:
        """Of the pieces."""
        return self.joints.diff(dim=1).unsqueeze(2)

    @property
    def stages(self) -> tuple[Float[Tensor, "b S s d"], Float[Tensor, "b S s d"]]:
        """Displacements and velocities at Gauss's points."""
        rule, h = self.rule, self.durations.unsqueeze(3)
        inner, c = like(rule.inner, self.accelerations), like(rule.points, self.accelerations).view(-1, 1)
        turned = h * torch.einsum("ml,bSld->bSmd", inner, self.accelerations)
        u, z = self.velocities.unsqueeze(2), self.points.unsqueeze(2)
        return z + h * (c * u + torch.einsum("ml,bSld->bSmd", inner, turned)), u + turned

    @property
    def ends(self) -> Float[Tensor, "b S 2 d"]:
        """Displacements and velocities where pieces end."""
        rule, h = self.rule, self.durations
        outer = like(rule.outer, self.accelerations)
        speed = self.velocities + h * torch.einsum("m,bSmd->bSd", outer, self.accelerations)
        there = torch.einsum("m,bSmd->bSd", outer @ like(rule.inner, outer), self.accelerations)
        return torch.stack([self.points + h * (self.velocities + h * there), speed], 2)

    @property
    def states(self) -> Float[Tensor, "b J 2 d"]:
        """Displacements and velocities at joints, the last as the last piece ends."""
        return torch.cat([torch.stack([self.points, self.velocities], 2), self.ends[:, -1:]], 1)

    @property
    def gaps(self) -> Float[Tensor, "b S 2 d"]:
        """From where pieces should end to where they do; the last velocity is free."""
        ends = self.ends
        starts = torch.stack([self.points, self.velocities], 2)[:, 1:]
        last = torch.stack([self.target, ends[:, -1, 1]], 1).unsqueeze(1)
        return ends - torch.cat([starts, last], 1)

    @property
    def size(self) -> Float[Tensor, " b"]:
        """The largest velocity in the chart: lengths that errors are compared with."""
        return self.velocities.norm(dim=2).amax(1).clamp(min=torch.finfo(self.points.dtype).tiny)

    @property
    def roughness(self) -> Float[Tensor, "b S"]:
        """What the two highest degrees make of the change of each piece's velocity, relative to the velocity."""
        top = torch.einsum("km,bSmd->bSkd", like(self.rule.legendre[-2:], self.accelerations), self.accelerations)
        return self.durations.squeeze(2) * top.norm(dim=3).sum(2) / self.size.unsqueeze(1)

    def finer_joints(self, pieces: int) -> Float[Tensor, "b K"]:
        """The joints of so many pieces on which ``z̈`` is equally far from a polynomial of lower degree.

        Source: Ascher, Mattheij, Russell, *Numerical Solution of Boundary Value Problems*, section 9.2.
        """
        h, rough = self.durations.squeeze(2), self.roughness
        # what is interpolated by s values is off by the s-th power of the duration
        density = (rough + NEGLIGIBLE).nan_to_num(nan=1.0, posinf=1.0) ** (1 / self.accelerations.shape[2]) / h
        # neighbours differ little, and no piece becomes longer than two evenly spread ones
        pad = torch.cat([density[:, :1], density, density[:, -1:]], 1)
        density = torch.stack([density, pad[:, :-2] / 2, pad[:, 2:] / 2]).amax(0)
        density = density + (density * h).sum(1, keepdim=True)
        share = torch.cat([torch.zeros_like(h[:, :1]), (density * h).cumsum(1)], 1)
        share = share / share[:, -1:]
        wanted = torch.linspace(0, 1, pieces + 1, dtype=h.dtype, device=h.device).expand(len(h), -1).contiguous()
        place = (torch.searchsorted(share.contiguous(), wanted, right=True) - 1).clamp(0, h.shape[1] - 1)
        left, width = share.gather(1, place), share.diff(dim=1).gather(1, place)
        joints = self.joints.gather(1, place) + (wanted - left) / width * h.gather(1, place)
        return torch.cat([wanted[:, :1], joints[:, 1:-1], wanted[:, -1:]], 1)

    def at(self, joints: Float[Tensor, "b K"]) -> "Pieces":
        """The same curves in other pieces."""
        place, local = located(self.joints, joints[:, :-1])
        _, once, twice = (
            torch.einsum("bRm,bRmd->bRd", w, picked(self.accelerations, place))
            for w in weights(local, self.accelerations.shape[2])
        )
        points, velocities = (picked(a, place) for a in (self.points, self.velocities))
        h, t = picked(self.durations, place), local.unsqueeze(2)
        return Pieces(
            joints,
            self.origin,
            points + h * (t * velocities + h * twice),
            velocities + h * once,
            interpolated(self.accelerations, self.joints, joints),
            self.target,
        )

    def piece(self, number: Int[Tensor, " b"]) -> "Pieces":
        """One piece of each curve."""
        row = torch.arange(len(number), device=number.device)
        ends = torch.stack([number, number + 1], 1)
        joints = self.joints.gather(1, ends % self.joints.shape[1])
        points, velocities, accelerations = (
            a[row, number].unsqueeze(1) for a in (self.points, self.velocities, self.accelerations)
        )
        return Pieces(joints, self.origin, points, velocities, accelerations, self.target)

    def split(self, chosen: Bool[Tensor, "b S"]) -> "Pieces":
        """The same curves with some of their pieces halved; others may get pieces of no duration at their end."""
        middle = (self.joints[:, :-1] + self.joints[:, 1:]) / 2
        joints = torch.cat([self.joints, torch.where(chosen, middle, self.joints[:, -1:])], 1).sort(1).values
        return self.at(joints[:, : self.joints.shape[1] + int(chosen.sum(1).max())])

    def refined(self, stages: int) -> "Pieces":
        """The same curves at more Gauss points."""
        return replace(self, accelerations=resampled(self.accelerations, stages))

    def away_from(self, other: "Pieces") -> Float[Tensor, " b"]:
        """The largest relative difference of the velocities at both ends, where collocation is most exact."""
        ours, theirs = (a.states[:, [0, -1], 1] for a in (self, other))
        return ((ours - theirs).norm(dim=2) / ours.norm(dim=2)).amax(1)

    def moved(self, step: "Pieces", damping: Float[Tensor, " b"]) -> "Pieces":
        """The same with a part of a correction."""
        z, u, accelerations = (
            old + damping.view(-1, *[1] * (old.ndim - 1)) * new
            for old, new in _pairs(self, step, "points", "velocities", "accelerations")
        )
        return replace(self, points=z, velocities=u, accelerations=accelerations)

    def collocated(self, error: Float[Tensor, " b"]) -> "Collocated":
        """The curves with their errors, as they are returned."""
        z, u = (a.flatten(1, 2) for a in self.stages)
        begin = self.origin.unsqueeze(1)
        z, u = torch.cat([begin, begin + z], 1), torch.cat([self.velocities[:, :1], u], 1)
        return Collocated(self, z, u, error)

    @property
    def curve(self) -> DiscreteCurve:
        """The curves through as many equidistant nodes as there are joints."""
        even = torch.linspace(0, 1, self.joints.shape[1], dtype=self.points.dtype, device=self.points.device)
        nodes = torch.cat([self.at(even.expand_as(self.joints)).points, self.target.unsqueeze(1)], 1)
        return DiscreteCurve(self.origin.unsqueeze(1) + nodes)


@dataclass(frozen=True, eq=False)
class Collocated:
    """What collocation found.

    Attributes:
        pieces: the curves.
        points: on the curves, the first at the beginning; the other times are each curve's own.
        velocities: there.
        error: of the velocities at both ends, relative to these; see `settle`. Infinite where nothing was found.
    """

    pieces: Pieces
    points: Float[Tensor, "b n d"]
    velocities: Float[Tensor, "b n d"]
    error: Float[Tensor, " b"]


def _integrated(joints: Tensor, origin: Tensor, velocity: Tensor, accelerations: Float[Tensor, "b S s d"]) -> Pieces:
    """Pieces without gaps that begin with given velocities; the target is where they end."""
    rule, h = gauss(accelerations.shape[2]), joints.diff(dim=1).unsqueeze(2)
    outer = like(rule.outer, accelerations)
    gained = h * torch.einsum("m,bSmd->bSd", outer, accelerations)
    after = velocity.unsqueeze(1) + gained.cumsum(1)
    before = torch.cat([velocity.unsqueeze(1), after[:, :-1]], 1)
    way = h * (before + h * torch.einsum("m,bSmd->bSd", outer @ like(rule.inner, outer), accelerations))
    there = way.cumsum(1)
    points = torch.cat([torch.zeros_like(there[:, :1]), there[:, :-1]], 1)
    return Pieces(joints, origin, points, before, accelerations, there[:, -1])


def _pairs(one: Pieces, other: Pieces, *names: str) -> list[tuple[Tensor, Tensor]]:
    return [(getattr(one, name), getattr(other, name)) for name in names]
