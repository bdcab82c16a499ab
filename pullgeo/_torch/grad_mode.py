"""Where torch cannot give the derivatives that geometry needs."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual
from torch.autograd.function import BackwardCFunction

from pullgeo.errors import GradModeError


def check_grad_mode(where: str) -> None:
    """Raise where reverse mode records nothing: derivatives would come out as zero.

    Raises:
        GradModeError: ``torch.inference_mode()`` is on.
    """
    if torch.is_inference_mode_enabled():
        raise GradModeError(
            f"{where}: torch.inference_mode() is on, in which torch takes no derivatives, and geometry consists of "
            "them. Use torch.no_grad(): nothing is kept for a backward pass then either."
        )


def is_transformed() -> bool:
    """Whether a transform of ``torch.func`` is on."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def check_transforms(where: str, *tensors: Tensor) -> None:
    """Raise inside a transform of ``torch.func``, and for tensors with a tangent of forward mode.

    No search whose steps depend on the data can be transformed, and derivatives by the implicit function theorem are
    there for reverse mode alone; torch's own messages name neither the reason nor the way out.

    Raises:
        GradModeError: it is so.
    """
    if is_transformed():
        raise GradModeError(
            f"{where}: torch.func's transforms (vmap, grad, jacrev, jacfwd, hessian) cannot transform it, as its steps "
            "depend on the data. Points are batched already: give all (b, d) at once instead of vmap. Take derivatives "
            "from outside: torch.autograd.grad, or torch.autograd.functional.jacobian and hessian."
        )
    if any(unpack_dual(tensor).tangent is not None for tensor in tensors):
        raise GradModeError(
            f"{where}: it has no derivative in forward mode (torch.autograd.forward_ad). Use reverse mode: "
            "torch.autograd.grad, or torch.autograd.functional.jacobian."
        )


def check_same_weights(where: str, gradients: Sequence[Tensor | None]) -> None:
    """Raise if a backward pass, which computes once more, has not met the weights that the forward pass has met.

    Raises:
        GradModeError: there is no gradient for one of them.
    """
    if any(gradient is None for gradient in gradients):
        raise GradModeError(
            f"{where}: the backward pass computes with the decoder once more, and finds other weights in it than there "
            "were: torch.func.functional_call, for one, puts its own back when it ends. Let the decoder itself make "
            "the call: PullbackManifold(lambda z: functional_call(net, weights, (z,)))."
        )


def leaves(output: Tensor) -> list[Tensor]:
    """The tensors that an output's gradient would be accumulated in."""
    variables = (getattr(node, "variable", None) for node in _graph(output))
    return [variable for variable in variables if isinstance(variable, Tensor)]


def own_functions(output: Tensor, begin: Tensor | None = None) -> list[str]:
    """Names of the ``torch.autograd.Function`` that somebody wrote in Python, in the graph of an output.

    Args:
        output: what was computed.
        begin: where to end the search, whatever stands behind it.
    """
    nodes: list[Any] = [type(node) for node in _graph(output, begin) if isinstance(node, BackwardCFunction)]
    functions = [getattr(node, "_forward_cls", node) for node in nodes]
    # this package's own have every derivative, or refuse by name
    return list(dict.fromkeys(f.__name__ for f in functions if not f.__module__.startswith("pullgeo.")))


def _graph(output: Tensor, begin: Tensor | None = None) -> Iterator[Any]:
    seen = set() if begin is None else {begin.grad_fn}
    todo = [output.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        todo.extend(follower for follower, _ in node.next_functions)
