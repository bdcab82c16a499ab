"""Samples of densities with respect to the volume, by Langevin steps that are accepted or rejected."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo._torch.grad_mode import check_grad_mode
from pullgeo.errors import NonFiniteError, ShapeError
from pullgeo.manifold.chart import Chart
from pullgeo.manifold.frame import Frame
from pullgeo.manifold.sampling.options import check_count, check_step_size
from pullgeo.manifold.volume import mean_christoffel
from pullgeo.numerics.batch import Batch
from pullgeo.numerics.progress import stepped

LogDensity = Callable[[Tensor], Tensor]
"""Points ``(b, d)`` to ``log π`` ``(b,)``, up to a constant, point by point, composed of torch operations."""


@dataclass(frozen=True, eq=False)
class Samples:
    """The points of b chains.

    Args:
        points: n of each chain, in their order.
        log_density: ``log π`` there, with respect to the volume.
        acceptance_rate: which part of a chain's proposals was accepted, burn-in and thinned steps included. Between a
            half and 0.9 chains move well: above, take larger steps; below, smaller ones.
    """

    points: Float[Tensor, "b n d"]
    log_density: Float[Tensor, "b n"]
    acceptance_rate: Float[Tensor, " b"]


@dataclass(frozen=True, eq=False)
class _State(Batch):
    """Where the chains are, and the normal distributions from which they propose."""

    z: Float[Tensor, "b d"]
    log_density: Float[Tensor, " b"]
    mean: Float[Tensor, "b d"]
    frame: Frame

    @property
    def log_volume(self) -> Float[Tensor, " b"]:
        """``½ log det G`` where they are."""
        return self.frame.log_volume

    def log_proposal(self, y: Tensor, h: float) -> Tensor:
        """``log N(y; mean, h G⁻¹)`` up to a constant: ``-‖E⁻¹(y - mean)‖²/2h + ½ log det G``."""
        return self.log_volume - self.frame.coordinates(y - self.mean).square().sum(1) / (2 * h)


@torch.no_grad()
def sample(
    manifold: Chart,
    log_density: LogDensity,
    z: Float[Tensor, "b d"],
    steps: int,
    step_size: float,
    generator: torch.Generator,
    *,
    burn_in: int = 0,
    thin: int = 1,
) -> Samples:
    """Riemannian MALA: propose a step of the diffusion with drift ``½ grad log π``, then accept or reject it.

    The diffusion whose stationary law is ``π dvol`` has in a chart the drift ``½ G⁻¹ ∂ log π - ½ G^ij Γ^k_ij`` and the
    noise covariance ``G⁻¹``. Proposals are normal with these, and are judged with the density ``π √det G`` of the
    chart and the different normal distribution of the way back.

    Raises:
        OptionError: a count or the step size is out of range.
        ShapeError: ``log_density`` does not give one number per point.
        NonFiniteError: the density or its gradient is not finite at a start.
        GradModeError: ``torch.inference_mode()`` is on.
    """
    check_grad_mode("sample")
    check_step_size("sample", step_size)
    check_count("sample", "steps", steps, 1)
    check_count("sample", "burn_in", burn_in)
    check_count("sample", "thin", thin, 1)
    value, slope = _density(log_density, z)
    finite = torch.isfinite(value) & torch.isfinite(slope).all(1)
    if not bool(finite.all()):
        raise NonFiniteError(
            f"sample: log_density or its gradient is not finite at {int((~finite).sum())} of {len(z)} starting points, "
            f"the first at index {int((~finite).nonzero()[0])}. Start chains where the density is positive."
        )
    now = _at(manifold, z, value, slope, step_size)
    points, densities, accepted = [], [], torch.zeros_like(value)
    for step in range(burn_in + steps * thin):
        stepped()
        noise = torch.randn(z.shape, dtype=z.dtype, device=z.device, generator=generator)
        proposal = now.mean + step_size**0.5 * now.frame.tangents(noise)
        value, slope = _density(log_density, proposal)
        inside = torch.isfinite(value) & torch.isfinite(slope).all(1)
        # outside its domain a density says -inf or NaN; the metric is not asked about such points
        there = torch.where(inside.unsqueeze(1), proposal, now.z)
        new = _at(manifold, there, value, torch.where(inside.unsqueeze(1), slope, 0.0), step_size)
        forth = now.log_density + now.log_volume + now.log_proposal(new.z, step_size)
        back = new.log_density + new.log_volume + new.log_proposal(now.z, step_size)
        chance = torch.rand(value.shape, dtype=z.dtype, device=z.device, generator=generator).log()
        good = inside & (chance < back - forth)
        now = new.where(good, now)
        accepted = accepted + good
        if step >= burn_in and (step - burn_in + 1) % thin == 0:
            points.append(now.z)
            densities.append(now.log_density)
    return Samples(torch.stack(points, 1), torch.stack(densities, 1), accepted / (burn_in + steps * thin))


def _at(manifold: Chart, z: Tensor, value: Tensor, slope: Tensor, h: float) -> _State:
    frame = Frame.of(manifold.metric(z), len(z))
    E = frame.vectors
    gradient = torch.einsum("bki,bji,bj->bk", E, E, slope)
    mean = z + h / 2 * (gradient - mean_christoffel(manifold.connection, z, frame))
    return _State(z, value, mean, frame)


def _density(log_density: LogDensity, z: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        point = z.detach().clone().requires_grad_()
        value = log_density(point)
        if value.shape != z.shape[:1]:
            raise ShapeError(
                f"sample: log_density must map {tuple(z.shape)} to ({len(z)},), got {tuple(value.shape)}. "
                "Return one number per point; sum over the last axis."
            )
        slope: Tensor | None = None
        if value.requires_grad:
            (slope,) = torch.autograd.grad(value.sum(), point, allow_unused=True)
    return value.detach(), torch.zeros_like(z) if slope is None else slope
