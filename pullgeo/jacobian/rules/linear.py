"""Linear, with respect to input and weight."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from pullgeo.jacobian.base import Jacobian
from pullgeo.jacobian.kinds.linear_map import LinearMap, shared
from pullgeo.jacobian.registry import rule, weight_rule
from pullgeo.jacobian.rules.layout import require_batch
from pullgeo.jacobian.signature import Signature
from pullgeo.jacobian.weights.linear import LinearWeight


@rule(nn.Linear)
def linear(module: nn.Linear, x: Tensor) -> tuple[Tensor, Jacobian]:
    """``y = A x + c`` over the last dimension."""
    if x.ndim < 2:
        require_batch(module, x, 1)
    own: dict[str, Any] = module._parameters  # an attribute of a module is found the slow way
    plain = "weight" in own and "bias" in own
    weight, bias = (own["weight"], own["bias"]) if plain else (module.weight, module.bias)
    y = F.linear(x, weight, bias)
    return y, LinearMap(
        Signature.between(x, y),
        forward=shared(lambda T: F.linear(T, weight)),
        backward=lambda W: W @ weight,
        forward_squared=lambda v: F.linear(v, weight.square()),
        backward_squared=lambda w: w @ weight.square(),
        matrix=weight if x.ndim == 2 else None,
    )


@weight_rule(nn.Linear)
def linear_weight(module: nn.Linear, x: Tensor) -> Jacobian:
    """``δy = δA x + δc``."""
    require_batch(module, x, 1)
    n, i, has_bias = module.out_features, module.in_features, module.bias is not None
    size = n * i + (n if has_bias else 0)
    signature = Signature(len(x), (size,), (*x.shape[1:-1], n), x.dtype, x.device)
    return LinearWeight(x.reshape(len(x), -1, i) if x.numel() else x.new_zeros(0, 1, i), n, has_bias, signature)
