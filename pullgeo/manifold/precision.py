"""A decoder as it is, in double precision: solvers need it, whatever the precision it was trained in."""

import copy
from types import MethodType
from typing import TypeVar

import torch
from torch import Tensor, nn

from pullgeo.typing import Decoder

Module = TypeVar("Module", bound=nn.Module)


def in_double(decoder: Decoder) -> Decoder:
    """The same decoder with every floating point parameter and buffer in float64.

    Modules, and bound methods of modules, are copied; the copy's weights are ``p.double()`` of the original's, so they
    are the present ones and gradients flow back to them. The original is not touched. A plain function cannot be
    converted and is returned as it is: it must take float64 latents.

    Cost: one copy of the weights (none where they are float64 already).
    """
    if isinstance(decoder, nn.Module):
        return _module_in_double(decoder)
    if isinstance(decoder, MethodType) and isinstance(decoder.__self__, nn.Module):
        return MethodType(decoder.__func__, _module_in_double(decoder.__self__))
    return decoder


def is_single(decoder: Decoder) -> bool:
    """Whether a decoder is a module, or a bound method of one, whose parameters and buffers are in float32."""
    module = decoder.__self__ if isinstance(decoder, MethodType) else decoder
    if not isinstance(module, nn.Module):
        return False
    dtypes = {t.dtype for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()}
    return dtypes == {torch.float32}


def _module_in_double(module: Module) -> Module:
    tensors: list[Tensor] = [*module.parameters(), *module.buffers()]
    # deepcopy takes what the memo names instead of copying it; parameters may thus be replaced by non-leaf tensors
    memo = {id(t): t.to(torch.float64) if t.is_floating_point() else t for t in tensors}
    return copy.deepcopy(module, memo)
