"""Embedding and EmbeddingBag, with respect to their table; indices have no derivative."""

from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from pullgeo.errors import ModuleError, ShapeError
from pullgeo.jacobian.base import Jacobian
from pullgeo.jacobian.registry import rule, weight_rule
from pullgeo.jacobian.signature import Signature
from pullgeo.jacobian.weights.lookup import LookupWeight


@rule(nn.Embedding, nn.EmbeddingBag)
def no_input_derivative(module: nn.Embedding | nn.EmbeddingBag, x: Tensor) -> NoReturn:
    """Refused: the input is discrete."""
    raise ModuleError(
        f"Jacobian: {module} maps indices, which have no derivative, so there is no wrt='input'. Use wrt='weight', or "
        "linearize the layers after it at the embedded points."
    )


@weight_rule(nn.Embedding)
def embedding_weight(module: nn.Embedding, x: Tensor) -> Jacobian:
    """``δy_s = δA_x(s)``; zero at ``padding_idx``, as torch has it.

    ``scale_grad_by_freq`` and ``sparse`` concern gradients of a whole batch as optimisers see them, not the derivative.
    """
    index = x.long().reshape(len(x), x.shape[1:].numel(), 1)
    factor = _kept(module, index)
    return _lookup(module, index, factor, False, (*x.shape[1:], module.embedding_dim))


@weight_rule(nn.EmbeddingBag)
def embedding_bag_weight(module: nn.EmbeddingBag, x: Tensor) -> Jacobian:
    """Sum, average or maximum of the ``δA_x(s)`` of a bag; indices equal to ``padding_idx`` are left out."""
    if x.ndim != 2:
        raise ShapeError(
            f"Jacobian: {module} needs indices of shape (b, bag size), got {tuple(x.shape)}. Bags of different sizes, "
            "which offsets mark, are not served: fill them up with padding_idx."
        )
    index = x.long().unsqueeze(2)
    kept = _kept(module, index)
    if module.mode == "max":
        return _lookup(module, *_largest(module, x, kept), False, (module.embedding_dim,))
    factor = kept / kept.sum(1, keepdim=True).clamp(min=1) if module.mode == "mean" else kept
    return _lookup(module, index, factor, True, (module.embedding_dim,))


def _kept(module: nn.Embedding | nn.EmbeddingBag, index: Tensor) -> Tensor:
    """One for every index that counts, zero where it is padding."""
    kept = torch.ones_like(index) if module.padding_idx is None else index != module.padding_idx
    return kept.to(module.weight.dtype)


def _largest(module: nn.EmbeddingBag, x: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """For every column the row of the table that torch takes as the maximum of the bag, and whether there is one."""
    offsets = torch.arange(0, x.numel(), x.shape[1], device=x.device, dtype=x.dtype)
    settings: Any = (False, 2, False, None, False, module.padding_idx)
    found = torch.embedding_bag(module.weight, x.reshape(-1), offsets, *settings)
    return found[3].long().unsqueeze(1), kept.amax(1, keepdim=True)


def _lookup(
    module: nn.Embedding | nn.EmbeddingBag, index: Tensor, factor: Tensor, added: bool, out_shape: tuple[int, ...]
) -> LookupWeight:
    table = (module.num_embeddings, module.embedding_dim)
    signature = Signature(len(index), (module.weight.numel(),), out_shape, module.weight.dtype, module.weight.device)
    return LookupWeight(index, factor, table, added, signature)
