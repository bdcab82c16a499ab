"""A layer of your own: its formula, its weights, and the proof that both are right."""

import torch
from torch import Tensor, nn

from pullgeo import linearize
from pullgeo.jacobian import BroadcastWeight, Elementwise, Signature, explain, rule, weight_rule
from pullgeo.testing import check_rule


class Snake(nn.Module):
    """``x + sin²(a x) / a``, with a frequency for each feature that is learned (Ziyin et al., 2020, eq. 3)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.linspace(0.5, 2.0, features))

    def forward(self, x: Tensor) -> Tensor:
        """As above."""
        return x + torch.sin(self.a * x).square() / self.a


# rule: with respect to the input
@rule(Snake)
def snake(module: Snake, x: Tensor) -> tuple[Tensor, Elementwise]:
    """``1 + sin(2 a x)`` and, when it is asked for, ``2 a cos(2 a x)``."""
    angle = 2 * module.a * x
    return module.forward(x), Elementwise(1 + torch.sin(angle), lambda: 2 * module.a * torch.cos(angle))


# weight rule: with respect to the parameters
@weight_rule(Snake)
def snake_weight(module: Snake, x: Tensor) -> BroadcastWeight:
    """``(x sin(2 a x) - sin²(a x) / a) / a``, each frequency for its own feature."""
    a = module.a
    slope = (x * torch.sin(2 * a * x) - torch.sin(a * x).square() / a) / a
    signature = Signature(len(x), (a.numel(),), tuple(x.shape[1:]), x.dtype, x.device)
    return BroadcastWeight(slope, (*[1] * (x.ndim - 2), a.numel()), signature)


# proof
def main() -> None:
    """Every product against automatic differentiation, one sample and one output at a time."""
    x = torch.randn(3, 2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    check_rule(Snake(5).double(), x)
    check_rule(Snake(5).double(), x, wrt="weight")

    network = nn.Sequential(nn.Linear(5, 7), Snake(7), nn.Linear(7, 2)).double()
    y, J = linearize(network, x, wrt="weight")
    print(explain(network, x))
    print("values", tuple(y.shape), "and gradients", tuple(J.pull(torch.ones_like(y)[None]).shape))


if __name__ == "__main__":
    main()
