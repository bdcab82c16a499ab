"""Newton's method without matrices, for curves in so many dimensions that the Hessian's blocks are not to be held."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pullgeo._torch.gradient_of import gradient_of
from pullgeo.geodesic.descent.newton import ROUNDING_MARGIN, Descent, descend
from pullgeo.geodesic.energy.base import DiscreteEnergy, MetricEnergy, scale_free
from pullgeo.geodesic.energy.gradient import slope
from pullgeo.geodesic.energy.near import squared_lengths
from pullgeo.geodesic.solution import Status
from pullgeo.geodesic.solver import SearchResult, statuses
from pullgeo.numerics.batch import Batch
from pullgeo.numerics.bisect_batch import where_defined
from pullgeo.numerics.chunking import HESSIANS
from pullgeo.numerics.damped_newton import Damping, Iterate, damped_newton, judged

LARGE = 150
"""Dimension from which on matrix-free steps are taken."""

DAMPING = Damping(first=1e-3, growth=2.0, acceleration=2.0, least=1e-12)
"""In units of the metric."""


@dataclass(frozen=True)
class ConjugateGradientSettings:
    """How systems are solved without matrices.

    Attributes:
        loose: largest relative residual to which a linear system is solved; the nearer the solution, the smaller. Set
            by hand.
        rounds: bound on the conjugate gradient steps for one linear system. Set by hand.
        probes: random directions in which the size of the metric is measured. The size is needed to a factor of two.
        samples: nodes whose metrics are averaged for the preconditioner.
        bend: curvature that the preconditioner assumes everywhere, in units of the least that a metric of average size
            causes: second derivatives of the map bend the energy also where the metric is singular.
        stale: rounds for one system after which the average metric is computed anew.
        patience: rounds in all, in units of d, after which Hessians are written out: they cost about as much as d / 2
            rounds, and a descent takes some ten of them.
        memory: bytes that the Hessian of a curve, with its factors, may take for that.
    """

    loose: float = 0.1
    rounds: int = 200
    probes: int = 4
    samples: int = 4
    bend: float = 1e-5
    stale: int = 30
    patience: float = 4.0
    memory: int = 2**32


SETTINGS = ConjugateGradientSettings()


Apply = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Spectrum(Batch):
    """The average metric of curves, ``V diag(λ) Vᵀ``, in the unit of the metrics' own sizes: the mean of λ is 1.

    Attributes:
        values: λ; all 1 for spaces without metric tensors, and where there is none.
        frame: V; ``None`` for spaces without metric tensors.
    """

    values: Float[Tensor, "p d"]
    frame: Float[Tensor, "p d d"] | None

    @staticmethod
    def of(space: DiscreteEnergy, nodes: Float[Tensor, "p n d"]) -> "Spectrum":
        """Cost: the metric at a few nodes of each curve, and the eigenvectors of a matrix ``(d, d)``."""
        p, n, d = nodes.shape
        if not isinstance(space, MetricEnergy):
            return Spectrum(torch.ones_like(nodes[:, 0]), None)
        few = torch.linspace(1, n - 2, SETTINGS.samples).round().long().unique()
        z = nodes.detach()[:, few].flatten(0, 1)
        with torch.no_grad():
            metrics = where_defined(lambda z: space.metric(z).dense(), (d, d), z).unflatten(0, (p, len(few)))
        mean = (metrics / metrics.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]).mean(1)
        lost = ~torch.isfinite(mean).flatten(1).all(1)
        mean[lost] = torch.eye(d, dtype=mean.dtype, device=mean.device)
        return Spectrum(*torch.linalg.eigh(mean))


@dataclass(frozen=True, eq=False)
class Slope:
    """The energy of curves to first order, with products of its Hessian.

    Attributes:
        energy: ``E``.
        gradient: with respect to the inner nodes.
        hessian: ``v -> H v``, exact, by differentiating the gradient once more.
        weight: ``tr G / d`` at the inner nodes, estimated in a few random directions.
        residual: the gradient in a unit that no rescaling changes; see `scale_free`.
    """

    energy: Float[Tensor, " p"]
    gradient: Float[Tensor, "p m d"]
    hessian: Apply
    weight: Float[Tensor, "p m"]
    residual: Float[Tensor, " p"]

    @staticmethod
    def at(space: DiscreteEnergy, nodes: Float[Tensor, "p n d"]) -> "Slope":
        """Cost: a forward and a backward pass for each node; as much again, twice, for each product."""
        segments, d = nodes.shape[1] - 1, nodes.shape[2]
        with torch.enable_grad():
            x = nodes.detach().requires_grad_()
            energy = space.energy(x)
            gradient = gradient_of(energy, x, create_graph=True)

        def hessian(v: Tensor) -> Tensor:
            with torch.enable_grad():
                along = gradient * torch.nn.functional.pad(v, (0, 0, 1, 1))
            return gradient_of(along, x, retain_graph=True)[:, 1:-1]

        inner = gradient.detach()[:, 1:-1]
        weight = _weight(space, x.detach())
        stretch, value = d * weight.amax(1), energy.detach()
        return Slope(value, inner, hessian, weight, scale_free(inner / (2 * segments), stretch, value / segments))

    def preconditioner(self, damping: Float[Tensor, " p"], spectrum: Spectrum) -> Apply:
        """``(K ⊗ G + damping)⁻¹`` with the second difference K and every metric a multiple of their average.

        Sines diagonalise K, and the average's eigenvectors G, so a product costs four matrix products.
        """
        m = self.weight.shape[1]
        k = torch.arange(1, m + 1, dtype=self.weight.dtype, device=self.weight.device)
        sines = torch.sin(torch.outer(k, k) * (math.pi / (m + 1))) * math.sqrt(2 / (m + 1))
        values = 2 - 2 * torch.cos(k * (math.pi / (m + 1)))
        sizes = values[:, None] * spectrum.values.clamp(min=0).unsqueeze(1) + SETTINGS.bend * values[0]
        inverse = 1 / (2 * (m + 1) * (sizes + 2 * damping[:, None, None]))
        root, frame = self._floored().rsqrt().unsqueeze(2), spectrum.frame

        def apply(v: Tensor) -> Tensor:
            if frame is None:
                return root * (sines @ (inverse * (sines @ (root * v))))
            return root * (sines @ ((inverse * (sines @ (root * v) @ frame)) @ frame.mT))

        return apply

    def damped(self, damping: Float[Tensor, " p"]) -> Apply:
        """``v -> (H + λD) v``."""
        diagonal = damping[:, None, None] * self.unit()
        return lambda v: self.hessian(v) + diagonal * v

    def unit(self) -> Float[Tensor, "p m 1"]:
        """The diagonal in whose unit damping is measured: that of the Gauss-Newton matrix, ``4 T tr G / d``."""
        return 4 * (self.weight.shape[1] + 1) * self._floored().unsqueeze(2)

    def _floored(self) -> Float[Tensor, "p m"]:
        most = self.weight.amax(1, keepdim=True)
        return self.weight.clamp(min=torch.finfo(most.dtype).tiny).maximum(1e-12 * most)


def descend_free(space: DiscreteEnergy, nodes: Float[Tensor, "p n d"], tol: float, max_steps: int) -> SearchResult:
    """Minimise the energy of each curve by truncated Newton steps.

    A step solves ``(H + λD) s = -g`` by preconditioned conjugate gradients, no more exactly than pays; where a
    direction of negative curvature shows, the step so far is taken and λ grows. Curves step together, each with its
    own λ, and those that are done are left out. A curve whose systems are so badly conditioned that rounds cost more
    than factors would, goes on with Hessians that are written out, if these fit into memory.

    Source: Nocedal, Wright, *Numerical Optimization*, section 7.1 (Newton-CG), with damping.

    Cost: for each step one gradient and, for each round of conjugate gradients, one product with the Hessian; memory
    of a forward and a backward pass over all nodes, and of a matrix ``(d, d)`` for each curve.
    """
    d = nodes.shape[2]
    # without curves there is one part all the same
    parts = HESSIANS.split(nodes, each=16 * SETTINGS.samples * d * d)
    return SearchResult.cat([_descend_free(space, part, tol, max_steps) for (part,) in parts])


def _descend_free(space: DiscreteEnergy, nodes: Float[Tensor, "p n d"], tol: float, max_steps: int) -> SearchResult:
    n, d = nodes.shape[1:]
    none = torch.zeros(len(nodes), dtype=torch.long, device=nodes.device)
    found = _judged(space, nodes, Slope.at(space, nodes), tol, none, order_of(space, nodes))
    begun = _Curves(
        found=found, spectrum=Spectrum.of(space, nodes), rounds=none, last=none, **DAMPING.begin(found.energy)
    )
    patience = SETTINGS.patience * d if 80 * n * d * d <= SETTINGS.memory else math.inf
    ended = damped_newton(_FreeDescent(space, tol, patience), begun, DAMPING, max_steps)
    found = replace(ended.found, iterations=ended.steps)
    found = found.ending(~found.converged & (ended.damping > DAMPING.limit), Status.STALLED)
    open_ = ~found.converged & ~found.ended(Status.STALLED, Status.NON_FINITE) & (ended.steps < max_steps)
    for i in open_.nonzero().squeeze(1).split(HESSIANS.rows(80 * n * d * d)):
        begin = replace(Descent.begin(space, found.nodes[i]), steps=found.iterations[i])
        found = found.put(i, descend(space, begin, tol, max_steps).result(tol))
    return found


@dataclass(frozen=True, eq=False, kw_only=True)
class _Curves(Iterate):
    """Curves, their average metrics, and the rounds that systems took: in all, and the last one."""

    found: SearchResult
    spectrum: Spectrum
    rounds: Int[Tensor, " p"]
    last: Int[Tensor, " p"]


@dataclass(frozen=True, eq=False)
class _FreeDescent:
    """Steps by conjugate gradients, until they have taken so many rounds that factors are cheaper."""

    space: DiscreteEnergy
    tol: float
    patience: float

    def done(self, now: _Curves) -> Bool[Tensor, " p"]:
        dear = (now.rounds > self.patience) | ((now.last >= SETTINGS.rounds) & math.isfinite(self.patience))
        return now.found.converged | now.found.ended(Status.NON_FINITE) | dear

    def step(self, now: _Curves) -> tuple[_Curves, Tensor, Tensor]:
        x, found, spectrum = now.found.nodes, now.found, now.spectrum
        at = Slope.at(self.space, x)
        if bool((now.last > SETTINGS.stale).any()):
            spectrum = Spectrum.of(self.space, x)
        goal = at.residual.sqrt().clamp(max=SETTINGS.loose)
        step, indefinite, product, rounds = conjugate_gradients(
            at.damped(now.damping), at.preconditioner(now.damping, spectrum), -at.gradient, goal
        )
        predicted = -(at.gradient * step).flatten(1).sum(1) - (step * product).flatten(1).sum(1) / 2
        predicted = predicted + now.damping * (at.unit() * step.square()).flatten(1).sum(1) / 2
        trial = torch.cat([x[:, :1], x[:, 1:-1] + step, x[:, -1:]], 1)
        new = _judged(self.space, trial, Slope.at(self.space, trial), self.tol, found.iterations, found.order)
        noise = at.energy * (4 * torch.finfo(x.dtype).eps + ROUNDING_MARGIN * new.rounding)
        good, factor = judged(at.energy, new.energy, predicted, noise, new.residual < at.residual)
        good = good & torch.isfinite(new.residual)
        moved = now.changed(found=new.where(good, found), spectrum=spectrum, rounds=now.rounds + rounds, last=rounds)
        return moved, good, torch.where(indefinite, 2.0, factor)


def conjugate_gradients(
    product: Apply, precondition: Apply, right: Float[Tensor, "p m d"], goal: Float[Tensor, " p"]
) -> tuple[Float[Tensor, "p m d"], Bool[Tensor, " p"], Float[Tensor, "p m d"], Int[Tensor, " p"]]:
    """Solve p systems at once, each to its own relative residual.

    Returns:
        The solutions; whether a system showed negative curvature, where its solution is what was reached before, or
        the first direction; the products with the solutions; and how many rounds each took, which are the most allowed
        where it was not solved.

    Source: Steihaug, *The Conjugate Gradient Method and Trust Regions in Large Scale Optimization*, 1983.
    """
    x, ax, r = torch.zeros_like(right), torch.zeros_like(right), right
    z = precondition(r)
    direction, rz = z, _dot(r, z)
    target = goal**2 * rz
    active = rz > 0
    indefinite, rounds = torch.zeros_like(active), torch.zeros_like(active, dtype=torch.long)
    for number in range(SETTINGS.rounds):
        if not bool(active.any()):
            break
        rounds = rounds + active
        image = product(direction)
        curvature = _dot(direction, image)
        negative = active & ~(curvature > 0)
        indefinite = indefinite | negative
        first = negative & (number == 0)
        go = active & ~negative
        alpha = torch.where(go, rz / torch.where(go, curvature, 1.0), torch.where(first, 1.0, 0.0))[:, None, None]
        x, ax = x + alpha * direction, ax + alpha * image
        r = r - alpha * image
        z = precondition(r)
        new = _dot(r, z)
        active = go & (new > target)
        direction = z + (new / torch.where(rz > 0, rz, 1.0))[:, None, None] * direction
        rz = new
    return x, indefinite, ax, rounds


def assess_free(
    space: DiscreteEnergy, nodes: Float[Tensor, "p n d"], tol: float, steps: Int[Tensor, " p"]
) -> SearchResult:
    """Energy, residual and status of curves as they are, and half the Newton decrement as their energies' excess."""
    at = Slope.at(space, nodes)
    found = _judged(space, nodes, at, tol, steps, order_of(space, nodes))
    none = torch.zeros_like(at.energy)
    precondition = at.preconditioner(none, Spectrum.of(space, nodes))
    step, indefinite, *_ = conjugate_gradients(
        at.hessian, precondition, at.gradient, torch.full_like(none, SETTINGS.loose / 10)
    )
    decrement = (at.gradient * step).flatten(1).sum(1) / 2
    unknown = torch.where(found.converged, 0.0, torch.inf)
    known = ~indefinite & torch.isfinite(decrement)
    return replace(found, excess=torch.where(known, decrement.clamp(min=0), unknown))


