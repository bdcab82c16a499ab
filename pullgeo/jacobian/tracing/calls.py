"""What happens when a module is called during a recording."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, cast

import torch
from torch import Tensor, nn

from pullgeo.errors import CoupledSamplesError
from pullgeo.jacobian.boundary import FAILURES
from pullgeo.jacobian.checks import check_independence
from pullgeo.jacobian.kinds.autodiff import Autodiff, check_connected, watched
from pullgeo.jacobian.registry import (
    InputRule,
    WeightRule,
    forward_owner,
    overrides_call,
    rule_for,
    served_class,
    weight_rule_for,
)
from pullgeo.jacobian.signature import Signature
from pullgeo.jacobian.tracing.layers import check_batch, leaf
from pullgeo.jacobian.tracing.module_proxy import runs_more_than_forward
from pullgeo.jacobian.tracing.ops.attention import multi_head_attention
from pullgeo.jacobian.tracing.ops.packed import Packed, output
from pullgeo.jacobian.tracing.ops.recurrent import is_recurrent, recurrent
from pullgeo.jacobian.tracing.proxy import Recorded, State, Untraceable, plain, recorded_in
from pullgeo.jacobian.tracing.tape import Tape
from pullgeo.jacobian.weights.autodiff import AutodiffWeight, Known
from pullgeo.jacobian.weights.parameters import ParameterLayout
from pullgeo.jacobian.weights.weight_graph import ParameterBlock, own_of

Served = Literal["rule", "graph", "autodiff", "not called", "unknown"]


@dataclass(frozen=True)
class Note:
    """How a module was served, and why so."""

    path: Served
    why: str


class Calls:
    """Serves the modules of a network: by a rule, by recording their ``forward``, or else by automatic differentiation.

    Args:
        tape: where nodes are written.
        root: the network; it is either recorded or not served at all. ``None`` where a function is recorded.
    """

    def __init__(self, tape: Tape, root: nn.Module | None) -> None:
        self.tape = tape
        self.root = root
        self.notes: dict[int, Note] = {}

    def call(self, module: nn.Module, twin: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the double of a module does when it is called.

        Raises:
            Untraceable: the call cannot be part of a graph.
        """
        inputs = recorded_in((args, kwargs))
        weighted = self.tape.counts(module)
        if self.tape.closed or not (inputs or weighted):
            return module(*plain(args), **plain(kwargs))
        if self.tape.outermost and not torch.is_grad_enabled():
            self.tape.stop()
            return module(*plain(args), **plain(kwargs))
        if runs_more_than_forward(module):
            return self._opaque(module, args, kwargs, "it has hooks, or a forward of its own instance")
        sole = args[0] if len(args) == 1 and not kwargs and isinstance(args[0], Recorded) else None
        try:
            rules = None if sole is None else _rules(module, weighted)
            if sole is not None and rules is not None:
                return self._leaf(module, sole, *rules)
            return self._recorded(module, twin, args, kwargs)
        except CoupledSamplesError:
            raise
        except (Untraceable, *FAILURES) as failure:
            why = str(failure) if isinstance(failure, Untraceable) else f"{type(failure).__name__}: {failure}"
        return self._opaque(module, args, kwargs, why)

    def _leaf(self, module: nn.Module, x: Recorded, rule: InputRule, weight_rule: WeightRule | None) -> Recorded:
        if x.state.refusal is not None or not x.state.per_sample:
            raise Untraceable(x.state.refusal or "a layer is applied to parameters")
        check_batch(module, x)

        def served() -> Recorded:
            value = plain(x)
            own = None
            if weight_rule is not None:
                own = own_of(module, weight_rule(module, value), self.tape.layout)
            if not value.is_floating_point():
                return self.tape.emit(module(value), [], own=own)
            return leaf(self.tape, x, *rule(module, value), own)

        y = self.tape.computing(served)
        self.notes[id(module)] = Note("rule", "its class has a rule")
        return self.tape.write(x, y) if getattr(module, "inplace", False) and y is not x else y

    def _leave(self, why: str) -> NoReturn:
        self.tape.failure = Untraceable(why)
        raise self.tape.failure

    def _recorded(self, module: nn.Module, twin: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        mark = self.tape.mark()
        try:
            if is_recurrent(module):
                returned = recurrent(self.tape, module, *args, **kwargs)
            else:
                returned = _forward(module, twin)(*args, **kwargs)
            if self.tape.failure is not None:
                raise self.tape.failure
        except (Untraceable, *FAILURES):
            self.tape.rewind(mark)
            raise
        if is_recurrent(module):
            self.notes[id(module)] = Note("rule", "its class has a rule")
            return returned
        why = "a chain of its children" if served_class(module) is nn.Sequential else "its forward was recorded"
        self.notes[id(module)] = Note("graph", why)
        return returned

    def _opaque(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], why: str) -> Any:
        """One node for the whole module, differentiated automatically.

        Raises:
            Untraceable: it is no map of samples, or the root.
        """
        self.notes[id(module)] = Note("autodiff", why)
        inputs = list({id(input): input for input in recorded_in((args, kwargs))}.values())
        if overrides_call(type(module)):  # which is under way already
            self._leave(f"{why}; and its class overrides __call__")
        if module is self.root or not inputs or not all(map(_is_batch, inputs)):
            self._leave(why)
        if isinstance(module, nn.RNNBase) and not (module.batch_first and inputs[0].ndim == 3):
            raise CoupledSamplesError(
                f"Jacobian: {type(module).__name__} takes the first dimension of {tuple(inputs[0].shape)} for time, "
                "so samples follow each other. Use batch_first=True and inputs (b, time, features)."
            )
        return self.tape.computing(lambda: self._differentiated(module, args, kwargs, inputs, why))

    def _differentiated(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: list[Recorded], why: str
    ) -> Any:
        tape, packed = self.tape, Packed(module, args, kwargs, inputs)
        copies = [plain(input).clone() for input in inputs]
        returned, seen = watched(lambda _: packed.call(copies), copies[0])
        if any(map(_was_written, copies, inputs)):
            self._leave(f"{why}; and it works in place")
        y = output(module, returned)
        if not isinstance(y, Tensor) or not y.is_floating_point() or y.ndim == 0 or len(y) != tape.batch:
            self._leave(f"{why}; and its output is not one tensor with a row per sample")
        check_independence(type(module).__name__, lambda *parts: output(module, packed.call(list(parts))), copies, y)
        vectors = [input.reshape(tape.batch, input.shape[1:].numel()) for input in inputs]
        vector: Any = torch.cat(vectors, 1)
        if seen.hides:
            check_connected(packed, plain(vector))
        signature = tape.signature(vector, y)
        J = Autodiff(packed, plain(vector), signature, seen.switched, seen.compiled, seen.nested, seen.widest)
        own = None
        if tape.counts(module):
            if _has_tensors((args, kwargs)):
                self._leave(f"{why}; and it takes constant tensors besides samples")
            chosen = tape.layout.own(module)
            layout = ParameterLayout(tuple(map(str, range(len(chosen)))), chosen)
            signature = Signature(tape.batch, (layout.size,), tuple(y.shape[1:]), y.dtype, y.device)
            known = Known(seen, y)
            own = ParameterBlock(module, chosen, AutodiffWeight(packed, plain(vector), signature, layout, known=known))
        result: Any = tape.emit(y, [(vector, J)], view_of=inputs[0], own=own)
        if y is returned:
            return result
        return result.chunk(2, 1) if isinstance(module, nn.LSTMCell) else (result, *map(self._refused, returned[1:]))

    def _refused(self, states: Any) -> Any:
        """The last states of recurrent layers, which may be returned but not used."""
        if isinstance(states, tuple):
            return tuple(map(self._refused, states))
        refusal = "the last states of a recurrent layer do not have the batch in front"
        return Recorded.of(self.tape, State(states, None, per_sample=False, refusal=refusal))


