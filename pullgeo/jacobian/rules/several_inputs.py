"""Layers that take more than one tensor, and so are no map of one batch."""

from typing import NoReturn

from torch import Tensor, nn

from pullgeo.errors import ModuleError
from pullgeo.jacobian.registry import rule

ARGUMENTS: dict[type[nn.Module], str] = {
    nn.MaxUnpool1d: "the values and the indices that the pooling returned",
    nn.MaxUnpool2d: "the values and the indices that the pooling returned",
    nn.MaxUnpool3d: "the values and the indices that the pooling returned",
    nn.Bilinear: "two tensors",
}
"""What each of these classes takes."""


@rule(*ARGUMENTS)
def several_inputs(module: nn.Module, x: Tensor) -> NoReturn:
    """Refused, with the way out."""
    takes = next(arguments for cls, arguments in ARGUMENTS.items() if isinstance(module, cls))
    raise ModuleError(
        f"Jacobian: {module} takes {takes}, got the one tensor x. Wrap it in a module of one tensor that supplies the "
        "others, or linearize the network that it is part of."
    )