def solve_free(
    space: DiscreteEnergy, nodes: Float[Tensor, "p n d"], v: Float[Tensor, "p m d"]
) -> Float[Tensor, "p m d"]:
    """``H⁻¹ v`` with the energy's Hessian at curves that minimise it, to ten digits."""
    at = Slope.at(space, nodes)
    none = torch.zeros_like(at.energy)
    precondition = at.preconditioner(none, Spectrum.of(space, nodes))
    return conjugate_gradients(at.hessian, precondition, v, torch.full_like(none, 1e-10))[0]


def _judged(space: DiscreteEnergy, nodes: Tensor, at: Slope, tol: float, steps: Tensor, order: int) -> SearchResult:
    """What is known of curves: how far from stationary they are, and how far rounding errors alone may take them."""
    numbers = torch.finfo(nodes.dtype)
    # the same curves with the last bit of every coordinate changed
    signs = _signs(nodes.shape[1:], nodes)
    shaken = slope(space, nodes * (1 + numbers.eps * signs))
    noise = (shaken.gradient - at.gradient).flatten(1).norm(dim=1) / at.gradient.flatten(1).norm(dim=1)
    rounding = torch.where(torch.isfinite(noise), noise * at.residual, 0.0)
    pieces = space.chord_lengths(nodes.unsqueeze(2)).flatten(1)
    speed = pieces.amax(1) / pieces.median(1).values.clamp(min=numbers.tiny)
    status = statuses(
        Status.MAX_STEPS,
        (Status.ROUNDING, at.residual <= (ROUNDING_MARGIN * rounding).clamp(max=1e-3)),
        (Status.CONVERGED, at.residual <= tol),
        (Status.NON_FINITE, ~(torch.isfinite(at.energy) & torch.isfinite(at.gradient).flatten(1).all(1))),
    )
    return SearchResult(nodes, at.energy, at.residual, rounding, speed, steps, status, order)


