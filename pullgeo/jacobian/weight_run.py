"""Weights by plain reverse mode: one run of a module with gradients on, and backward passes through it.

Recording a graph takes longer than the few backward passes that most products need. A run needs no graph: the
cotangents that arrive at a layer's output come from ``torch.autograd.grad``, and the layer's own weight Jacobian makes
of them what the weights get from each sample. Of a single sample they are the gradients that autograd has of the
weights.

Which it is: a stack of at most `_FEW` cotangents takes a run where one is trusted; longer stacks, and every product but
a pull, take the graph, which is recorded when it is needed for the first time.

Only a graph shows that samples are independent and how each weight acts. So a run serves where a graph has been
recorded for the very same operations before, and has given the same product.
"""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import functional as F

from pullgeo._torch.equal_values import spreading
from pullgeo._torch.scripts import ScriptCalls
from pullgeo._torch.state import held_state, left_alone
from pullgeo._torch.submodules import buffers_of, named_modules, parameters_of
from pullgeo._torch.substitutes import Substituting, unseen
from pullgeo._torch.torch_names import Function
from pullgeo._torch.transforms import transformed
from pullgeo.errors import TensorChangedError
from pullgeo.jacobian.boundary import FAILURES
from pullgeo.jacobian.kinds.autodiff import differentiable_kernels
from pullgeo.jacobian.recompute import recomputing
from pullgeo.jacobian.registry import WeightRule, weight_rule_for
from pullgeo.jacobian.reverse import gradients_on, ordinary
from pullgeo.jacobian.signature import Signature
from pullgeo.jacobian.weights.broadcast import BroadcastWeight
from pullgeo.jacobian.weights.parameters import ParameterLayout
from pullgeo.jacobian.weights.remembered import described, remember_run, runs
from pullgeo.jacobian.weights.weight_graph import Collect, ParameterBlock, Run, own_of

_FEW = 4
"""So many backward passes take no longer than recording a graph and sweeping through it once."""

_WRONG_ONCE = frozenset((F.max_unpool1d, F.max_unpool2d, F.max_unpool3d))
"""What torch gets wrong in first derivatives of reverse mode already; see `Substituting`."""

_SUMS = frozenset((torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__))


def run_of(module: nn.Module, x: Shaped[Tensor, "b *x"], layout: ParameterLayout) -> "WeightRun | None":
    """A run that may serve in place of a graph, if graphs of this module for such batches were recorded before."""
    if runs(module).get(_occasion(x, layout)) is not True:
        return None
    if transformed() or not len(x) or torch.is_autocast_enabled(x.device.type):
        return None
    try:
        run = WeightRun(module, x, layout)
    except FAILURES:  # a true error comes again
        return None
    if not run.fit:
        run.distrust()
        return None
    return run


def recorded(module: nn.Module, x: Shaped[Tensor, "b *x"], layout: ParameterLayout) -> None:
    """Note that a graph was recorded, so that a run may be tried the next time."""
    occasion = _occasion(x, layout)
    if occasion not in runs(module):
        remember_run(module, occasion, True)


def _occasion(x: Tensor, layout: ParameterLayout) -> Hashable:
    return layout.names, x.shape, x.dtype, x.device, torch.is_grad_enabled()


@dataclass(frozen=True, eq=False)
class Use:
    """A place of a run where parameters come in.

    Args:
        block: the parameters and their Jacobian, of what it holds.
        edge: where a backward pass meets the value that they move.
        held: what the Jacobian holds, and its version when it was used.
    """

    block: Callable[[Tensor], ParameterBlock]
    edge: GradientEdge
    held: tuple[Tensor, int]


FROM_EDGES = "GradientEdge" in str(torch.autograd.grad.__annotations__["outputs"])
"""Whether torch takes gradients of an edge; older releases take those of the tensor alone, which the run then keeps."""


