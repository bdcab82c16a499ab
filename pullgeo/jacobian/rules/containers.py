"""Sequential: a chain of its children's Jacobians."""

from torch import Tensor, nn

from pullgeo.errors import ModuleError
from pullgeo.jacobian.base import Jacobian
from pullgeo.jacobian.kinds.chain import compose
from pullgeo.jacobian.kinds.linear_map import Reshape
from pullgeo.jacobian.linearize import by_autodiff, linearize_input
from pullgeo.jacobian.registry import rule, rule_for
from pullgeo.jacobian.signature import Signature


@rule(nn.Sequential)
def sequential(module: nn.Sequential, x: Tensor) -> tuple[Tensor, Jacobian]:
    """Children one after another; a child that hands on no tensor per sample makes the whole one autodiff Jacobian."""
    stages: list[Jacobian] = []
    y = x
    try:
        for child in module:
            found = None if y.is_complex() else rule_for(child)
            y, J = linearize_input(child, y) if found is None else found(child, y)
            stages.append(J)
    except ModuleError:
        return by_autodiff(module, x)
    return y, compose(stages or [Reshape(Signature.between(x, x))])
