"""From a module and a batch to its graph."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pullgeo._torch.checkpoint import checkpoints_kept
from pullgeo._torch.guard import Guard
from pullgeo._torch.submodules import all_parameters
from pullgeo.errors import ModuleError
from pullgeo.jacobian.base import Jacobian
from pullgeo.jacobian.checks import check_fixed
from pullgeo.jacobian.kinds.chain import compose
from pullgeo.jacobian.kinds.graph import Edge, Graph, Node
from pullgeo.jacobian.kinds.linear_map import Reshape
from pullgeo.jacobian.registry import overrides_call
from pullgeo.jacobian.signature import Signature
from pullgeo.jacobian.tracing.calls import Calls
from pullgeo.jacobian.tracing.dispatch import dispatch
from pullgeo.jacobian.tracing.functions import double_of
from pullgeo.jacobian.tracing.module_proxy import double, uncompiled
from pullgeo.jacobian.tracing.proxy import Recorded, Untraceable
from pullgeo.jacobian.tracing.tape import Tape
from pullgeo.jacobian.weights.parameters import ParameterLayout
from pullgeo.jacobian.weights.weight_graph import Stage
from pullgeo.typing import Decoder


def record_input(module: Decoder, x: Tensor) -> tuple[Tensor, Jacobian]:
    """The value of a map and its derivative with respect to the input: a graph, or a chain if nothing branches.

    A module's ``forward`` runs once, on a double of the module, with a recorded stand-in for ``x``; a function
    likewise, with doubles of the modules that it holds.

    Raises:
        Untraceable: the module does something that no graph knows; the text says what.
        CoupledSamplesError: the module mixes samples or draws random numbers.
        ModuleError: the module switches gradients off for its output.
    """
    recording = Recording(module, x)
    y, output = recording.run()
    recorded = recording.tape.nodes
    order = _leading_to(recorded, output)
    if len(order) == output + 1:  # nothing to leave out
        nodes = tuple(recorded[: output + 1])
    else:
        edges = _subgraph(recorded, order)
        nodes = tuple(Node(arriving, recorded[i].interaction) for i, arriving in edges.items())
    if all(len(node.edges) == 1 and node.edges[0].parent == i for i, node in enumerate(nodes[1:])):
        return y, compose([node.edges[0].J for node in nodes[1:]] or [Reshape(Signature.between(x, y))])
    return y, Graph(nodes, Signature.between(x, y))


def record_weight(module: nn.Module, x: Tensor, layout: ParameterLayout) -> tuple[Tensor, list[Stage]]:
    """The value of a module and the stages of its derivative with respect to the weights.

    Raises:
        Untraceable: the module does something that no graph knows; the text says what.
        CoupledSamplesError: the module mixes samples or draws random numbers.
    """
    recording = Recording(module, x, layout.parameters)
    y, output = recording.run()
    tape = recording.tape
    moved: set[int] = set()
    for i, node in enumerate(tape.nodes):
        if i in tape.own or any(edge.parent in moved for edge in node.edges):
            moved.add(i)
    if output not in moved:
        raise Untraceable("its output does not depend on its parameters")
    edges = _subgraph(tape.nodes, [i for i in _leading_to(tape.nodes, output) if i in moved])
    return y, [Stage(tape.own.get(i), arriving) for i, arriving in edges.items()]


class Recording:
    """One run of a map on a batch.

    Args:
        module: any module, or a function.
        x: the batch.
        parameters: those that are differentiated, if any are.
    """

    def __init__(self, module: Decoder, x: Tensor, parameters: Sequence[nn.Parameter] = ()) -> None:
        fixed: frozenset[int] = frozenset()
        root = None
        if isinstance(module, nn.Module):
            module = root = uncompiled(module)
            differentiated = set(map(id, parameters))
            fixed = frozenset(map(id, all_parameters(root))) - differentiated
        self.tape = Tape(len(x), dispatch, parameters, fixed)
        self.calls = Calls(self.tape, root)
        self._module, self._x = module, x

    def run(self) -> tuple[Tensor, int]:
        """The module's value, and the node that it is."""
        doubles: dict[int, nn.Module] = {}
        try:
            with checkpoints_kept(), torch.enable_grad():  # so that it shows where the module switches gradients off
                y = self._called(self.tape.input(self._x), doubles)
        finally:
            self.tape.closed = True
            for twin in doubles.values():  # one that was kept is an ordinary module, and nothing refers to itself
                del vars(twin)["forward"]
        return self._checked(y)

    def _called(self, x: Recorded, doubles: dict[int, nn.Module]) -> Any:
        def doubled(module: nn.Module) -> nn.Module:
            return double(module, self.calls.call, self.tape.parameters, doubles)

        module = self._module
        if isinstance(module, nn.Module):
            root = doubled(module)
            return root(x) if overrides_call(type(module)) else self.calls.call(module, root, (x,), {})

        def checked(held: nn.Module) -> nn.Module:
            check_fixed(held)
            return doubled(held)

        function = double_of(module, checked)
        with Guard():
            y = function(x)
        if self.tape.failure is not None:
            raise self.tape.failure
        return y

    def _checked(self, y: Any) -> tuple[Tensor, int]:
        if isinstance(y, Tensor) and not isinstance(y, Recorded) and self.tape.stopped:
            raise ModuleError(
                f"Jacobian: {type(self._module).__name__} computes its output under torch.no_grad, so torch sees no "
                "derivative. Take the no_grad, which may be a decorator, away from its forward; call it under no_grad."
            )
        if not isinstance(y, Recorded) or y.state.node is None:
            raise Untraceable("its output is not one tensor that depends on the input")
        if y.state.value.device != self._x.device:
            raise Untraceable(f"its output is on {y.state.value.device}")
        if not y.state.per_sample:
            raise Untraceable("its output is the same for every sample")
        return y.state.value, y.state.node


def _leading_to(nodes: Sequence[Node], output: int) -> list[int]:
    """The nodes that an output is computed from, itself included, in order."""
    wanted = {output}
    for i in reversed(range(output + 1)):
        if i in wanted:
            for edge in nodes[i].edges:
                wanted.add(edge.parent)
    return sorted(wanted)


def _subgraph(nodes: Sequence[Node], order: Sequence[int]) -> dict[int, tuple[Edge, ...]]:
    """The edges between some of the nodes, these numbered anew; by the old numbers."""
    new = {old: number for number, old in enumerate(order)}
    return {i: tuple(Edge(new[e.parent], e.J) for e in nodes[i].edges if e.parent in new) for i in order}
