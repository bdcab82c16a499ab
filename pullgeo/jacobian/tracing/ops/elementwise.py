"""Functions that act on every element by itself."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pullgeo._torch import kink_functions
from pullgeo._torch.substitutes import SUBSTITUTES
from pullgeo._torch.torch_names import functions_named
from pullgeo._torch.transforms import vjp
from pullgeo.jacobian.kinds.elementwise import Elementwise
from pullgeo.jacobian.tangents import tangent
from pullgeo.jacobian.tracing.operations import operation
from pullgeo.jacobian.tracing.proxy import Recorded, Untraceable, plain
from pullgeo.jacobian.tracing.tape import Tape


def pointwise(tape: Tape, input: Recorded, function: Callable[[Tensor], Tensor]) -> Recorded:
    """Record a function of each element, with derivatives by differentiating it.

    Args:
        tape: where the argument comes from.
        input: the argument.
        function: of a tensor.
    """
    x = plain(input)
    y, pullback = vjp(function, x)[:2]

    def slope(z: Tensor) -> Tensor:
        return vjp(function, z)[1](torch.ones_like(z))[0]

    derivative = pullback(torch.ones_like(x))[0]
    return tape.emit(y, [(input, Elementwise(derivative, lambda: tangent(slope, x, torch.ones_like(x))))])


def _register(name: str) -> None:
    function = functions_named(name)[0]
    function = SUBSTITUTES.get(function, function)

    @operation(name)
    def record(tape: Tape, input: Recorded) -> Recorded:
        return pointwise(tape, input, function)


_FUNCTIONS = """
abs exp2 expm1 log2 log10 log1p tan asin acos atan arcsin arccos arctan sinh cosh asinh acosh atanh
erf erfc erfinv erfcx ndtr log_ndtr lgamma digamma frac sinc deg2rad rad2deg logit i0 i0e i1 i1e
"""
for _name in _FUNCTIONS.split():
    _register(_name)


@operation("exp")
def exp(tape: Tape, input: Recorded) -> Recorded:
    """``exp x``."""
    y = plain(input).exp()
    return tape.emit(y, [(input, Elementwise(y, lambda: y))])


@operation("log")
def log(tape: Tape, input: Recorded) -> Recorded:
    """``log x``."""
    x = plain(input)
    return tape.emit(x.log(), [(input, Elementwise(1 / x, lambda: -1 / x.square()))])


@operation("sin")
def sin(tape: Tape, input: Recorded) -> Recorded:
    """``sin x``."""
    y, slope = plain(input).sin(), plain(input).cos()
    return tape.emit(y, [(input, Elementwise(slope, lambda: -y))])


@operation("cos")
def cos(tape: Tape, input: Recorded) -> Recorded:
    """``cos x``."""
    y, slope = plain(input).cos(), -plain(input).sin()
    return tape.emit(y, [(input, Elementwise(slope, lambda: -y))])


@operation("sqrt")
def sqrt(tape: Tape, input: Recorded) -> Recorded:
    """``√x``."""
    y = plain(input).sqrt()
    return tape.emit(y, [(input, Elementwise(0.5 / y, lambda: -0.25 / y**3))])


@operation("rsqrt")
def rsqrt(tape: Tape, input: Recorded) -> Recorded:
    """``1/√x``."""
    y = plain(input).rsqrt()
    return tape.emit(y, [(input, Elementwise(-0.5 * y**3, lambda: 0.75 * y**5))])


@operation("reciprocal")
def reciprocal(tape: Tape, input: Recorded) -> Recorded:
    """``1/x``."""
    y = plain(input).reciprocal()
    return tape.emit(y, [(input, Elementwise(-y.square(), lambda: 2 * y**3))])


@operation("square")
def square(tape: Tape, input: Recorded) -> Recorded:
    """``x²``."""
    x = plain(input)
    return tape.emit(x.square(), [(input, Elementwise(2 * x, lambda: torch.full_like(x, 2)))])


@operation("pow", "__pow__", "__ipow__")
def power(tape: Tape, input: Any, exponent: Any) -> Recorded:
    """``input`` to the power of a number, or a number to the power of ``input``."""
    if isinstance(input, Recorded) and not isinstance(exponent, Tensor):
        if exponent == 2:
            return square(tape, input)
        return pointwise(tape, input, lambda x: x**exponent)
    if isinstance(exponent, Recorded) and not isinstance(input, Tensor):
        return pointwise(tape, exponent, lambda x: kink_functions.power(input, x))
    raise Untraceable("pow of two tensors")


@operation("__rpow__")
def rpower(tape: Tape, input: Recorded, other: Any) -> Recorded:
    """``other`` to the power of ``input``."""
    return power(tape, other, input)


@operation("clamp", "clip")
def clamp(tape: Tape, input: Recorded, min: Any = None, max: Any = None) -> Recorded:
    """``input`` within bounds that are numbers."""
    if isinstance(min, Tensor) or isinstance(max, Tensor):
        raise Untraceable("clamp with tensors for bounds")
    x = plain(input)
    inside = torch.ones_like(x, dtype=torch.bool)
    if min is not None:
        inside = inside & (x >= min)
    if max is not None:
        inside = inside & (x <= max)
    return tape.emit(x.clamp(min, max), [(input, Elementwise(inside.to(x.dtype)))])


@operation("clamp_min")
def clamp_min(tape: Tape, input: Recorded, min: Any) -> Recorded:
    """``input``, at least ``min``."""
    return clamp(tape, input, min=min)


@operation("clamp_max")
def clamp_max(tape: Tape, input: Recorded, max: Any) -> Recorded:
    """``input``, at most ``max``."""
    return clamp(tape, input, max=max)
