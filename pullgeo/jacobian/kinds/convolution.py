"""Convolutions as bilinear maps of an input and a kernel, in any number of dimensions."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

_FORWARD: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED: dict[int, Callable[..., Tensor]] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}

Sizes = tuple[int, ...]
"""One number for each spatial dimension."""


@dataclass(frozen=True)
class Convolution:
    """The settings of a convolution with zero padding, and the maps that they fix.

    A convolution takes inputs of ``wide`` size to outputs of ``narrow`` size; a transposed one goes the other way with
    the same kernel, so that each is the other's adjoint.

    Args:
        wide: spatial size before, in the direction of the convolution.
        narrow: spatial size after.
        kernel: spatial size of the kernel.
        stride: steps between positions of the kernel.
        padding: zeros put in front of and behind the wide side.
        dilation: steps between taps of the kernel.
        groups: number of groups of channels that do not mix.
    """

    wide: Sizes
    narrow: Sizes
    kernel: Sizes
    stride: Sizes
    padding: Sizes
    dilation: Sizes
    groups: int

    @property
    def taps(self) -> int:
        """Number of taps of the kernel."""
        return math.prod(self.kernel)

    @property
    def positions(self) -> int:
        """Number of positions of the kernel: elements of a channel on the narrow side."""
        return math.prod(self.narrow)

    def apply(
        self,
        x: Float[Tensor, "n _ *wide"],
        weight: Float[Tensor, "_ _ *kernel"],
        bias: Float[Tensor, " _"] | None = None,
        times: int = 1,
    ) -> Float[Tensor, "n _ *narrow"]:
        """Wide to narrow: ``y_s = Σ_τ weight_τ x_(stride s + dilation τ - padding) + bias``.

        Args:
            x: the wide side.
            weight: output channels first.
            bias: one number for each output channel.
            times: how many convolutions with kernels of their own stand side by side in the channels.
        """
        groups = times * self.groups
        y = _FORWARD[len(self.wide)](x, weight, bias, self.stride, self.padding, self.dilation, groups)
        for axis, n in enumerate(self.narrow, start=2):
            y = y.narrow(axis, 0, n)
        return y

    def transpose(
        self,
        y: Float[Tensor, "n _ *narrow"],
        weight: Float[Tensor, "_ _ *kernel"],
        bias: Float[Tensor, " _"] | None = None,
        times: int = 1,
    ) -> Float[Tensor, "n _ *wide"]:
        """Narrow to wide: without bias the adjoint of `apply` with the same weight."""
        groups = times * self.groups
        return _TRANSPOSED[len(self.wide)](
            y, weight, bias, self.stride, self.padding, self._beyond(), groups, self.dilation
        )

    def windows(self, x: Float[Tensor, "..."]) -> Float[Tensor, "*lead t s"]:
        """What each of the t taps sees at each of the s positions of a wide ``(*lead, *wide)``.

        Memory: t s / (wide size) times that of ``x``.
        """
        a = len(self.wide)
        x = F.pad(x, [amount for p in reversed(self.padding) for amount in (p, p)])
        lead = x.ndim - a
        for axis, (k, s, d, n) in enumerate(zip(self.kernel, self.stride, self.dilation, self.narrow, strict=True)):
            x = x.unfold(lead + axis, d * (k - 1) + 1, s)[..., ::d].narrow(lead + axis, 0, n)
        order = [*range(lead), *range(lead + a, lead + 2 * a), *range(lead, lead + a)]
        return x.permute(order).reshape(*x.shape[:lead], self.taps, self.positions)

    def _beyond(self) -> Sizes:
        """Elements at the far end of the wide side that the last position of the kernel does not reach."""
        settings = zip(self.wide, self.narrow, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        return tuple(w - ((n - 1) * s - 2 * p + d * (k - 1) + 1) for w, n, k, s, p, d in settings)
