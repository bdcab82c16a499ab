"""The modules and tensors within a module, in lists: torch's own generators resume once a level for each of them."""

from collections.abc import Sequence

from torch import Tensor, nn


def named_modules(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """What ``module.named_modules()`` yields.

    Example:
        >>> [name for name, _ in named_modules(nn.Sequential(nn.Sequential(nn.Tanh()), nn.Tanh()))]
        ['', '0', '0.0', '1']
    """
    found: dict[int, tuple[str, nn.Module]] = {}
    todo: list[tuple[str, nn.Module]] = [("", module)]
    while todo:
        name, child = todo.pop()
        if id(child) in found:
            continue
        found[id(child)] = name, child
        inner = child._modules
        if inner:
            prefix = name + "." if name else ""
            todo += [(prefix + key, one) for key, one in reversed(inner.items()) if one is not None]
    return list(found.values())


def named_parameters_of(children: Sequence[tuple[str, nn.Module]]) -> list[tuple[str, nn.Parameter]]:
    """What ``module.named_parameters()`` yields, of the named modules within it.

    Example:
        >>> [name for name, _ in named_parameters_of(named_modules(nn.Sequential(nn.Linear(2, 3), nn.Tanh())))]
        ['0.weight', '0.bias']
    """
    found: dict[int, tuple[str, nn.Parameter]] = {}
    for path, child in children:
        if child._parameters:
            prefix = path + "." if path else ""
            for name, p in child._parameters.items():
                if p is not None and id(p) not in found:
                    found[id(p)] = prefix + name, p
    return list(found.values())


def parameters_of(children: Sequence[tuple[str, nn.Module]]) -> list[Tensor]:
    """The parameters that some modules hold by themselves, each once; in float64 copies they are plain tensors."""
    found: dict[int, Tensor] = {}
    for _, child in children:
        for p in child._parameters.values():
            if p is not None:
                found[id(p)] = p
    return list(found.values())


def buffers_of(children: Sequence[tuple[str, nn.Module]]) -> list[Tensor]:
    """The buffers that some modules hold by themselves."""
    found: list[Tensor] = []
    for _, child in children:
        if child._buffers:
            found += [b for b in child._buffers.values() if b is not None]
    return found
