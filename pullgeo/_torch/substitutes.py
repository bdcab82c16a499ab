"""Functions whose derivatives torch lacks or gets wrong, in operations that it differentiates right.

While a map is differentiated automatically, `Substituting` puts these formulas in place of torch's functions:

* weight norm: the derivative of its backward pass is wrong, so that second derivatives were;
* bags of embeddings, hard sigmoid, gated linear units, distances of all pairs: some derivative is missing; that of the
  hard sigmoid is rounded to single precision;
* bilinear forms: tangents would be moved one by one.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.jit._trace import TopLevelTracedModule
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

Function = Callable[..., Any]


def weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """``g v/‖v‖`` with the norm over all dimensions but one, or over all of them for -1."""
    others = [d for d in range(v.ndim) if dim == -1 or d != dim % v.ndim]
    return v * (g / torch.linalg.vector_norm(v, dim=others, keepdim=dim != -1))


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """``x/6 + 1/2`` clipped to [0, 1]."""
    y = (input / 6 + 0.5).clamp(0, 1)
    return input.copy_(y) if inplace else y


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """``a σ(g)`` of the halves ``a, g`` along a dimension."""
    a, g = input.chunk(2, dim)
    return a * torch.sigmoid(g)


def cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: Any = None) -> Tensor:
    """Distances between the rows of both."""
    return torch.linalg.vector_norm(x1.unsqueeze(-2) - x2.unsqueeze(-3), p, dim=-1)


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``xᵀ A_o z + c_o``."""
    y = torch.einsum("...i,oij,...j->...o", input1, weight, input2)
    return y if bias is None else y + bias


def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """Sum, average or maximum of the rows ``A_x(s)`` of a bag; bags that offsets mark stay torch's own."""
    if offsets is not None or max_norm is not None or input.ndim != 2 or input.is_nested or weight.ndim != 2:
        settings = (norm_type, scale_grad_by_freq, mode, sparse, per_sample_weights, include_last_offset, padding_idx)
        return F.embedding_bag(input, weight, offsets, max_norm, *settings)
    kept = torch.ones_like(input, dtype=torch.bool) if padding_idx is None else input != padding_idx % len(weight)
    rows = weight[input]
    if mode == "max":
        largest = rows.masked_fill(~kept.unsqueeze(-1), -torch.inf).max(1).values
        return largest.masked_fill(~kept.any(1, keepdim=True), 0.0)
    factor = kept.to(rows.dtype) if per_sample_weights is None else kept * per_sample_weights
    total = (factor.unsqueeze(-1) * rows).sum(1)
    return total / kept.sum(1, keepdim=True).clamp(min=1) if mode == "mean" else total


SUBSTITUTES: dict[Function, Function] = {
    torch._weight_norm: weight_norm,
    torch.bilinear: bilinear,
    torch.cdist: cdist,
    F.embedding_bag: embedding_bag,
    F.glu: glu,
    F.hardsigmoid: hardsigmoid,
}
"""What to compute in place of what."""


class Substituting(TorchFunctionMode):
    """Within this context, torch computes the substitutes."""

    def __torch_function__(
        self, func: Function, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """The substitute of a function, or the function."""
        return SUBSTITUTES.get(func, func)(*args, **(kwargs or {}))


class Watching(TorchFunctionMode):
    """Sees whether what runs within this context does what forward mode does not know of.

    Attributes:
        widest: bytes of the largest tensor that it computes.
        switched: whether gradients were switched off or on.
        compiled: whether a module scripted by TorchScript ran; its forward derivatives are zero once it has optimised
            itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self.widest = 0
        self.switched = False
        self.compiled = False

    def __enter__(self) -> "Watching":
        """Watch, modules that are called included."""
        self._hook = register_module_forward_pre_hook(self._called)
        super().__enter__()
        return self

    def __exit__(self, *reason: Any) -> None:
        """Watch no longer."""
        self._hook.remove()
        super().__exit__(*reason)

    def _called(self, module: nn.Module, args: Any) -> None:
        # traced modules keep their derivatives
        scripted = isinstance(module, torch.jit.ScriptModule) and not isinstance(module, TopLevelTracedModule)
        self.compiled = self.compiled or scripted

    def __torch_function__(
        self, func: Function, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """The function itself."""
        self.switched = self.switched or func is torch._C._set_grad_enabled
        answer = func(*args, **(kwargs or {}))
        if isinstance(answer, Tensor):
            self.widest = max(self.widest, answer.numel() * answer.element_size())
        return answer
