"""Which path serves which part of a network."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from pullgeo.errors import ModuleError
from pullgeo.jacobian.checks import check_wrt
from pullgeo.jacobian.linearize import linearize, linearize_input
from pullgeo.jacobian.registry import rule_for, served_class
from pullgeo.jacobian.tracing.calls import Note, Served
from pullgeo.jacobian.tracing.module_proxy import runs_more_than_forward, uncompiled
from pullgeo.jacobian.tracing.proxy import Untraceable
from pullgeo.jacobian.tracing.trace import Recording
from pullgeo.jacobian.weights.parameters import ParameterLayout
from pullgeo.typing import Parameters


@dataclass(frozen=True)
class Row:
    """One module of a network.

    Attributes:
        name: as in ``named_modules``; the network itself has the empty name.
        cls: name of its class.
        path: ``"rule"`` (a Jacobian in closed form), ``"graph"`` (its operations were recorded, and each has a
            derivative), ``"autodiff"`` (exact by `torch.func`, without structure), ``"not called"`` or ``"unknown"``.
        why: what decided it.
    """

    name: str
    cls: str
    path: Served
    why: str


@dataclass(frozen=True)
class Explanation:
    """A row for each module of a network, in the order of ``named_modules``; printed, a table."""

    rows: tuple[Row, ...]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str) -> Row:
        """The row of the module of this name.

        Raises:
            KeyError: the network has no such module.
        """
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    def __str__(self) -> str:
        table = [("module", "class", "path", "why")]
        table += [(row.name or "(the network)", row.cls, row.path, row.why) for row in self.rows]
        widths = [max(len(entry) for entry in column) for column in zip(*table, strict=True)]
        lines = ["  ".join(entry.ljust(width) for entry, width in zip(row, widths, strict=True)) for row in table]
        return "\n".join(line.rstrip() for line in lines)


def explain(
    module: nn.Module, x: Tensor | None = None, wrt: str = "input", parameters: Parameters = "all"
) -> Explanation:
    """Which path serves each module of a network when it is linearised: a rule, a graph, or automatic differentiation.

    All three are exact. Rules and graphs keep structure, which makes diagonals, squared maps, second derivatives and
    everything with respect to weights cheap; automatic differentiation costs a pass for each direction, and for weights
    a pass for each sample too. See `linearize` for the order in which they are tried, and `rule` for adding one.

    Args:
        module: the network.
        x: a batch, ``(b, *x)``. Without one, only what does not depend on it is known: rules, and hooks.
        wrt: ``"input"`` or ``"weight"``, as for `linearize`.
        parameters: which parameters are the weights, as for `linearize`.

    Returns:
        A table with the reasons.

    Raises:
        OptionError, ShapeError, DtypeError, DeviceError, CoupledSamplesError, ModuleError: as `linearize`, given x.

    Cost: without x nothing, with x two forward passes.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> class Residual(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.inner = nn.Linear(2, 2)
        ...     def forward(self, x):
        ...         return x + torch.tanh(self.inner(x))
        >>> print(explain(nn.Sequential(Residual(), nn.Softmax(1)), torch.zeros(3, 2)))
        module         class       path   why
        (the network)  Sequential  graph  a chain of its children
        0              Residual    graph  its forward was recorded
        0.inner        Linear      rule   its class has a rule
        1              Softmax     rule   its class has a rule
    """
    check_wrt(wrt)
    if x is None:
        notes = {id(child): _without_batch(child) for child in module.modules()}
    else:
        linearize(module, x, wrt, parameters)  # what it refuses is refused here
        notes = _notes(module, x, wrt, parameters)
    return Explanation(tuple(_rows(module, notes)))


def _without_batch(module: nn.Module) -> Note:
    if served_class(module) is nn.Sequential:
        return Note("graph", "a chain of its children")
    if rule_for(module) is not None:
        return Note("rule", "its class has a rule")
    if runs_more_than_forward(module):
        return Note("autodiff", "it has hooks, or a forward of its own instance")
    return Note("unknown", "depends on what its forward does with a batch: pass one")


def _notes(module: nn.Module, x: Tensor, wrt: str, parameters: Parameters) -> dict[int, Note]:
    """What served the modules that were called, by their ids."""
    if wrt == "input" and served_class(module) is nn.Sequential:
        return _notes_of_chain(cast(nn.Sequential, module), x)
    if wrt == "input" and rule_for(module) is not None:
        return {id(module): Note("rule", "its class has a rule")}
    recording = Recording(module, x, ParameterLayout.of(module, parameters).parameters if wrt == "weight" else ())
    try:
        recording.run()
    except Untraceable as failure:
        return {id(module): Note("autodiff", str(failure))}
    return recording.calls.notes


def _notes_of_chain(module: nn.Sequential, x: Tensor) -> dict[int, Note]:
    notes = {id(module): Note("graph", "a chain of its children")}
    try:
        for child in module:
            notes |= _notes(child, x, "input", "all")
            x, _ = linearize_input(child, x)
    except ModuleError as failure:
        return {id(module): Note("autodiff", str(failure))}
    return notes


def _rows(module: nn.Module, notes: dict[int, Note]) -> Iterator[Row]:
    inside: dict[str, tuple[Served, str]] = {}
    for name, child in module.named_modules():
        around = next((inside[above] for above in _above(name) if above in inside), None)
        note = notes.get(id(uncompiled(child)))
        if around is not None:
            path, why = around
        elif note is not None:
            path, why = note.path, note.why
        else:
            path, why = "not called", "forward does not call it"
        if around is None and path in ("rule", "autodiff"):
            inside[name] = (path, f"inside {name or 'the network'}")
        yield Row(name, type(child).__name__, path, why)


def _above(name: str) -> Iterator[str]:
    """The names of the modules around one, from the outside."""
    parts = name.split(".") if name else []
    yield from (".".join(parts[:i]) for i in range(len(parts)))
