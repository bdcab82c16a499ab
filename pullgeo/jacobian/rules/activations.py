"""Every elementwise activation of torch.nn: value, first and second derivative in closed form.

At kinks the derivative is the one that torch's own backward takes.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pullgeo._torch.gelu import gelu_slope
from pullgeo.jacobian.base import Jacobian
from pullgeo.jacobian.kinds.elementwise import Elementwise
from pullgeo.jacobian.registry import rule, weight_rule
from pullgeo.jacobian.signature import Signature
from pullgeo.jacobian.weights.broadcast import BroadcastWeight

Linearized = tuple[Tensor, Jacobian]


def _piecewise_linear(y: Tensor, where: Tensor, slope: float = 1.0, elsewhere: float = 0.0) -> Linearized:
    return y, Elementwise(_either(where, slope, elsewhere, y))


def _either(where: Tensor, a: float, b: float, like: Tensor) -> Tensor:
    # torch.where of two Python numbers would round them to the default dtype
    return torch.where(where, like.new_tensor(a), like.new_tensor(b))


def _smooth(y: Tensor, derivative: Tensor, curvature: Callable[[], Tensor]) -> Linearized:
    return y, Elementwise(derivative, curvature)


@rule(nn.ReLU)
def relu(module: nn.ReLU, x: Tensor) -> Linearized:
    """``max(x, 0)``."""
    return _piecewise_linear(torch.relu(x), x > 0)


@rule(nn.LeakyReLU)
def leaky_relu(module: nn.LeakyReLU, x: Tensor) -> Linearized:
    """``x`` where positive, ``slope x`` elsewhere."""
    slope = float(module.negative_slope)
    return _piecewise_linear(F.leaky_relu(x, slope), x > 0, elsewhere=slope)


@rule(nn.RReLU)
def rrelu(module: nn.RReLU, x: Tensor) -> Linearized:
    """Leaky with the mean slope, as in eval mode; random slopes were refused before."""
    slope = (module.lower + module.upper) / 2
    return _piecewise_linear(F.leaky_relu(x, slope), x > 0, elsewhere=slope)


@rule(nn.PReLU)
def prelu(module: nn.PReLU, x: Tensor) -> Linearized:
    """Leaky with a learned slope, one for all or one per channel (dimension 1)."""
    slope = module.weight.reshape(_channel_shape(module, x))
    return torch.where(x > 0, x, slope * x), Elementwise(torch.where(x > 0, torch.ones_like(slope), slope))


@weight_rule(nn.PReLU)
def prelu_weight(module: nn.PReLU, x: Tensor) -> Jacobian:
    """``δy = min(x, 0) δslope``."""
    signature = Signature(len(x), (module.num_parameters,), tuple(x.shape[1:]), x.dtype, x.device)
    return BroadcastWeight(torch.where(x > 0, torch.zeros_like(x), x), _channel_shape(module, x), signature)


def _channel_shape(module: nn.PReLU, x: Tensor) -> tuple[int, ...]:
    ones = [1] * (x.ndim - 1)
    return (module.num_parameters, *ones[1:]) if ones else ()


@rule(nn.ReLU6)
def relu6(module: nn.ReLU6, x: Tensor) -> Linearized:
    """``x`` clipped to [0, 6]."""
    return _piecewise_linear(F.relu6(x), (x > 0) & (x < 6))


@rule(nn.Hardtanh)
def hardtanh(module: nn.Hardtanh, x: Tensor) -> Linearized:
    """``x`` clipped to [min_val, max_val]."""
    return _piecewise_linear(F.hardtanh(x, module.min_val, module.max_val), (x > module.min_val) & (x < module.max_val))


@rule(nn.Threshold)
def threshold(module: nn.Threshold, x: Tensor) -> Linearized:
    """``x`` above the threshold, a constant elsewhere."""
    return _piecewise_linear(F.threshold(x, module.threshold, module.value), x > module.threshold)


@rule(nn.Hardshrink)
def hardshrink(module: nn.Hardshrink, x: Tensor) -> Linearized:
    """``x`` outside [-λ, λ], zero inside."""
    return _piecewise_linear(F.hardshrink(x, module.lambd), x.abs() > module.lambd)


@rule(nn.Softshrink)
def softshrink(module: nn.Softshrink, x: Tensor) -> Linearized:
    """``x ∓ λ`` outside [-λ, λ], zero inside."""
    return _piecewise_linear(F.softshrink(x, module.lambd), x.abs() > module.lambd)


@rule(nn.Hardsigmoid)
def hardsigmoid(module: nn.Hardsigmoid, x: Tensor) -> Linearized:
    """``x/6 + 1/2`` clipped to [0, 1]. torch's backward rounds the sixth to float32; this is the exact slope."""
    return _piecewise_linear(F.hardsigmoid(x), (x > -3) & (x < 3), slope=1 / 6)


@rule(nn.Hardswish)
def hardswish(module: nn.Hardswish, x: Tensor) -> Linearized:
    """``x (x + 3)/6`` on [-3, 3], zero below and ``x`` above."""
    inside = (x > -3) & (x < 3)
    derivative = torch.where(inside, x / 3 + 0.5, (x >= 3).to(x.dtype))
    return _smooth(F.hardswish(x), derivative, lambda: _either(inside, 1 / 3, 0.0, x))


