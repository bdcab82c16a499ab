"""Normalisation as functions: the layer without its affine map, and that map after it."""

from typing import Any

from torch import nn

from pullgeo.errors import CoupledSamplesError
from pullgeo.jacobian.tracing.layers import by_rule
from pullgeo.jacobian.tracing.operations import operation
from pullgeo.jacobian.tracing.proxy import Recorded
from pullgeo.jacobian.tracing.tape import Tape


@operation("F.layer_norm", "layer_norm")
def layer_norm(
    tape: Tape,
    input: Any,
    normalized_shape: Any,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Any:
    """Each sample's last dimensions normalised."""
    module = nn.LayerNorm(list(normalized_shape), eps, elementwise_affine=False)
    return _affine(by_rule(tape, input, module), weight, bias, 0)


@operation("rms_norm")
def rms_norm(tape: Tape, input: Any, normalized_shape: Any, weight: Any = None, eps: Any = None) -> Any:
    """Each sample's last dimensions divided by their root mean square."""
    module = nn.RMSNorm(list(normalized_shape), eps, elementwise_affine=False)
    return _affine(by_rule(tape, input, module), weight, None, 0)


@operation("group_norm")
def group_norm(
    tape: Tape,
    input: Any,
    num_groups: int,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Any:
    """Each group of channels normalised."""
    module = nn.GroupNorm(num_groups, input.shape[1], eps, affine=False)
    return _affine(by_rule(tape, input, module), weight, bias, input.ndim - 2)


@operation("F.instance_norm")
def instance_norm(
    tape: Tape,
    input: Any,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """Each channel normalised, by its own statistics or by given ones."""
    if not use_input_stats:
        return batch_norm(tape, input, running_mean, running_var, weight, bias, False, momentum, eps)
    module = nn.GroupNorm(input.shape[1], input.shape[1], eps, affine=False)
    return _affine(by_rule(tape, input, module), weight, bias, input.ndim - 2)


@operation("F.batch_norm")
def batch_norm(
    tape: Tape,
    input: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """Each channel normalised by given statistics."""
    if training:
        raise CoupledSamplesError(
            "Jacobian: the module calls batch_norm with training=True, which normalises over the batch, so samples "
            "are coupled and there is no Jacobian per sample. Call module.eval() first."
        )
    shape = (-1, *[1] * (input.ndim - 2))
    centred = input - running_mean.reshape(shape)
    return _affine(centred * (running_var + eps).rsqrt().reshape(shape), weight, bias, input.ndim - 2)


def _affine(y: Recorded, weight: Any, bias: Any, trailing: int) -> Any:
    """``weight ∘ y + bias``, with so many dimensions behind those of the weight."""
    if weight is not None:
        y = y * weight.reshape(*weight.shape, *[1] * trailing)
    return y if bias is None else y + bias.reshape(*bias.shape, *[1] * trailing)
