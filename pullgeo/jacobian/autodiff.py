"""The exact fallback for maps without a rule: automatic differentiation with the tangents leading."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.func import functional_call, vjp
from torch.nn.attention import SDPBackend, sdpa_kernel

from pullgeo.errors import ModuleError
from pullgeo.jacobian.base import Jacobian
from pullgeo.jacobian.checkpoints import checkpoints_kept, custom_functions_named
from pullgeo.jacobian.contract import gram
from pullgeo.jacobian.leaving import left_alone
from pullgeo.jacobian.parameters import ParameterLayout
from pullgeo.jacobian.signature import Signature
from pullgeo.jacobian.substitutes import Substituting, Watching
from pullgeo.jacobian.tangents import one_thread_at_a_time, over_stack, second_tangent, tangent, tracked
from pullgeo.jacobian.weight_kind import WeightKind

Map = Callable[[Tensor], Tensor]


@contextmanager
def differentiable_kernels() -> Iterator[None]:
    """Attention by kernels with forward mode and second derivatives, and `Substituting` for what else lacks them.

    The choice of kernels is the process's, so that other threads wait.

    Raises:
        ModuleError: a function of the user's own has no derivatives that serve.
    """
    with one_thread_at_a_time:
        fastpath = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with sdpa_kernel(SDPBackend.MATH), Substituting(), checkpoints_kept(), custom_functions_named():
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
    """

    function: Map
    x: Float[Tensor, "b *x"]
    signature: Signature
    switches: bool = False
    compiled: bool = False

    def push(self, T: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *y"]:
        """``J T``. Cost: one forward pass and k tangent passes."""
        return _push(self.function, self.x, T, self.signature.out_shape, self.switches or self.compiled)

    def pull(self, W: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b *x"]:
        """``Jᵀ W``. Cost: one forward pass and k backward passes."""
        return _pull(self.function, self.x, W)

    def second(self, T: Float[Tensor, "k b *x"], w: Float[Tensor, "b *y"]) -> Float[Tensor, "b k k"]:
        """Tangents of the pulled cotangent. Cost: k tangent passes through one backward pass.

        Raises:
            ModuleError: TorchScript runs in the function.
        """
        self._check_second()

        def pulled(x: Tensor) -> Tensor:
            return _pull(self.function, x, w.unsqueeze(0)).squeeze(0)

        moved = tracked(lambda: _push(pulled, self.x, T, self.signature.in_shape, self.switches))
        return gram(moved, T)

    def second_push(self, T: Float[Tensor, "k b *x"], S: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *y"]:
        """Tangents of cotangents, transposed. Cost: k times a few backward passes.

        Raises:
            ModuleError: TorchScript runs in the function.
        """
        self._check_second()
        return _second_push(self.function, self.x, T, S, self.signature.out_shape, self.switches)

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
    a rule by about the factor that batching would win.
    """

    module: nn.Module
    x: Shaped[Tensor, "b *x"]
    signature: Signature

    def at(self, part: slice) -> "AutodiffWeight":
        """Some of the samples."""
        x = self.x[part]
        return AutodiffWeight(self.module, x, replace(self.signature, batch=len(x)))

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

    def _per_sample(self) -> Iterator[Autodiff]:
        layout = ParameterLayout.of(self.module)
        theta, slots = layout.vector().unsqueeze(0), _slots(self.module, layout)
        signature = replace(self.signature, batch=1)
        seen: Watching | None = None
        for i in range(len(self.x)):

            def run(theta: Tensor, sample: Tensor = self.x[i : i + 1]) -> Tensor:
                named = layout.named(theta.squeeze(0))
                values = {slot: named[name] for slot, name in slots.items()}
                with left_alone(self.module):
                    # a copy, because the module may work in place
                    return functional_call(self.module, values, (sample.clone(),), tie_weights=False)

            if seen is None:
                seen = watched(run, theta)[1]
            yield Autodiff(run, theta, signature, seen.switched, seen.compiled)


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
    }


def _push(function: Map, x: Tensor, T: Tensor, out_shape: tuple[int, ...], backward: bool) -> Tensor:
    if len(T) == 0:  # vmap refuses to map over nothing
        return T.new_zeros(0, len(x), *out_shape)

    x = x.view_as(x)  # so that a chunk that is computed again sees it, before transforms wrap it
    with differentiable_kernels():
        return over_stack(lambda t: tangent(function, x, t, backward), T)


def _second_push(function: Map, x: Tensor, T: Tensor, S: Tensor, out_shape: tuple[int, ...], backward: bool) -> Tensor:
    if len(T) == 0:
        return T.new_zeros(0, len(x), *out_shape)

    def twice(t: Tensor, s: Tensor) -> Tensor:
        return second_tangent(function, x, t, s, backward)

    with differentiable_kernels():
        return tracked(lambda: over_stack(twice, T, S))


def _pull(function: Map, x: Tensor, W: Tensor) -> Tensor:
    x = x.view_as(x)
    with differentiable_kernels():
        pullback = vjp(function, x)[1]
        if len(W) == 1:
            return pullback(W.squeeze(0))[0].unsqueeze(0)
        if len(W) == 0:
            return W.new_zeros(0, *x.shape)
        return over_stack(lambda w: pullback(w)[0], W)
