"""Attention, taken apart into matrix products and a softmax."""

import functools
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pullgeo.errors import CoupledSamplesError
from pullgeo.jacobian.tracing.operations import operation
from pullgeo.jacobian.tracing.proxy import Untraceable
from pullgeo.jacobian.tracing.tape import Tape


@operation("scaled_dot_product_attention")
def scaled_dot_product_attention(
    tape: Tape,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: Any = None,
    enable_gqa: bool = False,
) -> Any:
    """``softmax(Q Kᵀ scale + mask) V`` (Vaswani et al., 2017, eq. 1)."""
    if dropout_p > 0:
        raise CoupledSamplesError(
            "Jacobian: the module calls scaled_dot_product_attention with dropout_p > 0 and so draws a new mask at "
            "every call; the map is not fixed. Pass 0.0 where module.training is False, and call module.eval() first."
        )
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)
    mask = _causal(query, key) if is_causal else attn_mask
    return attention(query, key, value, mask, scale)[0]


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: Any) -> tuple[Tensor, Tensor]:
    """What is attended to, and the weights.

    Raises:
        Untraceable: a query may look at nothing at all.
    """
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = (query * factor) @ key.mT
    if mask is not None:
        hidden = ~mask if mask.dtype == torch.bool else mask == -torch.inf
        if bool(hidden.all(-1).any()):
            raise Untraceable("attention whose mask hides everything from a query")
        scores = scores.masked_fill(hidden, -torch.inf) if mask.dtype == torch.bool else scores + mask
    weights = scores.softmax(-1)
    return weights @ value, weights


def multi_head_attention(
    module: nn.MultiheadAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """The ``forward`` of `torch.nn.MultiheadAttention` for a batch in front, in plain operations.

    Raises:
        CoupledSamplesError: the module takes the first dimension for a sequence.
    """
    if query.ndim != 3 or not module.batch_first:
        raise CoupledSamplesError(
            f"Jacobian: {type(module).__name__} takes the first dimension of {tuple(query.shape)} for a sequence, so "
            "samples attend to each other. Use batch_first=True and inputs (b, sequence, features)."
        )
    q, k, v = _projected(module, query, key, value)
    if module.bias_k is not None and module.bias_v is not None:
        k, v = (torch.cat([t, c.expand(len(t), 1, -1)], 1) for t, c in ((k, module.bias_k), (v, module.bias_v)))
    heads = module.num_heads
    q, k, v = (t.unflatten(-1, (heads, t.shape[-1] // heads)).transpose(1, 2) for t in (q, k, v))
    if module.add_zero_attn:
        k, v = (F.pad(t, (0, 0, 0, 1)) for t in (k, v))
    mask = _mask(query, attn_mask, key_padding_mask, heads, k.shape[-2])
    attended, weights = attention(q, k, v, mask, None)
    y = F.linear(attended.transpose(1, 2).flatten(2), module.out_proj.weight, module.out_proj.bias)
    if not need_weights:
        return y, None
    return y, weights.mean(1) if average_attn_weights else weights


def _projected(module: nn.MultiheadAttention, *inputs: Tensor) -> list[Tensor]:
    if module.in_proj_weight is None:
        weights = [module.q_proj_weight, module.k_proj_weight, module.v_proj_weight]
    else:
        weights = list(module.in_proj_weight.chunk(3))
    biases = [None] * 3 if module.in_proj_bias is None else list(module.in_proj_bias.chunk(3))
    if module.in_proj_weight is not None and inputs[0] is inputs[1] is inputs[2]:
        return list(F.linear(inputs[0], module.in_proj_weight, module.in_proj_bias).chunk(3, -1))
    return [F.linear(x, weight, bias) for x, weight, bias in zip(inputs, weights, biases, strict=True)]


def _mask(query: Tensor, attn_mask: Tensor | None, padding: Tensor | None, heads: int, keys: int) -> Tensor | None:
    """What is added to the scores, ``(b or 1, heads or 1, queries or 1, keys)``."""
    masks = []
    if attn_mask is not None:
        masks.append(attn_mask if attn_mask.ndim == 2 else attn_mask.unflatten(0, (-1, heads)))
    if padding is not None:
        masks.append(padding[:, None, None])
    added = [_additive(mask, query) for mask in masks]
    # keys that biases and zeros have added are seen by all
    padded = [F.pad(mask, (0, keys - mask.shape[-1])) for mask in added]
    return functools.reduce(torch.add, padded) if padded else None


def _additive(mask: Tensor, query: Tensor) -> Tensor:
    """Zero where a key is seen and minus infinity where it is hidden, which True stands for here."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, dtype=query.dtype, device=query.device).masked_fill(mask, -torch.inf)


def _causal(query: Tensor, key: Tensor) -> Tensor:
    return torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
