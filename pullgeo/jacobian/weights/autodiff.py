"""Automatic differentiation with respect to the weights of any module, sample by sample or side by side."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.func import functional_call, vmap

from pullgeo._torch.equal_values import plain, spreading
from pullgeo._torch.grad_mode import own_functions
from pullgeo._torch.state import left_alone
from pullgeo._torch.submodules import named_modules
from pullgeo._torch.substitutes import Substituting, Watching
from pullgeo._torch.transforms import no_slow_batching, transformed, vjp
from pullgeo.errors import ModuleError, PullgeoError
from pullgeo.jacobian.base import added_up
from pullgeo.jacobian.boundary import FAILURES, undifferentiable, value_of
from pullgeo.jacobian.checks import agree, needs_whole_batch
from pullgeo.jacobian.kinds.autodiff import Autodiff, Map, check_connected, differentiable_kernels, watched
from pullgeo.jacobian.recompute import over_chunks
from pullgeo.jacobian.reverse import Reverse, gradients_on, ordinary
from pullgeo.jacobian.signature import Signature
from pullgeo.jacobian.tangents import with_value
from pullgeo.jacobian.weights.base import WeightKind
from pullgeo.jacobian.weights.parameters import ParameterLayout, coordinate_count, to_coordinates
from pullgeo.jacobian.weights.remembered import remember
from pullgeo.numerics.chunking import PASSES, SUMS

_FEW = 4
"""So many backward passes of one sample take no longer than setting up transforms does."""

_SPREAD = 2**17
"""So many weights of all samples together are read in less time than a transform takes to set up."""

_STEP = 0.3
"""How far to go, relative to the size of the weights, to be at no special point."""


@dataclass(frozen=True, eq=False)
class AutodiffWeight(WeightKind):
    """The derivative of any module with respect to its parameters, sample by sample.

    Coordinates are those of ``torch.nn.utils.parameters_to_vector(module.parameters())``. Samples share the weights and
    each has a Jacobian of its own. They are moved side by side, by a ``vmap`` over samples, if torch can do that with
    all that the module does, else one sample after another. Which it is shows at the first product: the value of every
    sample must be that in the batch, and the product of one what plain reverse mode gives. A module that holds
    something for each place of the batch, such as a mask, runs on the whole batch for each of its samples.

    Args:
        module: any module.
        x: the batch that the module was called with.
        signature: ``(P,) -> (*y)``, of the samples that this is about.
        layout: the parameters that count, all of the module's if there is none.
        samples: which of the batch these are; all of them if ``None``.
        known: what products have shown about the module.
    """

    module: nn.Module
    x: Shaped[Tensor, "n *x"]
    signature: Signature
    layout: ParameterLayout | None = None
    samples: range | None = None
    known: "Known" = field(default_factory=lambda: Known(), repr=False)

    def at(self, part: slice) -> "AutodiffWeight":
        """Some of the samples."""
        samples = self._samples[part]
        return replace(self, signature=replace(self.signature, batch=len(samples)), samples=samples)

    @property
    def item_bytes(self) -> int:
        """The weights of every sample, or the largest tensor within the module."""
        return max(super().item_bytes, self.signature.batch * self.known.widest)

    def push(self, T: Float[Tensor, "k b p"]) -> Float[Tensor, "k b *y"]:
        """``J_θ T``. Cost: per sample one forward pass and k tangent passes."""
        moved = self._side_by_side(_pushed, T)
        if moved is None:
            pieces = [J.push(T[:, i : i + 1]) for i, J in enumerate(self._per_sample())]
            moved = torch.cat(pieces, 1) if pieces else T.new_zeros(len(T), 0, *self.signature.out_shape)
        return moved

    def pull(self, W: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b p"]:
        """``J_θᵀ W``. Cost: per sample one forward pass and k backward passes."""
        few = len(self.x) == 1 and len(W) <= _FEW
        moved = None
        if few or (len(W) == 1 and self.signature.n_in * self.signature.batch <= _SPREAD):
            moved = self._side_by_side(_pulled_at_once, W, "spread")
        if moved is None and not few:
            moved = self._side_by_side(_pulled, W)
        if moved is None:
            pull = _pulled_plainly if few else Autodiff.pull
            pieces = [pull(J, W[:, i : i + 1]) for i, J in enumerate(self._per_sample())]
            moved = torch.cat(pieces, 1) if pieces else W.new_zeros(len(W), 0, self.signature.n_in)
        return moved

    def parts(self, k: int, item_bytes: int = 0) -> Iterator[slice]:
        """As many as their bytes allow; more than of other kinds, as every chunk takes a pass through the module."""
        return super().parts(k) if self.chunk_size is not None else PASSES.slices(k, item_bytes)

    def pull_diag(self, W: Float[Tensor, "k b *y"], V: Float[Tensor, "k b *y"]) -> Float[Tensor, "b p"]:
        """``Σ_k J_θᵀ W_k ∘ J_θᵀ V_k``; of the graph, the passes through the module, nothing is kept."""

        def term(part: slice) -> Tensor:
            pulled = self.pull(W[part])
            return (pulled * (pulled if V is W else self.pull(V[part]))).sum(0)

        total = added_up(over_chunks(self.parts(len(W), self.item_bytes), term, also_one=True))
        return W.new_zeros(W.shape[1], self.signature.n_in) if total is None else total

    def pull_scaled_diag(self, c: Float[Tensor, "k b"], W: Float[Tensor, "k b *y"]) -> Float[Tensor, "b p"]:
        """``Σ_k c_k (J_θᵀ W_k)²``, by entries: what is pulled once serves as both factors."""

        def term(part: slice) -> Tensor:
            return torch.einsum("kb,kbp->bp", c[part], self.pull(W[part]).square())

        total = added_up(over_chunks(self.parts(len(W), self.item_bytes), term, also_one=True))
        return W.new_zeros(W.shape[1], self.signature.n_in) if total is None else total

    def pull_scaled_summed(self, c: Float[Tensor, "k b"], W: Float[Tensor, "k b *y"]) -> Float[Tensor, " p"]:
        """``Σ_b Σ_k c_kb (J_bᵀ W_kb)²``, by entries."""

        def term(part: slice) -> Tensor:
            return self.at(part).pull_scaled_diag(c[:, part], W[:, part]).sum(0)

        total = added_up(over_chunks(self._parts(), term))
        return W.new_zeros(self.signature.n_in) if total is None else total

    def second(self, T: Float[Tensor, "k b p"], w: Float[Tensor, "b *y"]) -> Float[Tensor, "b k k"]:
        """Tangents of the pulled cotangent, sample by sample."""
        terms = [J.second(T[:, i : i + 1], w[i : i + 1]) for i, J in enumerate(self._per_sample())]
        return torch.cat(terms) if terms else T.new_zeros(0, len(T), len(T))

    def second_push(self, T: Float[Tensor, "k b p"], S: Float[Tensor, "k b p"]) -> Float[Tensor, "k b *y"]:
        """Tangents of cotangents, transposed, sample by sample."""
        terms = [J.second_push(T[:, i : i + 1], S[:, i : i + 1]) for i, J in enumerate(self._per_sample())]
        return torch.cat(terms, 1) if terms else T.new_zeros(len(T), 0, *self.signature.out_shape)

    def check(self, connected: bool) -> None:
        """Raise unless the module takes the first sample by itself, if it has not been watched yet.

        Args:
            connected: whether autograd must find the way from its value to the parameters.

        Raises:
            ModuleError: it does not.
        """
        if self.known.seen is not None and not connected:
            return
        for J in self._per_sample():
            if connected:
                check_connected(J.function, J.x)
            return

    @property
    def _samples(self) -> range:
        return range(len(self.x)) if self.samples is None else self.samples

    def _parts(self, k: int = 1) -> list[slice]:
        """The whole batch if it is small, as every part takes a pass through the module."""
        small = SUMS.fits(k * self.signature.batch, self._weight_bytes)
        return [slice(0, self.signature.batch)] if small and self.signature.batch else super()._parts(k)

    @property
    def _needs_batch(self) -> bool:
        """Whether a sample can only be computed in its batch."""
        if len(self.x) < 2:
            return False
        if self.known.needs_batch is None:
            layout = self.layout or ParameterLayout.of(self._bare)
            theta, slots = layout.vector().detach(), _slots(self._bare, layout)
            waves = torch.cos(torch.arange(len(theta), dtype=torch.float64, device=theta.device)).to(theta.dtype)
            # values may be alike by chance, as where weights are all ones: not so a step away
            near = theta + _STEP * (theta.abs().mean() + _STEP) * waves
            self.known.needs_batch = any(self._differs_alone(layout, slots, weights) for weights in (theta, near))
        return self.known.needs_batch

    def _differs_alone(self, layout: ParameterLayout, slots: dict[str, str], theta: Tensor) -> bool:
        def run(x: Tensor) -> Any:
            return self._run(slots, layout.named(theta), x)

        with torch.no_grad():
            try:
                value = value_of(run, self.x.clone())
            except FAILURES:  # it does not take such weights
                return False
            return needs_whole_batch(run, self.x, value)

    @property
    def _bare(self) -> nn.Module:
        """The module without a wrapper that would spread the batch over devices."""
        return self.module.module if isinstance(self.module, nn.DataParallel) else self.module

    def _side_by_side(self, move: "_Moving", stack: Tensor, way: "_Way" = "transforms") -> Tensor | None:
        """What all samples' products are, by a vmap over samples; ``None`` if that does not serve.

        Args:
            move: moves a stack, given the module as a function of its weights and a sample.
            stack: what is moved.
            way: how it does that.
        """
        known, samples = self.known, self._samples
        few = len(samples) < (1 if way == "spread" and len(self.x) == 1 else 2)
        if not known.usable(way) or len(stack) == 0 or few or transformed():
            return None
        layout = self.layout or ParameterLayout.of(self._bare)
        slots = _slots(self._bare, layout)

        def run(weights: Sequence[Tensor], sample: Tensor) -> Tensor:
            named = dict(zip(layout.names, weights, strict=True))
            with nullcontext() if known.plain else Substituting():
                return self._run(slots, named, sample.unsqueeze(0)).squeeze(0)

        inside = slice(samples.start, samples.stop)
        x = self.x[inside]
        try:
            # what surrounds the module's own operations is many calls, which nothing needs to look at
            with differentiable_kernels(nullcontext()), no_slow_batching(), spreading() as found:
                moved, y = move(run, layout, x.view_as(x), stack.view_as(stack))
        except FAILURES:  # a true error comes again from the sample alone
            known.judge(self.module, way, right=False)
            return None
        if found.met and not bool(torch.isfinite(plain(moved)).all()):  # of one sample, products are limits
            return None
        # every sample alone, in the first place of a batch, must have the value that it has in its own
        if not agree(y, self._value[inside]):
            known.judge(self.module, way, right=False)
        elif known.right[way] is None:
            right = not self._needs_batch and self._is_right(moved[0, -1], stack[0, -1], move is _pushed)
            known.judge(self.module, way, right)
        return moved if known.usable(way) else None

    @property
    def _value(self) -> Tensor:
        """Of the whole batch."""
        if self.known.value is None:
            with torch.no_grad(), left_alone(self.module):
                self.known.value = value_of(self.module, self.x.clone())
        return self.known.value

    def _is_right(self, moved: Tensor, given: Tensor, forward: bool) -> bool | None:
        """Whether a product of the last sample is what it is by plain reverse mode; ``None`` if that says nothing."""
        J = self._alone(self._samples[-1])
        with torch.no_grad(), differentiable_kernels():
            try:
                run = Reverse(J.function, J.x)
                if own_functions(run.y):  # whose way back does not show in the operations
                    self.known.operations = None
                w = torch.cos(torch.arange(moved.numel(), dtype=moved.dtype, device=moved.device)).view_as(moved)
                pulled = run.pull((w if forward else given)[None, None])[0, 0]
            except FAILURES:
                return False
        moved = moved.detach()
        if forward:
            left, right = moved * w, given.detach() * pulled
            size, error = float(left.abs().sum() + right.abs().sum()), float((left.sum() - right.sum()).abs())
        else:
            size, error = float(pulled.norm()), float((moved - pulled).norm())
        if size == 0:
            return None
        return error <= 10 * torch.finfo(moved.dtype).eps ** 0.5 * size  # false for NaN

    def _run(self, slots: dict[str, str], named: dict[str, Tensor], x: Tensor) -> Tensor:
        with left_alone(self._bare):
            # a copy, because the module may work in place
            return functional_call(
                self._bare, {slot: named[name] for slot, name in slots.items()}, (x.clone(),), tie_weights=False
            )

    def _per_sample(self) -> Iterator[Autodiff]:
        needs_batch = self._needs_batch
        for i in self._samples:
            yield self._alone(i, needs_batch)

    def _alone(self, i: int, needs_batch: bool = False) -> Autodiff:
        """One sample's map from the weights, as a batch of one."""
        layout = self.layout or ParameterLayout.of(self._bare)
        theta, slots = layout.vector().unsqueeze(0), _slots(self._bare, layout)

        def run(theta: Tensor) -> Tensor:
            batch = self.x if needs_batch else self.x[i : i + 1]
            y = self._run(slots, layout.named(theta.squeeze(0)), batch)
            return y[i : i + 1] if needs_batch else y

        run.__name__ = type(self.module).__name__
        if self.known.seen is None:
            self.known.seen = self._watched(run, theta)
            self.known.widest = self.known.seen.widest
        seen = self.known.seen
        return Autodiff(run, theta, replace(self.signature, batch=1), seen.switched, seen.compiled, seen.nested)

    def _watched(self, run: Map, theta: Tensor) -> Watching:
        try:
            return watched(lambda theta: value_of(run, theta), theta)[1]
        except FAILURES as error:
            if isinstance(error, PullgeoError | torch.OutOfMemoryError):
                raise
            with left_alone(self._bare):  # an error of the caller's own comes again
                value_of(self._bare, self.x.clone())
            raise undifferentiable(self.module, error) from error


