"""Tangents and cotangents of any function, whatever torch's transforms lack for one of its operations."""

from collections.abc import Callable
from contextlib import nullcontext
from threading import RLock

import torch
from torch import Tensor
from torch.func import vmap

from pullgeo._torch.plain_memory import outside_inference, unshared
from pullgeo._torch.transforms import jvp, vjp

Map = Callable[[Tensor], Tensor]

one_thread_at_a_time = RLock()
"""Held during forward mode, whose levels torch counts for the whole process, not for each thread."""


def tangent(function: Map, x: Tensor, t: Tensor, backward: bool = False) -> Tensor:
    """``f'(x) t`` by forward mode; where an operation has none, as the transpose of the transpose.

    Args:
        function: of a tensor.
        x: where.
        t: in which direction.
        backward: take the transpose of the transpose in any case. Forward mode does not know of ``torch.no_grad``, and
            differentiates what reverse mode takes for constant.
    """
    return with_value(function, x, t, backward)[1]


def with_value(function: Map, x: Tensor, t: Tensor, backward: bool = False) -> tuple[Tensor, Tensor]:
    """``f(x)`` with the `tangent`."""
    if not backward:
        try:
            with one_thread_at_a_time:
                y, moved, *_ = jvp(function, (x,), (t,))
                return y, moved
        except NotImplementedError:
            pass
    y, pullback, *_ = vjp(function, x)
    return y, vjp(lambda w: pullback(w)[0], torch.zeros_like(y))[1](t)[0]


def second_tangent(function: Map, x: Tensor, t: Tensor, s: Tensor, backward: bool = False) -> Tensor:
    """``f''(x)[t, s]``, as the derivative of ``w -> ⟨∂_t(f'(x)ᵀ w), s⟩``, which is linear in w.

    Tangents of tangents would be shorter, and wrong: torch's nested forward mode, and its reverse mode over a double
    transpose, give other numbers for layer and instance norm. Tangents of cotangents are right.
    """
    value = function(x)

    def along(w: Tensor) -> Tensor:
        return (tangent(lambda z: vjp(function, z)[1](w)[0], x, t, backward) * s).sum()

    return vjp(along, torch.zeros_like(value))[1](torch.ones((), dtype=value.dtype, device=value.device))[0]


def over_stack(move: Callable[..., Tensor], *stacks: Tensor) -> Tensor:
    """``move`` of the entries of stacks: all at once, or one by one where an operation cannot be batched.

    Args:
        move: of one entry of each stack.
        stacks: at least one entry long.
    """
    # views, so that a chunk that is computed again sees them
    stacks = tuple(stack.view_as(stack) for stack in map(unshared, stacks))
    try:
        return vmap(move, randomness="same")(*stacks)
    except RuntimeError:  # such as writing into a tensor that is the same for the whole stack; a true error comes again
        return torch.stack([move(*entries) for entries in zip(*stacks, strict=True)])


def tracked(compute: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """What is computed of tensors while gradients are on, detached if they were off.

    Tangents of cotangents of ``linalg.solve``, ``det`` and ``slogdet``, batched over tangents, come out wrong in torch
    while gradients are off: their formulas then take a value that is being differentiated for a constant. Inference
    mode is left for the same reason, and the tensors are copied out of it.
    """
    if torch.is_grad_enabled():
        return compute(*tensors)
    leaving = torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext()
    with leaving, torch.enable_grad():
        value = compute(*map(outside_inference, tensors))
    return value.detach()