@rule(nn.Tanh)
def tanh(module: nn.Tanh, x: Tensor) -> Linearized:
    """``tanh x``."""
    y = torch.tanh(x)
    derivative = torch.rsub(y.square(), 1)
    return y, Elementwise(derivative, lambda: -2 * y * derivative)


@rule(nn.Sigmoid)
def sigmoid(module: nn.Sigmoid, x: Tensor) -> Linearized:
    """``1 / (1 + exp(-x))``."""
    y = torch.sigmoid(x)
    derivative = torch.addcmul(y, y, y, value=-1)
    return _smooth(y, derivative, lambda: torch.addcmul(derivative, derivative, y, value=-2))


@rule(nn.LogSigmoid)
def logsigmoid(module: nn.LogSigmoid, x: Tensor) -> Linearized:
    """``log sigmoid(x)``."""
    derivative = torch.sigmoid(-x)
    return _smooth(F.logsigmoid(x), derivative, lambda: derivative * (derivative - 1))


@rule(nn.Softplus)
def softplus(module: nn.Softplus, x: Tensor) -> Linearized:
    """``log(1 + exp(βx)) / β``, and ``x`` where ``βx`` exceeds the threshold."""
    beta = float(module.beta)
    scaled = x if beta == 1 else beta * x
    s = torch.sigmoid(scaled)
    # above the threshold the slope is 1, which in float32 the sigmoid there rounds to by itself
    if module.threshold < -math.log(torch.finfo(x.dtype).eps / 4):
        s = torch.where(scaled <= module.threshold, s, 1.0)

    def curvature() -> Tensor:
        """``β s (1 - s)``, which vanishes by itself above the threshold."""
        derivative = torch.addcmul(s, s, s, value=-1)
        return derivative if beta == 1 else beta * derivative

    return _smooth(F.softplus(x, beta, module.threshold), s, curvature)


@rule(nn.Softsign)
def softsign(module: nn.Softsign, x: Tensor) -> Linearized:
    """``x / (1 + |x|)``."""
    shrink = 1 / (1 + x.abs())
    return _smooth(x * shrink, shrink.square(), lambda: -2 * torch.sign(x) * shrink**3)


@rule(nn.Tanhshrink)
def tanhshrink(module: nn.Tanhshrink, x: Tensor) -> Linearized:
    """``x - tanh x``."""
    t = torch.tanh(x)
    return _smooth(x - t, t.square(), lambda: 2 * t * (1 - t.square()))


@rule(nn.SiLU)
def silu(module: nn.SiLU, x: Tensor) -> Linearized:
    """``x sigmoid(x)``."""
    s = torch.sigmoid(x)
    slope = s * (1 - s)
    return _smooth(x * s, s + x * slope, lambda: slope * (2 + x * (1 - 2 * s)))


@rule(nn.Mish)
def mish(module: nn.Mish, x: Tensor) -> Linearized:
    """``x tanh(softplus(x))``."""
    t, s = torch.tanh(F.softplus(x)), torch.sigmoid(x)
    slope = (1 - t.square()) * s
    return _smooth(x * t, t + x * slope, lambda: slope * (2 + x * (1 - s - 2 * t * s)))


@rule(nn.GELU)
def gelu(module: nn.GELU, x: Tensor) -> Linearized:
    """``x Φ(x)``, or its approximation by tanh."""
    y, slope = F.gelu(x, approximate=module.approximate), gelu_slope(x, module.approximate)

    def curvature() -> Tensor:
        if module.approximate == "none":
            return torch.exp(-x.square() / 2) / math.sqrt(2 * math.pi) * (2 - x.square())
        scale, cubic = math.sqrt(2 / math.pi), 0.044715
        t = torch.tanh(scale * (x + cubic * x**3))
        u1, u2 = scale * (1 + 3 * cubic * x.square()), 6 * scale * cubic * x
        return (1 - t.square()) * (u1 + x * (u2 / 2 - t * u1.square()))

    return _smooth(y, slope, curvature)


@rule(nn.ELU)
def elu(module: nn.ELU, x: Tensor) -> Linearized:
    """``x`` where positive, ``α (exp x - 1)`` elsewhere."""
    return _exponential(F.elu(x, module.alpha), x, 1.0, float(module.alpha), 1.0)


@rule(nn.CELU)
def celu(module: nn.CELU, x: Tensor) -> Linearized:
    """``x`` where positive, ``α (exp(x/α) - 1)`` elsewhere."""
    return _exponential(F.celu(x, module.alpha), x, 1.0, 1.0, 1.0 / module.alpha)


@rule(nn.SELU)
def selu(module: nn.SELU, x: Tensor) -> Linearized:
    """ELU scaled so that activations keep mean zero and variance one (Klambauer et al., 2017, eq. 2)."""
    alpha, scale = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
    return _exponential(F.selu(x), x, scale, scale * alpha, 1.0)


def _exponential(y: Tensor, x: Tensor, right: float, left: float, rate: float) -> Linearized:
    # exp of the negative part alone: where x is large, exp(x) would overflow and turn 0 * inf into NaN in gradients
    decay = left * torch.exp(rate * x.clamp(max=0))
    positive = x > 0
    return _smooth(y, torch.where(positive, right, decay), lambda: torch.where(positive, 0.0, rate * decay))
