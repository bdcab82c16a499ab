"""Padding by constants, reflection, repetition and in circles, and cropping by negative amounts."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pullgeo.jacobian.base import LinearKind
from pullgeo.jacobian.kinds.linear_map import ones_map, stacked
from pullgeo.jacobian.kinds.separable import Separable
from pullgeo.jacobian.registry import rule
from pullgeo.jacobian.rules.layout import require_batch
from pullgeo.jacobian.signature import Signature


@rule(nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d)
def constant_pad(
    module: nn.ConstantPad1d | nn.ConstantPad2d | nn.ConstantPad3d, x: Tensor
) -> tuple[Tensor, LinearKind]:
    """A constant around the last axes; the three classes of zero padding are subclasses of these."""
    return padded(module, x, module.padding, "constant", float(module.value))


@rule(nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReflectionPad3d)
def reflection_pad(
    module: nn.ReflectionPad1d | nn.ReflectionPad2d | nn.ReflectionPad3d, x: Tensor
) -> tuple[Tensor, LinearKind]:
    """Mirrored at the first and last element."""
    return padded(module, x, module.padding, "reflect")


@rule(nn.ReplicationPad1d, nn.ReplicationPad2d, nn.ReplicationPad3d)
def replication_pad(
    module: nn.ReplicationPad1d | nn.ReplicationPad2d | nn.ReplicationPad3d, x: Tensor
) -> tuple[Tensor, LinearKind]:
    """The first and last element repeated."""
    return padded(module, x, module.padding, "replicate")


@rule(nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d)
def circular_pad(
    module: nn.CircularPad1d | nn.CircularPad2d | nn.CircularPad3d, x: Tensor
) -> tuple[Tensor, LinearKind]:
    """Continued from the other end."""
    return padded(module, x, module.padding, "circular")


def padded(
    module: nn.Module, x: Tensor, amounts: Sequence[int], mode: str, value: float = 0.0
) -> tuple[Tensor, LinearKind]:
    """``x`` with padding around its last axes, and its Jacobian: each output is a copy of one input, or a constant.

    Args:
        module: the layer that asks, for messages.
        x: ``(b, ..., *spatial)``.
        amounts: before and behind, from the last axis to the first, as `torch.nn.functional.pad` takes them.
        mode: ``"constant"``, ``"reflect"``, ``"replicate"`` or ``"circular"``.
        value: the constant.
    """
    axes = len(amounts) // 2
    require_batch(module, x, axes)
    if mode == "constant":
        opposite = [-amount for amount in amounts]  # the adjoint of adding zeros crops, and that of cropping adds them
        zeros, J = ones_map(x, lambda T: F.pad(T, list(amounts)), lambda W: F.pad(W, opposite))
        return zeros if value == 0 else F.pad(x, list(amounts), value=value), J
    y = F.pad(x, list(amounts), mode)

    def factors() -> list[Tensor]:
        return [
            torch.eye(n, dtype=x.dtype, device=x.device)[source]
            for n, source in zip(x.shape[-axes:], sources(x.shape[-axes:], amounts, mode, x.device), strict=True)
        ]

    return y, Separable(Signature.between(x, y), stacked(lambda T: F.pad(T, list(amounts), mode)), factors)


def sources(sizes: Sequence[int], amounts: Sequence[int], mode: str, device: torch.device) -> list[Tensor]:
    """For each axis, the position of the input that each position of the padded output copies."""
    found = []
    for axis, n in enumerate(reversed(sizes)):
        positions = torch.arange(n, dtype=torch.float64, device=device).reshape(1, 1, n)
        found.append(F.pad(positions, list(amounts[2 * axis : 2 * axis + 2]), mode).flatten().long())
    return found[::-1]