def _rules(module: nn.Module, weighted: bool) -> tuple[InputRule, WeightRule | None] | None:
    """The rules that serve all that is asked of a module, if there are such.

    Those of pooling know no indices, and chains are followed.
    """
    if served_class(module) is nn.Sequential or getattr(module, "return_indices", False):
        return None
    rule, weight_rule = rule_for(module), weight_rule_for(module) if weighted else None
    return None if rule is None or (weighted and weight_rule is None) else (rule, weight_rule)


def _forward(module: nn.Module, twin: nn.Module) -> Callable[..., Any]:
    """What to run for a module, with its double as ``self``."""
    if served_class(module) is nn.Sequential:
        return lambda x: _one_after_another(twin, x)
    if isinstance(module, nn.MultiheadAttention) and forward_owner(type(module)) is nn.MultiheadAttention:
        attention = cast(nn.MultiheadAttention, twin)
        return lambda *args, **kwargs: multi_head_attention(attention, *args, **kwargs)
    forward = type(module).forward
    return lambda *args, **kwargs: forward(twin, *args, **kwargs)


def _one_after_another(chain: nn.Module, x: Any) -> Any:
    for child in chain._modules.values():
        x = x if child is None else child(x)
    return x


def _is_batch(input: Recorded) -> bool:
    return input.state.per_sample and input.state.refusal is None and input.is_floating_point()


def _was_written(copy: Tensor, input: Recorded) -> bool:
    """Whether a copy of the input has been written into since."""
    return not torch.equal(copy, plain(input)) if copy.is_inference() else copy._version > 0


def _has_tensors(arguments: Any) -> bool:
    """Whether there are constant tensors in nested arguments."""
    if isinstance(arguments, dict):
        return _has_tensors(tuple(arguments.values()))
    if isinstance(arguments, tuple | list):
        return any(map(_has_tensors, arguments))
    return isinstance(arguments, Tensor) and not isinstance(arguments, Recorded)
