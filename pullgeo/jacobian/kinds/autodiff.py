"""The exact fallback for maps without a rule: automatic differentiation with the tangents leading."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.func import functional_call, vjp
from torch.nn.attention import SDPBackend, sdpa_kernel

from pullgeo._torch.checkpoint import checkpoints_kept
from pullgeo._torch.state import left_alone
from pullgeo._torch.substitutes import Substituting, Watching
from pullgeo.errors import ModuleError, PullgeoError
from pullgeo.jacobian.base import Jacobian
from pullgeo.jacobian.boundary import FAILURES, served, undifferentiable, value_of
from pullgeo.jacobian.checks import needs_whole_batch
from pullgeo.jacobian.contractions import gram
from pullgeo.jacobian.reverse import Reverse
from pullgeo.jacobian.signature import Signature
from pullgeo.jacobian.tangents import one_thread_at_a_time, over_stack, second_tangent, tangent, tracked
from pullgeo.jacobian.weights.base import WeightKind
from pullgeo.jacobian.weights.parameters import ParameterLayout

Map = Callable[[Tensor], Tensor]


@contextmanager
def differentiable_kernels() -> Iterator[None]:
    """Attention by kernels with forward mode and second derivatives, and `Substituting` for what else lacks them.

    The choice of kernels is the process's, so that other threads wait.
    """
    with one_thread_at_a_time:
        fastpath = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with sdpa_kernel(SDPBackend.MATH), Substituting(), checkpoints_kept():
                yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fastpath)


@dataclass(frozen=True, eq=False)
class Autodiff(Jacobian):
    """The derivative of any batched function that treats samples independently.

    Stacks are moved by a ``vmap`` over *tangents only* around one batched ``jvp`` or ``vjp``, so the function sees its
    batch as it is and runs forward once for the whole stack. This also serves modules that fail under a ``vmap`` over
    samples (fixed dimensions in reshapes, recurrent layers).

    Args:
        function: of a batch.
        x: the batch.
        signature: shapes of both.
        switches: whether the function switches gradients off somewhere. What it computes there is constant, of which
            forward mode knows nothing, so tangents are then moved by twice as many backward passes.
        compiled: whether a module scripted by TorchScript runs in it. Tangents are moved by backward passes then, and
            second derivatives, which TorchScript takes for zero, are refused.
        nested: whether the function takes derivatives itself, as forces of an energy. Transforms would see other
            gradients than it does, so plain reverse mode serves, as it does where transforms fail; see `Reverse`.
    """

    function: Map
    x: Float[Tensor, "b *x"]
    signature: Signature
    switches: bool = False
    compiled: bool = False
    nested: bool = False

    def push(self, T: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *y"]:
        """``J T``. Cost: one forward pass and k tangent passes."""
        backward = self.switches or self.compiled
        return self._served(
            lambda: _push(self.function, self.x, T, self.signature.out_shape, backward), lambda run: run.push(T)
        )

    def pull(self, W: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b *x"]:
        """``Jᵀ W``. Cost: one forward pass and k backward passes."""
        return self._served(lambda: _pull(self.function, self.x, W), lambda run: run.pull(W))

    def second(self, T: Float[Tensor, "k b *x"], w: Float[Tensor, "b *y"]) -> Float[Tensor, "b k k"]:
        """Tangents of the pulled cotangent. Cost: k tangent passes through one backward pass.

        Raises:
            ModuleError: TorchScript runs in the function.
        """
        self._check_second()

        def along(x: Tensor, T: Tensor, w: Tensor) -> Tensor:
            def pulled(x: Tensor) -> Tensor:
                return _pull(self.function, x, w.unsqueeze(0)).squeeze(0)

            return _push(pulled, x, T, self.signature.in_shape, self.switches)

        def transformed() -> Tensor:
            # torch may promote numbers that are batched
            return gram(tracked(along, self.x, T, w).to(T.dtype), T)

        return self._served(transformed, lambda run: run.second(T, w))

    def second_push(self, T: Float[Tensor, "k b *x"], S: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *y"]:
        """Tangents of cotangents, transposed. Cost: k times a few backward passes.

        Raises:
            ModuleError: TorchScript runs in the function.
        """
        self._check_second()
        return self._served(
            lambda: _second_push(self.function, self.x, T, S, self.signature.out_shape, self.switches),
            lambda run: run.second_push(T, S),
        )

    def _served(self, transformed: Callable[[], Tensor], reverse: Callable[[Reverse], Tensor]) -> Tensor:
        def plainly() -> Tensor:
            with differentiable_kernels():
                return reverse(Reverse(self.function, self.x))

        return served(self.function, self.x, transformed, plainly, self.nested)

    def _check_second(self) -> None:
        if self.compiled:
            raise ModuleError(
                "linearize: a module scripted by TorchScript has wrong second derivatives, which geodesics and "
                "curvature need. Linearize the module that was scripted, or a trace of it."
            )


@dataclass(frozen=True, eq=False)
class AutodiffWeight(WeightKind):
    """The derivative of any module with respect to its parameters, sample by sample.

    Coordinates are those of ``torch.nn.utils.parameters_to_vector(module.parameters())``. Every sample has its own
    Jacobian with respect to shared weights, so samples run one after another: exact for every module, and slower than
    a rule by about the factor that batching would win. A module that holds something for each place of the batch, such
    as a mask, runs on the whole batch for each of its samples.

    Args:
        module: any module.
        x: the batch that the module was called with.
        signature: ``(P,) -> (*y)``, of the samples that this is about.
        layout: the parameters that count, all of the module's if there is none.
        samples: which of the batch these are; all of them if ``None``.
    """

    module: nn.Module
    x: Shaped[Tensor, "n *x"]
    signature: Signature
    layout: ParameterLayout | None = None
    samples: range | None = None

    def at(self, part: slice) -> "AutodiffWeight":
        """Some of the samples."""
        samples = self._samples[part]
        some = replace(self, signature=replace(self.signature, batch=len(samples)), samples=samples)
        if "_together" in vars(self):
            vars(some)["_together"] = self._together
        return some

    def push(self, T: Float[Tensor, "k b p"]) -> Float[Tensor, "k b *y"]:
        """``J_θ T``. Cost: per sample one forward pass and k tangent passes."""
        moved = [J.push(T[:, i : i + 1]) for i, J in enumerate(self._per_sample())]
        return torch.cat(moved, 1) if moved else T.new_zeros(len(T), 0, *self.signature.out_shape)

    def pull(self, W: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b p"]:
        """``J_θᵀ W``. Cost: per sample one forward pass and k backward passes."""
        moved = [J.pull(W[:, i : i + 1]) for i, J in enumerate(self._per_sample())]
        return torch.cat(moved, 1) if moved else W.new_zeros(len(W), 0, self.signature.n_in)

    def second(self, T: Float[Tensor, "k b p"], w: Float[Tensor, "b *y"]) -> Float[Tensor, "b k k"]:
        """Tangents of the pulled cotangent, sample by sample."""
        terms = [J.second(T[:, i : i + 1], w[i : i + 1]) for i, J in enumerate(self._per_sample())]
        return torch.cat(terms) if terms else T.new_zeros(0, len(T), len(T))

    def second_push(self, T: Float[Tensor, "k b p"], S: Float[Tensor, "k b p"]) -> Float[Tensor, "k b *y"]:
        """Tangents of cotangents, transposed, sample by sample."""
        terms = [J.second_push(T[:, i : i + 1], S[:, i : i + 1]) for i, J in enumerate(self._per_sample())]
        return torch.cat(terms, 1) if terms else T.new_zeros(len(T), 0, *self.signature.out_shape)

    def check(self, connected: bool) -> None:
        """Raise unless the module takes the first sample by itself, with other weights than its own.

        Args:
            connected: whether autograd must find the way from its value to the parameters.

        Raises:
            ModuleError: it does not.
        """
        for J in self._per_sample():
            if connected:
                check_connected(J.function, J.x)
            return

    @property
    def _samples(self) -> range:
        return range(len(self.x)) if self.samples is None else self.samples

    @cached_property
    def _together(self) -> bool:
        """Whether a sample can only be computed in its batch."""

        def run(x: Tensor) -> Any:
            with left_alone(self.module):
                return self.module(x)

        with torch.no_grad():
            return needs_whole_batch(run, self.x, value_of(run, self.x.clone()))

    def _per_sample(self) -> Iterator[Autodiff]:
        module = self.module.module if isinstance(self.module, nn.DataParallel) else self.module
        layout = self.layout or ParameterLayout.of(module)
        theta, slots = layout.vector().unsqueeze(0), _slots(module, layout)
        signature = replace(self.signature, batch=1)
        together = self._together
        seen: Watching | None = None
        for i in self._samples:

            def run(theta: Tensor, i: int = i) -> Tensor:
                named = layout.named(theta.squeeze(0))
                values = {slot: named[name] for slot, name in slots.items()}
                with left_alone(module):
                    # a copy, because the module may work in place
                    batch = self.x.clone() if together else self.x[i : i + 1].clone()
                    y: Tensor = functional_call(module, values, (batch,), tie_weights=False)
                    return y[i : i + 1] if together else y

            run.__name__ = type(self.module).__name__
            if seen is None:
                try:
                    seen = watched(lambda theta: value_of(run, theta), theta)[1]
                except FAILURES as error:
                    if isinstance(error, PullgeoError | torch.OutOfMemoryError):
                        raise
                    with left_alone(module):  # an error of the caller's own comes again
                        value_of(module, self.x.clone())
                    raise undifferentiable(self.module, error) from error
            yield Autodiff(run, theta, signature, seen.switched, seen.compiled, seen.nested)


def check_connected(function: Map, x: Tensor) -> None:
    """Raise unless autograd finds the way from the value of a function to its argument, for functions that hide it.

    Raises:
        ModuleError: it does not.

    Cost: a forward and a backward pass.
    """

    def checked() -> Tensor:
        with differentiable_kernels():
            run = Reverse(function, x)
            return run.pull(torch.zeros_like(run.y).unsqueeze(0))

    served(function, x, checked, checked, plain=True)


def watched(function: Callable[[Tensor], Any], x: Tensor) -> tuple[Any, Watching]:
    """The value of a function, and what forward mode does not know of in it."""
    watching = Watching()
    with watching:
        value = function(x)
    return value, watching


def _slots(module: nn.Module, layout: ParameterLayout) -> dict[str, str]:
    """Every attribute that holds a parameter, each once, and the layout's name of that parameter.

    functional_call can find tied parameters by itself, but where a module is registered under two names it then puts
    the substitute back in place of the parameter.
    """
    names = dict(zip(map(id, layout.parameters), layout.names, strict=True))
    return {
        f"{path}.{name}".lstrip("."): names[id(parameter)]
        for path, owner in module.named_modules()
        for name, parameter in owner.named_parameters(recurse=False, remove_duplicate=False)
        if id(parameter) in names
    }


def _push(function: Map, x: Tensor, T: Tensor, out_shape: tuple[int, ...], backward: bool) -> Tensor:
    if len(T) == 0:  # vmap refuses to map over nothing
        return T.new_zeros(0, len(x), *out_shape)

    with differentiable_kernels():
        return over_stack(lambda t: tangent(function, x, t, backward), T)


def _second_push(function: Map, x: Tensor, T: Tensor, S: Tensor, out_shape: tuple[int, ...], backward: bool) -> Tensor:
    if len(T) == 0:
        return T.new_zeros(0, len(x), *out_shape)

    def twice(x: Tensor, T: Tensor, S: Tensor) -> Tensor:
        return over_stack(lambda t, s: second_tangent(function, x, t, s, backward), T, S)

    with differentiable_kernels():
        return tracked(twice, x, T, S)


def _pull(function: Map, x: Tensor, W: Tensor) -> Tensor:
    with differentiable_kernels():
        pullback = vjp(function, x)[1]
        if len(W) == 1:
            return pullback(W.squeeze(0))[0].unsqueeze(0)
        if len(W) == 0:
            return W.new_zeros(0, *x.shape)
        return over_stack(lambda w: pullback(w)[0], W)