class Known:
    """What is known of a module whose weights are differentiated.

    Args:
        seen: what it does that forward mode does not know of; ``None`` until it was watched.
        value: that of the whole batch; ``None`` until it is needed.
        operations: what it computes, by which findings are remembered, if they may be.
        right: in which ways it is known that samples can, or cannot, be moved side by side.
        substitutes: whether something runs that has a substitute, see `Substituting`.

    Attributes:
        widest: bytes of the largest tensor that it computes for a sample, as far as known.
        right: whether samples can be moved side by side, in each way; ``None`` until that was tried.
        plain: whether it is known that nothing runs that has a substitute.
        needs_batch: whether a sample can only be computed in its batch; ``None`` until that was tried.
    """

    def __init__(
        self,
        seen: Watching | None = None,
        value: Tensor | None = None,
        operations: Hashable = None,
        right: Mapping[str, bool] | None = None,
        substitutes: bool = True,
    ) -> None:
        self.seen = seen
        self.value = None if value is None else value.detach()
        self.widest = 0 if seen is None or value is None else seen.widest // max(1, len(value))
        self.operations = operations
        self.right: dict[str, bool | None] = {"transforms": None, "spread": None, **(right or {})}
        # what a function of somebody else calls in a transform does not show here; with it nothing is known to be right
        self.plain = not substitutes and True in self.right.values()
        self.needs_batch: bool | None = None

    def usable(self, way: "_Way") -> bool:
        """Whether samples may be moved side by side in a way, as far as known."""
        hidden = self.seen is not None and (self.seen.switched or self.seen.compiled or self.seen.nested)
        return self.right[way] is not False and not hidden

    def judge(self, module: nn.Module, way: "_Way", right: bool | None) -> None:
        """Note whether a way has proven right; ``None`` if that did not show."""
        self.right[way] = right
        # what fails at once is not tried again; transforms may have failed for want of memory
        if self.operations is not None and (right or (right is False and way == "spread")):
            remember(module, self.operations, **{way: right})


