"""What is written down of a run: values, and the graph of their derivatives."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pullgeo._torch.torch_names import Function
from pullgeo.jacobian.base import Jacobian
from pullgeo.jacobian.kinds.graph import Edge, Interaction, Node
from pullgeo.jacobian.kinds.linear_map import Reshape
from pullgeo.jacobian.signature import Signature
from pullgeo.jacobian.tracing.proxy import Family, Recorded, State, Untraceable
from pullgeo.jacobian.weights.parameters import ParameterLayout
from pullgeo.jacobian.weights.weight_graph import ParameterBlock

Argument = tuple[Recorded, Jacobian]
"""A tensor that an operation takes, and the derivative of the operation with respect to it."""


class Tape:
    """The nodes that a run has made so far.

    Values are computed by torch itself, at the batch at hand, under the caller's grad mode; so shapes are numbers, and
    Python's ``if`` and ``for`` run as they are.

    Args:
        batch: number of samples.
        dispatch: ``(tape, function, args, kwargs)``, which computes a function of recorded tensors and notes it.
        parameters: those that are differentiated, if any are.
        fixed: ids of the module's other parameters.
    """

    def __init__(
        self,
        batch: int,
        dispatch: Callable[["Tape", Function, tuple[Any, ...], dict[str, Any]], Any],
        parameters: Sequence[nn.Parameter] = (),
        fixed: frozenset[int] = frozenset(),
    ) -> None:
        self.batch = batch
        self.nodes: list[Node] = []
        self.own: dict[int, ParameterBlock] = {}
        self.of_weights = bool(parameters)
        self.fixed = fixed
        self.layout = ParameterLayout(("",) * len(parameters), tuple(parameters))
        self.failure: Untraceable | None = None
        self.closed = False
        self.stopped = False
        self._dispatch = dispatch
        self._grad_mode = torch.is_grad_enabled()
        self._depth = 0
        self._counts: dict[int, bool] = {}
        self._journal: list[tuple[Recorded, State]] = []
        self.parameters: dict[int, Tensor] = {id(p): self._parameter(p) for p in parameters}

    def input(self, x: Tensor) -> Recorded:
        """The batch that the module is called with; integers have no derivative."""
        node = self._add(Node(())) if x.is_floating_point() else None
        return Recorded.of(self, State(x, node, per_sample=True))

    def emit(
        self,
        value: Tensor,
        arguments: Sequence[Argument],
        interaction: Interaction | None = None,
        *,
        view_of: Recorded | None = None,
        own: ParameterBlock | None = None,
        per_sample: bool = True,
    ) -> Recorded:
        """The result of an operation, as a new node.

        Args:
            value: the result.
            arguments: the tensors that it was computed from, and the derivatives with respect to them.
            interaction: the mixed second derivative of the first two arguments.
            view_of: the argument that shares its memory with the result, if one does.
            own: what parameters contribute.
            per_sample: whether the result's first dimension is the batch.

        Raises:
            Untraceable: the result does not begin with the batch, or has another precision.
        """
        if per_sample and (value.ndim == 0 or value.shape[0] != self.batch):
            raise Untraceable(f"a result of shape {tuple(value.shape)} does not begin with the batch of {self.batch}")
        if value.is_complex():
            raise Untraceable("computes with complex numbers")
        found: list[Edge] = []
        for r, J in arguments:
            state = r.state
            if state.node is None:
                continue
            if state.value.dtype != value.dtype:
                raise Untraceable(f"the precision changes to {value.dtype} on the way")
            found.append(Edge(state.node, J))
        edges = tuple(found)
        node = None
        if edges or own is not None:
            node = self._add(Node(edges, interaction if len(edges) == len(arguments) else None))
        if node is not None and own is not None:
            self.own[node] = own
        family = Family() if view_of is None else view_of.state.family
        family.members += view_of is not None
        return Recorded.of(self, State(value, node, per_sample, family))

    def write(self, target: Any, result: Recorded) -> Recorded:
        """Let a tensor stand for the result of an operation in place.

        Raises:
            Untraceable: other tensors would change with it.
        """
        if not isinstance(target, Recorded) or not target.state.per_sample:
            raise Untraceable("writes into a tensor that does not depend on the input")
        if target.state.family.members > 1:
            raise Untraceable("writes in place into a tensor that shares its memory with another one")
        if (target.shape, target.dtype) != (result.shape, result.dtype):
            raise Untraceable("writes a result of another shape or precision in place")
        self._journal.append((target, target.state))
        target.state = State(result.state.value, result.state.node, per_sample=True)
        return target

    def mark(self) -> int:
        """A point to come back to with `rewind`."""
        return len(self._journal)

    def rewind(self, mark: int) -> None:
        """Undo what was written in place since, and forget the failure that made it necessary."""
        for target, state in reversed(self._journal[mark:]):
            target.state = state
        del self._journal[mark:]
        self.failure = None

    def signature(self, argument: Recorded, value: Tensor) -> Signature:
        """Spaces of the derivative of ``value`` with respect to ``argument``."""
        shape = tuple(argument.shape[1:] if argument.state.per_sample else argument.shape)
        return Signature(self.batch, shape, tuple(value.shape[1:]), value.dtype, value.device)

    def source(self, recorded: Recorded) -> nn.Parameter | None:
        """The parameter that a recorded tensor is, if it is one and nothing was computed of it."""
        node = recorded.state.node
        own = self.own.get(node) if node is not None and not self.nodes[node].edges else None
        return own.parameters[0] if own is not None and not recorded.state.per_sample else None

    def apply(self, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Compute a function of recorded tensors, and note it.

        Raises:
            Untraceable: there is no derivative for it.
        """
        try:
            return self._dispatch(self, function, args, kwargs)
        except Untraceable as failure:
            self.failure = failure  # a forward that catches everything must not hide it
            raise

    def counts(self, module: nn.Module) -> bool:
        """Whether parameters of a module are differentiated."""
        if not self.of_weights:
            return False
        counts = self._counts.get(id(module))
        if counts is None:
            counts = self._counts[id(module)] = any(id(p) in self.parameters for p in module.parameters())
        return counts

    @property
    def outermost(self) -> bool:
        """Whether the module's own code is running, and not an operation composed of others."""
        return self._depth == 0

    def stop(self) -> None:
        """Note that the module computes something without gradients.

        Raises:
            Untraceable: it does so in an autograd function of its own, which has a derivative of its own too.
        """
        if not torch._C._is_fwd_grad_enabled():
            raise Untraceable("runs in inference mode or in an autograd function of its own")
        self.stopped = True

    def computing(self, compute: Callable[[], Any]) -> Any:
        """Run what belongs to one operation, under the caller's grad mode."""
        self._depth += 1
        try:
            if torch.is_grad_enabled() == self._grad_mode:
                return compute()
            with torch.set_grad_enabled(self._grad_mode):
                return compute()
        finally:
            self._depth -= 1

    def _parameter(self, parameter: nn.Parameter) -> Recorded:
        if parameter.is_complex():
            return Recorded.of(self, State(parameter, None, per_sample=False, refusal="a parameter is complex"))
        n, shape = parameter.numel(), tuple(parameter.shape)
        to_shape = Reshape(Signature(self.batch, (n,), shape, parameter.dtype, parameter.device))
        recorded = self.emit(parameter, (), own=ParameterBlock(None, (parameter,), to_shape), per_sample=False)
        recorded._is_param = True  # what isinstance(..., nn.Parameter) asks for
        return recorded

    def _add(self, node: Node) -> int:
        self.nodes.append(node)
        return len(self.nodes) - 1
