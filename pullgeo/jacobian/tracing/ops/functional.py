"""Functions of `torch.nn.functional` that have a layer, and thereby a rule."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pullgeo._torch.substitutes import lasting
from pullgeo.errors import CoupledSamplesError
from pullgeo.jacobian.kinds.linear_map import LinearMap
from pullgeo.jacobian.tracing.layers import by_rule, by_rules
from pullgeo.jacobian.tracing.operations import name_of, operation
from pullgeo.jacobian.tracing.ops.reductions import differentiated, joint, positions
from pullgeo.jacobian.tracing.proxy import Recorded, Untraceable, plain, recorded_in
from pullgeo.jacobian.tracing.tape import Tape

_LAYERS = """
relu ReLU inplace
relu6 ReLU6 inplace
leaky_relu LeakyReLU negative_slope inplace
hardtanh Hardtanh min_val max_val inplace
threshold Threshold threshold value inplace
hardshrink Hardshrink lambd
softshrink Softshrink lambd
hardsigmoid Hardsigmoid inplace
hardswish Hardswish inplace
tanh Tanh
sigmoid Sigmoid
expit Sigmoid
logsigmoid LogSigmoid
softplus Softplus beta threshold
softsign Softsign
tanhshrink Tanhshrink
silu SiLU inplace
mish Mish inplace
gelu GELU approximate
elu ELU alpha inplace
celu CELU alpha inplace
selu SELU inplace
glu GLU dim
max_pool1d MaxPool1d kernel_size stride padding dilation ceil_mode return_indices
max_pool2d MaxPool2d kernel_size stride padding dilation ceil_mode return_indices
max_pool3d MaxPool3d kernel_size stride padding dilation ceil_mode return_indices
adaptive_max_pool1d AdaptiveMaxPool1d output_size return_indices
adaptive_max_pool2d AdaptiveMaxPool2d output_size return_indices
adaptive_max_pool3d AdaptiveMaxPool3d output_size return_indices
avg_pool1d AvgPool1d kernel_size stride padding ceil_mode count_include_pad
avg_pool2d AvgPool2d kernel_size stride padding ceil_mode count_include_pad divisor_override
avg_pool3d AvgPool3d kernel_size stride padding ceil_mode count_include_pad divisor_override
adaptive_avg_pool1d AdaptiveAvgPool1d output_size
adaptive_avg_pool2d AdaptiveAvgPool2d output_size
adaptive_avg_pool3d AdaptiveAvgPool3d output_size
lp_pool1d LPPool1d norm_type kernel_size stride ceil_mode
lp_pool2d LPPool2d norm_type kernel_size stride ceil_mode
lp_pool3d LPPool3d norm_type kernel_size stride ceil_mode
pixel_shuffle PixelShuffle upscale_factor
pixel_unshuffle PixelUnshuffle downscale_factor
channel_shuffle ChannelShuffle groups
F.unfold Unfold kernel_size dilation padding stride
fold Fold output_size kernel_size dilation padding stride
local_response_norm LocalResponseNorm size alpha beta k
"""
"""Name of a function, name of the class, and the names of the arguments after the input, in both the same."""


def _register(name: str, cls: type[nn.Module], settings: list[str]) -> None:
    @operation(name)
    def record(tape: Tape, input: Recorded, *args: Any, **kwargs: Any) -> Any:
        given = dict(zip(settings, args, strict=False)) | kwargs
        in_place = given.pop("inplace", False)
        y = by_rule(tape, input, cls(**given))
        return tape.write(input, y) if in_place else y


def _register_with_indices(name: str, cls: type[nn.Module], settings: list[str]) -> None:
    function = getattr(F, name)

    @operation(name)
    def record(tape: Tape, input: Recorded, *args: Any, **kwargs: Any) -> Any:
        given = dict(zip(settings, args, strict=False)) | kwargs | {"return_indices": False}
        return by_rule(tape, input, cls(**given)), function(plain(input), *args, **kwargs)[1]


for _line in _LAYERS.strip().splitlines():
    _name, _cls, *_settings = _line.split()
    _register(_name, getattr(nn, _cls), _settings)
    if "return_indices" in _settings:  # torch hands these on under another name
        _register_with_indices(f"{_name}_with_indices", getattr(nn, _cls), _settings)


def _register_softmax(name: str, cls: type[nn.Module]) -> None:
    @operation(name)
    def record(tape: Tape, input: Recorded, dim: Any = None, *args: Any, **kwargs: Any) -> Any:
        precisions = [argument for argument in (*args, *kwargs.values()) if isinstance(argument, torch.dtype)]
        if any(precision != input.dtype for precision in precisions):
            raise Untraceable(f"{name} in another precision than that of its input")
        return by_rule(tape, input, cls(dim))


_register_softmax("softmax", nn.Softmax)
_register_softmax("log_softmax", nn.LogSoftmax)
_register_softmax("softmin", nn.Softmin)


@operation("interpolate", "upsample")
def interpolate(
    tape: Tape,
    input: Recorded,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: Any = None,
    recompute_scale_factor: Any = None,
    antialias: bool = False,
) -> Any:
    """Resampled at another size."""
    settings = (size, scale_factor, mode, align_corners, recompute_scale_factor)
    if antialias or mode == "area":
        return differentiated(tape, input, lambda t: F.interpolate(t, *settings, antialias))
    return by_rule(tape, input, nn.Upsample(*settings))


def _register_dropout(name: str) -> None:
    @operation(name)
    def record(
        tape: Tape, input: Recorded, p: float = 0.5, training: Any = None, inplace: bool = False, *, train: Any = None
    ) -> Any:
        default = "alpha" not in name
        random = next((flag for flag in (training, train) if flag is not None), default)
        if random and p > 0:
            raise CoupledSamplesError(
                f"Jacobian: the module calls {name} with training=True and so draws a new mask at every call; the map "
                "is not fixed. Pass training=self.training, and call module.eval() first."
            )
        return input


for _name in ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"):
    _register_dropout(_name)


@operation("linear")
def linear(tape: Tape, input: Any, weight: Any, bias: Any = None) -> Any:
    """``A x + c``."""
    if input.ndim < 2:
        raise Untraceable("linear takes the batch for the features")
    n, m = weight.shape if weight.ndim == 2 else (1, *weight.shape)
    if weight.ndim != 2:
        raise Untraceable("linear with a vector for its matrix")
    return by_rules(tape, input, nn.Linear(m, n, device="meta"), {"weight": weight, "bias": bias})


def _register_convolution(name: str, cls: Callable[..., nn.Module], transposed: bool) -> None:
    order = ["stride", "padding", "dilation", "groups"]
    if transposed:
        order = ["stride", "padding", "output_padding", "groups", "dilation"]

    @operation(name)
    def record(tape: Tape, input: Any, weight: Any, bias: Any = None, *args: Any, **kwargs: Any) -> Any:
        given = dict(zip(order, args, strict=False)) | kwargs
        first, second, groups = weight.shape[0], weight.shape[1], given.get("groups", 1)
        channels = (first, second * groups) if transposed else (second * groups, first)
        if not isinstance(given.get("padding", 0), int | str):
            given["padding"] = tuple(given["padding"])
        module = cls(*channels, tuple(weight.shape[2:]), **given, device="meta")
        return by_rules(tape, input, module, {"weight": weight, "bias": bias})


for _name, _cls_, _transposed in (
    ("conv1d", nn.Conv1d, False),
    ("conv2d", nn.Conv2d, False),
    ("conv3d", nn.Conv3d, False),
    ("conv_transpose1d", nn.ConvTranspose1d, True),
    ("conv_transpose2d", nn.ConvTranspose2d, True),
    ("conv_transpose3d", nn.ConvTranspose3d, True),
):
    _register_convolution(_name, _cls_, _transposed)


@operation("prelu")
def prelu(tape: Tape, input: Any, weight: Any) -> Any:
    """Leaky with a given slope, one for all or one per channel."""
    return by_rules(tape, input, nn.PReLU(weight.numel(), device="meta"), {"weight": weight})


@operation("F.embedding")
def embedding(
    tape: Tape,
    input: Any,
    weight: Any,
    padding_idx: Any = None,
    max_norm: Any = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Any:
    """Rows of a table."""
    if max_norm is not None:
        raise Untraceable("an embedding that renormalises its table")
    module = nn.Embedding(weight.shape[0], weight.shape[1], padding_idx, device="meta")
    return by_rules(tape, input, module, {"weight": weight})


@operation("cosine_similarity")
def cosine_similarity(tape: Tape, x1: Any, x2: Any, dim: int = 1, eps: float = 1e-8) -> Any:
    """The cosine of the angle along a dimension."""
    positions(x1 if x1.ndim >= x2.ndim else x2, dim)
    return _of_both(tape, lambda a, b: F.cosine_similarity(a, b, dim, eps), x1, x2)


@operation("pairwise_distance")
def pairwise_distance(tape: Tape, x1: Any, x2: Any, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Any:
    """The distance along the last dimension."""
    return _of_both(tape, lambda a, b: F.pairwise_distance(a, b, p, eps, keepdim), x1, x2)


@operation("cdist")
def cdist(tape: Tape, x1: Any, x2: Any, p: float = 2.0, compute_mode: Any = None) -> Any:
    """Distances between the rows of each sample."""
    if x1.ndim < 3:
        raise Untraceable("distances between samples")
    return torch.linalg.vector_norm(x1.unsqueeze(-2) - x2.unsqueeze(-3), p, dim=-1)


@operation("grid_sample")
def grid_sample(tape: Tape, input: Any, grid: Any, *args: Any, **kwargs: Any) -> Any:
    """Interpolated at given places."""
    return _of_both(tape, lambda a, b: F.grid_sample(a, b, *args, **kwargs), input, grid)


def _of_both(tape: Tape, function: Callable[[Any, Any], Tensor], first: Tensor, second: Tensor) -> Recorded:
    """A function of two tensors, either of which may be a constant."""
    if first.ndim < 2 or any(r.ndim < max(first.ndim, second.ndim) for r in recorded_in((first, second))):
        raise Untraceable(f"{name_of(function)} of tensors of different dimensions")
    if not isinstance(first, Recorded):
        return joint(tape, [second], lambda b: function(first, b))  # type: ignore[list-item]
    if not isinstance(second, Recorded):
        return joint(tape, [first], lambda a: function(a, second))
    return joint(tape, [first, second], function)


@operation("affine_grid")
def affine_grid(tape: Tape, theta: Recorded, size: Any, align_corners: Any = None) -> Any:
    """Places in an image, moved by a matrix."""
    return differentiated(tape, theta, lambda t: F.affine_grid(t, size, align_corners))


def _register_unpool(name: str, axes: int) -> None:
    function = getattr(F, name)

    @operation(name)
    def record(tape: Tape, input: Recorded, indices: Any, *args: Any, **kwargs: Any) -> Any:
        if input.ndim != axes + 2:
            raise Untraceable(f"{name} of what is no batch")
        value = function(plain(input), indices, *args, **kwargs)
        last, _ = lasting(function, axes, indices, *args, **kwargs)
        signature, places = tape.signature(input, value), indices.flatten(2)

        def forward(T: Tensor) -> Tensor:
            zeros = T.new_zeros(*T.shape[:3], value.shape[2:].numel())
            written = torch.where(last, T, 0.0).flatten(3)
            return zeros.scatter_add(3, places.expand(len(T), *places.shape), written).reshape(len(T), *value.shape)

        def backward(W: Tensor) -> Tensor:
            found = W.flatten(3).gather(3, places.expand(len(W), *places.shape)).reshape(len(W), *input.shape)
            return torch.where(last, found, 0.0)

        return tape.emit(value, [(input, LinearMap(signature, forward, backward, forward, backward))])


for _axes in (1, 2, 3):
    _register_unpool(f"max_unpool{_axes}d", _axes)