_Run = Callable[[Sequence[Tensor], Tensor], Tensor]
"""The value of a sample, given the parameters."""

_Way = Literal["transforms", "spread"]
"""How samples are moved side by side: by torch's transforms, or with weights that are spread over the batch."""

_Moving = Callable[[_Run, ParameterLayout, Tensor, Tensor], tuple[Tensor, Tensor]]
"""A stack moved by every sample's Jacobian, and the value of every sample."""


def _pushed(
    run: _Run, layout: ParameterLayout, x: Shaped[Tensor, "b *x"], T: Float[Tensor, "k b p"]
) -> tuple[Float[Tensor, "k b *y"], Float[Tensor, "b *y"]]:
    """Tangents of the weights, by forward mode."""
    theta = layout.vector()

    def of_sample(sample: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        def value(theta: Tensor) -> Tensor:
            return run([*layout.named(theta).values()], sample)

        y, moved = vmap(lambda t: with_value(value, theta, t), randomness="same")(t)
        return moved, y[0]

    return vmap(of_sample, in_dims=(0, 1), out_dims=(1, 0), randomness="same")(x, T)


def _pulled(
    run: _Run, layout: ParameterLayout, x: Shaped[Tensor, "b *x"], W: Float[Tensor, "k b *y"]
) -> tuple[Float[Tensor, "k b p"], Float[Tensor, "b *y"]]:
    """Cotangents of the value, by reverse mode inside of the vmap: all samples run with the same weights."""

    def of_sample(sample: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        y, back, *_ = vjp(lambda *weights: run(weights, sample), *layout.parameters)

        def pulled(w: Tensor) -> Tensor:
            return torch.cat([to_coordinates(gradient) for gradient in back(w)])

        if len(w) == 1:
            return pulled(w.squeeze(0)).unsqueeze(0), y
        return vmap(pulled, randomness="same")(w), y

    return vmap(of_sample, in_dims=(0, 1), out_dims=(1, 0), randomness="same")(x, W)


def _pulled_at_once(
    run: _Run, layout: ParameterLayout, x: Shaped[Tensor, "b *x"], W: Float[Tensor, "k b *y"]
) -> tuple[Float[Tensor, "k b p"], Float[Tensor, "b *y"]]:
    """Cotangents, by plain reverse mode around the vmap: every sample runs with weights of its own.

    No transform of torch is set up for derivatives, and no level of them is passed at every operation.
    """
    b, keep = len(x), torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    with gradients_on():
        x, W = ordinary(x), ordinary(W)
        x = x if keep else x.detach()
        spread = []
        for p in layout.parameters:
            own = (p if keep else p.detach()).expand(b, *p.shape)
            spread.append(own if own.requires_grad else own.requires_grad_())
        if b == 1:
            y = run([own.squeeze(0) for own in spread], x.squeeze(0)).unsqueeze(0)
        else:
            y = vmap(run, randomness="same")(spread, x)
        again, rows = keep or len(W) > 1, []
        for w in W:
            found = torch.autograd.grad(y, spread, w, retain_graph=again, create_graph=keep, allow_unused=True)
            pieces = [
                w.new_zeros(b, coordinate_count(p)) if g is None else to_coordinates(g).reshape(b, -1)
                for p, g in zip(layout.parameters, found, strict=True)
            ]
            rows.append(torch.cat(pieces, 1))
    return torch.stack(rows), y


def _pulled_plainly(J: Autodiff, W: Tensor) -> Tensor:
    """``Jᵀ W`` by plain reverse mode, which has nothing to set up; by transforms where that finds no way."""
    try:
        return replace(J, nested=True).pull(W)
    except ModuleError:  # a true one comes again
        return J.pull(W)


def _slots(module: nn.Module, layout: ParameterLayout) -> dict[str, str]:
    """Every attribute that holds a parameter, each once, and the layout's name of that parameter.

    functional_call can find tied parameters by itself, but where a module is registered under two names it then puts
    the substitute back in place of the parameter.
    """
    names = dict(zip(map(id, layout.parameters), layout.names, strict=True))
    return {
        f"{path}.{name}".lstrip("."): names[id(parameter)]
        for path, owner in named_modules(module)
        for name, parameter in owner._parameters.items()
        if id(parameter) in names
    }