def _weight(space: DiscreteEnergy, nodes: Tensor) -> Float[Tensor, "p m"]:
    """``tr G / d`` at the inner nodes.

    Differences of nearly equal outputs are left to spaces that have no metric tensors.
    """
    inner = nodes[:, 1:-1]
    if isinstance(space, MetricEnergy):
        signs = _signs((SETTINGS.probes, *inner.shape[1:]), nodes).unsqueeze(1).expand(-1, len(nodes), -1, -1)
        values = squared_lengths(space, inner.flatten(0, 1), signs.flatten(1, 2))
        return (values.mean(0) / nodes.shape[2]).reshape(inner.shape[:2])
    size = torch.maximum((nodes[:, -1] - nodes[:, 0]).abs().amax(1), nodes.abs().amax((1, 2)))
    # a curve that rests at the origin has no size
    step = 1e-6 * torch.where(size > 0, size, 1.0)
    total = torch.zeros_like(inner[..., 0])
    for signs in _signs((SETTINGS.probes, *inner.shape[1:]), nodes):
        near = inner + step[:, None, None] * signs
        layers = torch.stack([inner, near], 2).flatten(0, 1).unsqueeze(2)
        total = total + (space.chord_lengths(layers).reshape(total.shape) / step[:, None]).square()
    return total / (SETTINGS.probes * nodes.shape[2])


def _signs(shape: torch.Size | tuple[int, ...], like: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (2.0 * torch.randint(0, 2, tuple(shape), generator=generator) - 1).to(like)


def _dot(a: Tensor, b: Tensor) -> Float[Tensor, " p"]:
    return (a * b).flatten(1).sum(1)


def order_of(space: DiscreteEnergy, nodes: Float[Tensor, "p n d"]) -> int:
    """The order of a space's energy, which the expansion of one curve with one inner node tells."""
    return space.expand_energy(nodes[:1, [0, nodes.shape[1] // 2, -1]]).order if len(nodes) else 2
