"""Layers that put the same elements in another order."""

from torch import Tensor, nn
from torch.nn import functional as F

from pullgeo.jacobian.base import Jacobian
from pullgeo.jacobian.kinds.linear_map import ones_map
from pullgeo.jacobian.registry import rule
from pullgeo.jacobian.rules.layout import require_batch


@rule(nn.PixelShuffle)
def pixel_shuffle(module: nn.PixelShuffle, x: Tensor) -> tuple[Tensor, Jacobian]:
    """Channels laid out as pixels."""
    require_batch(module, x, 3)
    r = module.upscale_factor
    return ones_map(x, lambda T: F.pixel_shuffle(T, r), lambda W: _unshuffled(W, r))


@rule(nn.PixelUnshuffle)
def pixel_unshuffle(module: nn.PixelUnshuffle, x: Tensor) -> tuple[Tensor, Jacobian]:
    """Pixels laid out as channels."""
    require_batch(module, x, 3)
    r = module.downscale_factor
    return ones_map(x, lambda T: _unshuffled(T, r), lambda W: F.pixel_shuffle(W, r))


@rule(nn.ChannelShuffle)
def channel_shuffle(module: nn.ChannelShuffle, x: Tensor) -> tuple[Tensor, Jacobian]:
    """Channels ``(g, c/g)`` transposed to ``(c/g, g)``."""
    require_batch(module, x, 2)
    groups, rest = module.groups, x.shape[1] // module.groups
    return ones_map(x, lambda T: F.channel_shuffle(T, groups), lambda W: F.channel_shuffle(W, rest))


def _unshuffled(x: Tensor, r: int) -> Tensor:
    # torch's own function leaves an empty batch as it is
    blocks = x.unflatten(-1, (-1, r)).unflatten(-3, (-1, r))
    return blocks.movedim((-3, -1), (-4, -3)).flatten(-5, -3)
