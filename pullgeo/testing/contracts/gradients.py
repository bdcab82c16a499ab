"""Derivatives of Jacobian products: gradients must flow through them to the point, the tangents and the weights."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.autograd.gradcheck import GradcheckError

from pullgeo.testing.contracts.judge import Judge
from pullgeo.typing import Wrt

Linearize = Callable[..., tuple[Tensor, object]]
"""``(module, x, wrt) -> (y, J)``."""


def check_gradients(
    judge: Judge, linearize: Linearize, module: nn.Module, x: Tensor, T: Tensor, W: Tensor, wrt: Wrt, twice: bool
) -> None:
    """`torch.autograd.gradcheck`, and its second-order companion if ``twice``, of the value, ``push`` and ``pull``.

    Args:
        judge: who speaks.
        linearize: the function under test.
        module: a float64 module of our own, whose weights may be moved.
        x: float64 (or integer) batch.
        T: tangents ``(k, b, *in)``.
        W: cotangents ``(k, b, *out)``.
        wrt: what the Jacobian is taken with respect to.
        twice: check second derivatives too.
    """
    x = x.detach().clone()
    point = [x.requires_grad_(True)] if x.is_floating_point() else []
    weights = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for name, stack in (("push", T), ("pull", W)):
        stack = stack.detach().clone().requires_grad_(True)

        # gradcheck moves the entries of its inputs in place, and these are the very tensors that the module holds.
        def product(*_inputs: Tensor, name: str = name, stack: Tensor = stack) -> Tensor:
            return getattr(linearize(module, x, wrt)[1], name)(stack)

        _run(judge, gradcheck, f"gradcheck of {name}", product, (*point, stack, *weights))
        if twice:
            shape = product().shape
            ones = torch.linspace(0.5, 1.5, shape.numel(), dtype=torch.float64, device=x.device).reshape(shape)
            inputs = (*point, stack, *weights)
            _run(judge, gradgradcheck, f"gradgradcheck of {name}", product, inputs, (ones.requires_grad_(True),))

    def value(*_inputs: Tensor) -> Tensor:
        return linearize(module, x, wrt)[0]

    if point or weights:
        _run(judge, gradcheck, "gradcheck of the value", value, (*point, *weights))


def _run(judge: Judge, check: Callable[..., bool], name: str, function: Callable[..., Tensor], *inputs: object) -> None:
    try:
        check(function, *inputs, fast_mode=True, check_undefined_grad=False, nondet_tol=1e-10, atol=1e-6, rtol=1e-4)
    except GradcheckError as error:
        judge.fail(name, f"the derivative is not that of the product. {error}")
    except RuntimeError as error:
        judge.fail(name, f"the product cannot be differentiated: {error}")
