"""Energy and length of curves by plain loops over segments."""

import itertools
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.errors import ShapeError
from pullgeo.typing import Decoder

Curve = Callable[[Float[Tensor, " n"]], Float[Tensor, "b n d"]]
"""A batch of curves on [0, 1]: ``(n,) -> (b, n, d)``."""

MetricFunction = Callable[[Float[Tensor, "b d"]], Float[Tensor, "b d d"]]
"""A metric in coordinates: ``(b, d) -> (b, d, d)``."""


def discrete_energy(decoder: Decoder, nodes: Float[Tensor, "b n d"]) -> Float[Tensor, " b"]:
    """Chord energy T Σ_i ‖f(z_{i+1}) - f(z_i)‖² of curves with T segments.

    Args:
        decoder: ``(n, d) -> (n, *out)``.
        nodes: ``(b, T+1, d)``.

    Returns:
        Float64 ``(b,)``; its minimum over curves with fixed ends tends to the squared distance.

    Example:
        >>> discrete_energy(torch.nn.Identity(), torch.tensor([[[0.0], [1.0], [3.0]]]))
        tensor([10.], dtype=torch.float64)
    """
    energies = []
    for curve in nodes:
        energy, images = 0.0, _images(decoder, curve)
        for start, end in itertools.pairwise(images):
            energy += float((end - start).square().sum())
        energies.append((len(images) - 1) * energy)
    return torch.tensor(energies, dtype=torch.float64)


def fine_length(decoder: Decoder, curve: Curve | Float[Tensor, "b n d"], segments: int = 4096) -> Float[Tensor, " b"]:
    """Length Σ‖f(z_{i+1}) - f(z_i)‖ over many short segments.

    Args:
        decoder: ``(n, d) -> (n, *out)``.
        curve: a callable ``(n,) -> (b, n, d)`` on [0, 1], or the nodes ``(b, n, d)`` of a polygon in coordinates,
            whose straight segments are divided.
        segments: number of segments; for a polygon at least this many, the same number on each side.

    Returns:
        Float64 ``(b,)``, from below, with error O(segments⁻²).

    Raises:
        ShapeError: a polygon with fewer than two nodes.

    Example:
        >>> fine_length(torch.nn.Identity(), torch.tensor([[[0.0, 0.0], [3.0, 4.0]]]))
        tensor([5.0000], dtype=torch.float64)
    """
    points = _subdivide(curve, segments) if isinstance(curve, Tensor) else curve(_times(segments))
    lengths = []
    for path in points:
        images = _images(decoder, path)
        lengths.append(sum(float((end - start).norm()) for start, end in itertools.pairwise(images)))
    return torch.tensor(lengths, dtype=torch.float64)


def metric_length(
    metric: MetricFunction, curve: Curve | Float[Tensor, "b n d"], segments: int = 4096
) -> Float[Tensor, " b"]:
    """Length Σ sqrt(ΔᵀG(midpoint)Δ) for a metric that is known only as G(z).

    Args:
        metric: ``(n, d) -> (n, d, d)``.
        curve: as for `fine_length`.
        segments: as for `fine_length`.

    Returns:
        Float64 ``(b,)`` with error O(segments⁻²).

    Raises:
        ShapeError: a polygon with fewer than two nodes.

    Example:
        >>> metric = lambda z: 4 * torch.eye(1, dtype=z.dtype).expand(len(z), 1, 1)
        >>> metric_length(metric, torch.tensor([[[0.0], [1.0]]]))
        tensor([2.0000], dtype=torch.float64)
    """
    points = _subdivide(curve, segments) if isinstance(curve, Tensor) else curve(_times(segments))
    lengths = []
    for path in points.double():
        length = 0.0
        G = metric((path[:-1] + path[1:]) / 2)
        for step, g in zip(path[1:] - path[:-1], G, strict=True):
            length += float((step @ g @ step).sqrt())
        lengths.append(length)
    return torch.tensor(lengths, dtype=torch.float64)


def _images(decoder: Decoder, points: Tensor) -> Tensor:
    with torch.no_grad():
        return decoder(points.double()).double().flatten(1)


def _times(segments: int) -> Tensor:
    return torch.linspace(0, 1, segments + 1, dtype=torch.float64)


def _subdivide(nodes: Tensor, segments: int) -> Tensor:
    sides = nodes.shape[1] - 1
    if sides < 1:
        raise ShapeError(f"fine_length: nodes must be (b, n, d) with n >= 2, got {tuple(nodes.shape)}.")
    each = -(-segments // sides)
    fractions = torch.arange(each, dtype=torch.float64) / each
    pieces = []
    for start, end in itertools.pairwise(nodes.double().unbind(1)):
        pieces.append(start[:, None] + fractions[None, :, None] * (end - start)[:, None])
    return torch.cat([*pieces, nodes.double()[:, -1:]], dim=1)
