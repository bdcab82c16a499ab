"""Any module, as one with Jacobian products."""

from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from pullgeo.errors import ModuleError
from pullgeo.nnj.classes import PRODUCT_NAMES, class_for, computes
from pullgeo.nnj.clone_references import redirected


def convert_to_nnj(module: nn.Module) -> nn.Module:
    """A clone of a module, and of all modules in it, whose classes have Jacobian products.

    The clone holds the very same Parameters and buffers: train one and both are trained. Every setting, train or eval
    mode, hook, parametrization, name and ``state_dict`` key is kept; a module that appears twice is converted once.
    The original is left as it is. Classes of torch.nn become those of `pullgeo.nnj`; any other class becomes a
    subclass of itself with the products added, where a method of its own under the same name stays in force.
    Containers without a ``forward`` and losses keep their class.

    Args:
        module: any `torch.nn.Module`.

    Returns:
        The clone. It can be copied and pickled where the original can.

    Raises:
        ModuleError: it is no module, not materialised yet, compiled, or holds a submodule,
            parameter or buffer under the name of a product.

    Example:
        >>> import torch
        >>> f = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh())
        >>> g = convert_to_nnj(f)
        >>> g.jTmjp(torch.zeros(7, 2)).shape, g[0].weight is f[0].weight
        (torch.Size([7, 2, 2]), True)
    """
    if not isinstance(module, nn.Module):
        raise ModuleError(f"convert_to_nnj: expected a torch.nn.Module, got {type(module).__name__}.")
    _check(module)
    clones: dict[int, Any] = {}
    for child in module.modules():
        clones[id(child)] = _empty_clone(child)
    for child in module.modules():
        clone = clones[id(child)]
        for name, value in vars(child).items():
            vars(clone)[name] = redirected(value, clones)
    return clones[id(module)]


def _check(module: nn.Module) -> None:
    if any(is_lazy(p) for p in [*module.parameters(), *module.buffers()]):
        raise ModuleError("convert_to_nnj: a lazy module has no parameters yet. Call the module once on a batch first.")
    for path, child in module.named_modules():
        where = f"{type(child).__name__} ({path or 'the module itself'})"
        if isinstance(child, torch.jit.ScriptModule) or ("_orig_mod" in child._modules and "forward" in vars(child)):
            raise ModuleError(
                f"convert_to_nnj: {where} is compiled, by TorchScript or torch.compile. Convert the module that was "
                "compiled."
            )
        held = {*child._modules, *child._parameters, *child._buffers}
        if computes(type(child)) and not PRODUCT_NAMES.isdisjoint(held):
            raise ModuleError(
                f"convert_to_nnj: {where} holds {', '.join(sorted(PRODUCT_NAMES & held))}, a name that the products "
                "need. Use the functions in pullgeo.nnj.products, which take the module as it is."
            )


def _empty_clone(module: nn.Module) -> nn.Module:
    cls = type(module)
    # without a constructor: a clone gets the attributes of the original, whatever made them
    return object.__new__(class_for(cls) if _gets_products(module) else cls)


def _gets_products(module: nn.Module) -> bool:
    not_layers = (nn.ModuleList, nn.ModuleDict, nn.modules.loss._Loss, parametrize.ParametrizationList)
    return computes(type(module)) and not isinstance(module, not_layers)