class WeightRun(Run):
    """One run of a module on a batch, with gradients on.

    Args:
        module: any module.
        x: the batch.
        layout: the parameters that count.

    Attributes:
        fit: whether products can be had by it at all.
        trusted: whether it is known that they are those of a graph.
        y: the value, connected to what it was computed from where the caller has gradients on.

    Cost: one forward pass, whose graph is kept. A product of k cotangents takes k backward passes.
    """

    def __init__(self, module: nn.Module, x: Shaped[Tensor, "b *x"], layout: ParameterLayout) -> None:
        self._module, self._layout, self._occasion = module, layout, _occasion(x, layout)
        self._connected = torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        listening = _Listening(len(x), layout, once=not self._connected)
        children = named_modules(module)
        before = [(buffer, buffer._version) for buffer in buffers_of(children) if not buffer.is_inference()]
        with gradients_on():
            self.x = ordinary(x)
            given = self.x if self._connected else self.x.detach()
            kernels = differentiable_kernels(listening, once=not self._connected)
            layers = nullcontext() if len(x) == 1 else listening.to_layers_of(module)
            with left_alone(module), layers, listening.scripts_told(), kernels, spreading() as found:
                y = module(given.clone())  # a copy, because the module may work in place
        self.fit = self._is_fit(y, listening) and not found.met  # products are limits then, which a run has not
        if not self.fit:
            return
        self._edge, self._shape, self._dtype = get_gradient_edge(y) if FROM_EDGES else y, y.shape, y.dtype
        self._uses, listening.uses = listening.uses, []  # which may live longer, and would keep the graph
        self._state = held_state(module)
        # counters, which the module itself writes into, say nothing
        buffers = [buffer for buffer, version in before if buffer._version == version]
        self._fixed = [(t, t._version) for t in (self.x, *parameters_of(children), *buffers)]
        if not self._connected:
            self.y = y.detach()
        else:
            # the caller's hooks and changes in place must not reach the run: it gives away an alias, or a copy where it
            # keeps the value itself
            self.y = y.view_as(y) if FROM_EDGES else y.clone()
        operations = frozenset(listening.operations) if len(x) == 1 else tuple(listening.operations)
        self._operations = (operations, self._connected, *[type(child) for _, child in children])
        self.trusted = runs(module).get(self._operations, False)

    def takes(self, W: Float[Tensor, "k b *y"]) -> bool:
        """Whether a stack is short, and its product would be connected to all that it depends on."""
        if not self.fit or not 0 < len(W) <= _FEW or (W.shape[1:], W.dtype) != (self._shape, self._dtype):
            return False
        if transformed() or recomputing():  # nobody sees there what the graph of a run rests on
            return False
        return self._connected or not torch.is_grad_enabled()

    def pull(self, W: Float[Tensor, "k b *y"], collect: Collect) -> Float[Tensor, "k b p"] | None:
        """``J_θᵀ W``; ``None`` if the graph of the run is gone, as after ``y.backward()``.

        Raises:
            TensorChangedError: weights or the batch were written into since.
        """
        self._check_unchanged()
        if any(x._version != version for x, version in (use.held for use in self._uses)):
            return None  # the module itself works in place
        keep = torch.is_grad_enabled()
        parameters = self._layout.parameters
        inputs: list[Any] = list(parameters) if self._alone else [use.edge for use in self._uses]
        with gradients_on():
            W = ordinary(W)
            try:
                rows = [
                    torch.autograd.grad((self._edge,), inputs, (w,), True, create_graph=keep, allow_unused=True)
                    for w in W
                ]
            except RuntimeError:  # a true error comes again from the graph
                return None
            if self._alone:
                flat = [torch.cat(list(map(_flat, parameters, row))) for row in rows]
                return flat[0].reshape(1, 1, -1) if len(flat) == 1 else torch.stack(flat).unsqueeze(1)
            blocks = [use.block(use.held[0] if keep else use.held[0].detach()) for use in self._uses]
            found = [None if of[0] is None else torch.stack(cast(Any, of)) for of in zip(*rows, strict=True)]
        return collect(((own, delta) for own, delta in zip(blocks, found, strict=True) if delta is not None), W)

    def judge(self, collect: Collect, graph: Callable[[Tensor], Tensor]) -> None:
        """Trust the run if its product is that of a graph, and try none on such an occasion again if it is not.

        Args:
            collect: the product of a stack, from what was swept.
            graph: the product of a stack by a graph.
        """
        waves = torch.cos(torch.arange(self._shape.numel(), dtype=torch.float64, device=self.x.device))
        w = waves.to(self._dtype).reshape(1, *self._shape)
        with torch.no_grad():
            pulled = self.pull(w, collect)
            self.trusted = pulled is not None and self._agree(pulled, graph(w), self._used(w[0]))
        self.fit = self.trusted
        if self.trusted:
            remember_run(self._module, self._operations, True)
        else:
            self.distrust()

    def distrust(self) -> None:
        """Try no run on such an occasion again."""
        self.fit = False
        remember_run(self._module, self._occasion, False)

    @contextmanager
    def as_it_was(self) -> Iterator[None]:
        """The module as it was during the run, and the caller's grad mode then, to record what was not recorded.

        Raises:
            TensorChangedError: weights or the batch were written into since.
        """
        self._check_unchanged()
        with self._state(), torch.set_grad_enabled(self._connected):
            yield

    def _is_fit(self, y: Any, listening: "_Listening") -> bool:
        if not isinstance(y, Tensor) or not y.requires_grad or y.ndim == 0 or len(y) != len(self.x):
            return False
        self._alone = len(self.x) == 1
        if self._alone and not all(p.requires_grad for p in self._layout.parameters):
            return False
        return listening.complete and not listening.compiled

    def _used(self, w: Tensor) -> set[int]:
        """The ids of the parameters that the value depends on."""
        parameters = [p for p in self._layout.parameters if p.requires_grad]
        found = torch.autograd.grad((self._edge,), parameters, (w,), True, allow_unused=True) if parameters else ()
        unused = {id(p) for p, g in zip(parameters, found, strict=True) if g is None}
        return set(self._layout.ids) - unused

    def _agree(self, pulled: Tensor, expected: Tensor, used: set[int]) -> bool:
        """Whether products are the same, parameter by parameter, and none is zero, which would say nothing."""
        eps, size = torch.finfo(pulled.dtype).eps, expected.norm()
        pieces = zip(self._layout.parameters, *map(self._layout.split, (pulled, expected)), strict=True)
        return all(
            bool((left - right).norm() <= 10 * eps**0.5 * right.norm() + 100 * eps * size)  # false for NaN
            and (id(p) not in used or bool(right.any()))
            for p, left, right in pieces
        )

    def _check_unchanged(self) -> None:
        for tensor, version in self._fixed:
            if tensor._version != version:
                raise TensorChangedError(
                    f"Jacobian: a tensor of shape {tuple(tensor.shape)}, of the weights or buffers of "
                    f"{type(self._module).__name__} or the batch, was written into after linearize, which holds "
                    "them as they were. Linearize again, or take the products before an optimiser steps."
                )


