"""Where each parameter of a module stands in its flat vector of weights.

A complex parameter has two coordinates for each entry, its real and its imaginary part, in the order of
``torch.view_as_real``; so all weights are one real vector, and its gradient is what torch keeps in ``grad``.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from pullgeo._torch.submodules import named_parameters
from pullgeo.errors import OptionError
from pullgeo.typing import Parameters


def coordinate_count(parameter: Tensor) -> int:
    """How many real numbers a parameter holds."""
    return parameter.numel() * (2 if parameter.is_complex() else 1)


def to_coordinates(parameter: Tensor) -> Float[Tensor, " n"]:
    """The real numbers that a parameter holds, connected to it for differentiation."""
    real = torch.view_as_real(parameter.resolve_conj()) if parameter.is_complex() else parameter
    return real.reshape(-1)


def from_coordinates(flat: Float[Tensor, "*b n"], parameter: Tensor) -> Num[Tensor, "..."]:
    """What the coordinates of a parameter stand for: tensors of its shape, complex if it is."""
    if not parameter.is_complex():
        return flat.reshape((*flat.shape[:-1], *parameter.shape))  # of a single number the shape may be empty
    pairs = flat.reshape(*flat.shape[:-1], *parameter.shape, 2)
    return torch.complex(pairs[..., 0], pairs[..., 1])  # view_as_complex fails under transforms


@dataclass(frozen=True, eq=False)
class ParameterLayout:
    """The order of ``torch.nn.utils.parameters_to_vector(module.parameters())``: each distinct parameter once.

    Args:
        names: of the parameters that count.
        parameters: these parameters.
    """

    names: tuple[str, ...]
    parameters: tuple[nn.Parameter, ...]

    @classmethod
    def of(cls, module: nn.Module, parameters: Parameters = "all", where: str = "Jacobian") -> "ParameterLayout":
        """The layout of a module's parameter vector, or of the part of it that some of the parameters are.

        A parameter that has several names, because layers share it, is chosen by any of them and counts once.

        Args:
            module: the module.
            parameters: ``"all"``; ``"trainable"`` for those that require gradients; a name as in
                ``module.named_parameters()``, a pattern as in the shell (``"*.bias"``, ``"encoder.*"``), or several of
                these; or a function ``(name, parameter) -> bool``.
            where: who asks, for messages.

        Raises:
            OptionError: a name or a pattern fits no parameter, nothing is chosen, or ``parameters`` is something else.

        Example:
            >>> f = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 5))
            >>> ParameterLayout.of(f, ["1.*", "0.bias"]).names
            ('0.bias', '1.weight', '1.bias')
        """
        named: list[tuple[str, Any]] = named_parameters(module)
        if not (isinstance(parameters, str) and parameters == "all"):
            chosen = _chosen(where, module, parameters)
            named = [(name, p) for name, p in named if id(p) in chosen]
            if not named:
                raise OptionError(
                    f"{where}: parameters={_shown(parameters)} chooses none of the {_count(module)} parameters of "
                    f"{type(module).__name__}. Choose at least one, or leave parameters='all'."
                )
        return cls(*zip(*named, strict=True)) if named else cls((), ())

    @cached_property
    def ids(self) -> frozenset[int]:
        """The ids of the parameters that count."""
        return frozenset(map(id, self.parameters))

    def own(self, module: nn.Module) -> tuple[nn.Parameter, ...]:
        """Those parameters of a module that count, in the module's order."""
        return tuple(p for p in module.parameters() if id(p) in self.ids)

    @cached_property
    def sizes(self) -> list[int]:
        """Number of weights in each parameter."""
        return [coordinate_count(p) for p in self.parameters]

    @cached_property
    def size(self) -> int:
        """Number of weights."""
        return sum(self.sizes)

    def vector(self) -> Float[Tensor, " p"]:
        """The weights as one vector, connected to the parameters for differentiation."""
        return torch.cat([to_coordinates(p) for p in self.parameters])

    def split(self, theta: Num[Tensor, "*b p"]) -> list[Num[Tensor, "*b _"]]:
        """The flat pieces that belong to each parameter."""
        return list(theta.split(self.sizes, dim=-1))

    def named(self, theta: Float[Tensor, " p"]) -> dict[str, Tensor]:
        """Parameters by name, in their own shapes, as ``torch.func.functional_call`` takes them."""
        pieces = self.split(theta)
        return {n: from_coordinates(piece, p) for n, p, piece in zip(self.names, self.parameters, pieces, strict=True)}

    def gather(self, theta: Float[Tensor, "*b p"], parameters: Iterable[nn.Parameter]) -> Float[Tensor, "*b _"]:
        """The coordinates of the given parameters, in the given order."""
        pieces = {id(p): piece for p, piece in zip(self.parameters, self.split(theta), strict=True)}
        return torch.cat([pieces[id(p)] for p in parameters], dim=-1)


def check_selection(where: str, wrt: str, parameters: Parameters) -> None:
    """Raise if parameters are chosen where nothing is differentiated with respect to them.

    Raises:
        OptionError: they are.
    """
    if wrt == "input" and not (isinstance(parameters, str) and parameters == "all"):
        raise OptionError(f"{where}: parameters= is for wrt='weight'; with respect to the input leave it out.")


def _chosen(where: str, module: nn.Module, parameters: Any) -> set[int]:
    """The ids of the parameters that a caller names."""
    every = list(module.named_parameters(remove_duplicate=False))
    if isinstance(parameters, str) and parameters == "trainable":
        return {id(p) for _, p in every if p.requires_grad}
    if isinstance(parameters, str):
        parameters = [parameters]
    elif callable(parameters):
        return {id(p) for name, p in every if parameters(name, p)}
    elif not isinstance(parameters, Iterable):
        raise _refused(where, parameters)
    return {number for pattern in parameters for number in _fitting(where, module, every, pattern)}


def _fitting(where: str, module: nn.Module, every: list[tuple[str, nn.Parameter]], pattern: Any) -> Iterator[int]:
    if not isinstance(pattern, str):
        raise _refused(where, pattern)
    found = [id(p) for name, p in every if name == pattern or fnmatchcase(name, pattern)]
    if not found:
        names = ", ".join(name for name, _ in every[:_SHOWN]) + (", ..." if len(every) > _SHOWN else "")
        raise OptionError(
            f"{where}: parameters={pattern!r} is the name of no parameter of {type(module).__name__}, nor a pattern "
            f"that one fits. It has {names or 'none'}."
        )
    yield from found


_SHOWN = 8
"""How many names a message lists."""


def _refused(where: str, given: Any) -> OptionError:
    return OptionError(
        f"{where}: parameters must be 'all', 'trainable', names or patterns of names, or a function (name, parameter) "
        f"-> bool; got {_shown(given)}."
    )


def _shown(given: Any) -> str:
    return repr(given) if isinstance(given, str | list | tuple | set | frozenset) else type(given).__name__


def _count(module: nn.Module) -> int:
    return sum(1 for _ in module.parameters())
