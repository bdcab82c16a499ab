"""Every layer of torch.nn, with Jacobian products, under its own name.

The classes are made from the installed torch, so that a layer that a new release adds is here too. Its containers
without a ``forward`` and its losses are torch's own.
"""

import inspect

from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from pullgeo.nnj.classes import torch_class

_NOT_LAYERS = ("container", "loss", "adaptive", "data_parallel", "module")
"""Files of torch.nn whose classes are containers, or compare an output with a target."""


def torch_modules() -> dict[str, type[nn.Module]]:
    """Every module class that torch.nn exports, by name."""
    return {
        name: cls
        for name, cls in sorted(vars(nn).items())
        if inspect.isclass(cls) and issubclass(cls, nn.Module) and cls is not nn.Module
    }


def is_layer(cls: type[nn.Module]) -> bool:
    """Whether a class of torch.nn maps an input to an output."""
    return cls.__module__.rpartition(".")[2] not in _NOT_LAYERS


LAYERS = {name: torch_class(cls, __name__) for name, cls in torch_modules().items() if is_layer(cls)}
"""The classes made here, by name."""

OTHERS = {name: cls for name, cls in torch_modules().items() if not is_layer(cls) and cls is not nn.Sequential}
"""Classes that are re-exported as they are."""

PARTS = {"Buffer": nn.Buffer} if hasattr(nn, "Buffer") else {}
"""What modules are made of, as far as the installed torch has it: buffers came with 2.5."""

for _layer in LAYERS.values():
    if issubclass(_layer, LazyModuleMixin) and _layer.cls_to_become is not None:
        _layer.cls_to_become = LAYERS[_layer.cls_to_become.__name__]  # what it becomes has products as well

globals().update(LAYERS)