class _Listening(Substituting):
    """Notes what runs, and where parameters come in.

    Args:
        batch: number of samples.
        layout: the parameters that count.
        once: whether only first derivatives are taken, of which torch's own functions have almost all right.

    Attributes:
        operations: the functions of torch that ran, with shapes and settings; of a single sample, for which nothing
            rests on these, the functions alone.
        uses: where parameters came in; not noted of a single sample.
        complete: whether these are all.
        compiled: whether what TorchScript has scripted ran.
    """

    def __init__(self, batch: int, layout: ParameterLayout, once: bool) -> None:
        super().__init__()
        self.once = once
        self.operations: list[Hashable] = []
        self.batch, self.layout = batch, layout
        self.uses: list[Use] = []
        self.complete = True
        self.compiled = False
        self._inside = False
        self._met: list[Tensor] = []

    @contextmanager
    def scripts_told(self) -> Iterator[None]:
        """Within this context calls of what is scripted are noted."""

        def told(traced: bool) -> None:
            self.compiled = self.compiled or not traced

        with ScriptCalls(told):
            yield

    @contextmanager
    def to_layers_of(self, module: nn.Module) -> Iterator[None]:
        """Layers with a rule for their weights tell what they are given; `left_alone` must put them back."""
        for _, child in named_modules(module):
            if any(id(p) in self.layout.ids for p in child._parameters.values()):
                rule = weight_rule_for(child)
                if rule is not None:
                    vars(child)["forward"] = self._telling(child, rule)
        yield

    def __torch_function__(
        self, func: Function, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """The function itself, or its substitute."""
        if self.batch == 1:
            self.operations.append(func)
            return self._computed(func, types, args, kwargs)
        self._met = []
        with unseen():
            noted = tuple([self._noted(argument) for argument in args])
            self.operations.append((func, noted, self._noted(kwargs) if kwargs else ()))
        met = self._met
        answer = self._computed(func, types, args, kwargs)
        if met and not self._inside:
            with unseen():
                if func not in _SUMS or kwargs or not self._is_added(met, args, answer):
                    self.complete = False
        return answer

    def _computed(self, func: Function, types: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Any:
        if self.once and func not in _WRONG_ONCE:
            return func(*args, **(kwargs or {}))
        return super().__torch_function__(func, types, args, kwargs)

    def _noted(self, argument: Any) -> Hashable:
        kind = type(argument)
        if kind is tuple or kind is list:
            return tuple([self._noted(item) for item in argument])
        if kind is dict:
            return tuple([(name, self._noted(item)) for name, item in argument.items()])
        if isinstance(argument, Tensor) and id(argument) in self.layout.ids:
            self._met.append(argument)
        return described(argument)

    def _telling(self, layer: nn.Module, rule: WeightRule) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            with unseen():
                version = args[0]._version if args else 0
            self._inside = True
            try:
                y = type(layer).forward(layer, *args, **kwargs)
            finally:
                self._inside = False
            with unseen():
                if len(args) == 1 and not kwargs and y.grad_fn is not None:
                    self._note(lambda x: own_of(layer, rule(layer, x), self.layout), args[0], version, y)
                else:
                    self.complete = False
            return y

        return forward

    def _is_added(self, met: list[Any], args: tuple[Any, ...], y: Any) -> bool:
        """Note a parameter that is added to a batch; false if it is something else."""
        others = [a for a in args if a is not met[0]]
        if len(met) != 1 or len(others) != 1 or not isinstance(others[0], Tensor) or y.grad_fn is None:
            return False
        p, out = met[0], tuple(y.shape[1:])
        if len(y) != self.batch or others[0].shape != y.shape or p.ndim > len(out) or p.dtype != y.dtype:
            return False
        signature = Signature(self.batch, (p.numel(),), out, y.dtype, y.device)
        shape = (1,) * (len(out) - p.ndim) + tuple(p.shape)
        ones = torch.ones((), dtype=y.dtype, device=y.device).expand(self.batch, *out)
        self._note(lambda x: ParameterBlock(None, (p,), BroadcastWeight(x, shape, signature)), ones, ones._version, y)
        return True

    def _note(self, block: Callable[[Tensor], ParameterBlock], x: Tensor, version: int, y: Tensor) -> None:
        self.uses.append(Use(block, get_gradient_edge(y), (x, version)))


def _flat(p: Tensor, gradient: Tensor | None) -> Float[Tensor, " n"]:
    if gradient is None:
        return p.new_zeros(p.numel())
    return (gradient if gradient.layout is torch.strided else gradient.to_dense()).reshape(-1)
