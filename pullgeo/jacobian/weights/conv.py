"""The derivative of a convolution, or a transposed one, with respect to its kernel and bias."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.jacobian.base import LinearKind
from pullgeo.jacobian.contractions import gram
from pullgeo.jacobian.kinds.convolution import Convolution
from pullgeo.jacobian.recompute import over_chunks
from pullgeo.jacobian.signature import Signature
from pullgeo.jacobian.weights.base import WeightKind
from pullgeo.numerics.chunking import WORKING_SET


@dataclass(frozen=True, eq=False)
class ConvWeight(WeightKind, LinearKind):
    """``J_θ (δA, δc) = δA * x + δc``.

    In each group, the cotangent of a weight is one product of matrices over the positions s of the kernel,
    ``Σ_s w_cs x_as``. For a convolution ``x_as`` are the windows of the input (channel and tap in a) and ``w`` is the
    cotangent itself; for a transposed one ``x`` is the input itself and ``w_cs`` are the windows of the cotangent.

    Args:
        x: the layer's input ``(b, *x)``, already padded where padding is not by zeros.
        convolution: the settings.
        weight_shape: shape of the kernel as the layer stores it.
        transposed: whether the layer goes from the narrow side to the wide one.
        bias: whether there is a ``c``.
        signature: ``(P,) -> (*y)``.

    Cost: a cotangent takes as many operations as the gradient of a loss; a diagonal or a Gram matrix takes the way
    through pairs of positions, which forms no weights, wherever there are few positions.

    Example:
        >>> from pullgeo.jacobian import weight_rule_for
        >>> layer = torch.nn.Conv1d(2, 3, 2)
        >>> J = weight_rule_for(layer)(layer, torch.zeros(1, 2, 4))
        >>> J.pull(torch.ones(5, 1, 3, 3)).shape
        torch.Size([5, 1, 15])
    """

    x: Float[Tensor, "b _ *x"]
    convolution: Convolution
    weight_shape: tuple[int, ...]
    transposed: bool
    bias: bool
    signature: Signature

    def at(self, part: slice) -> "ConvWeight":
        """Some of the samples."""
        x = self.x[part]
        return replace(self, x=x, signature=replace(self.signature, batch=len(x)))

    def push(self, T: Float[Tensor, "k b p"]) -> Float[Tensor, "k b *y"]:
        """``δA * x + δc``: all tangents and samples side by side as groups of one convolution."""
        times = T.shape[:2].numel()
        if times == 0:
            return T.new_zeros(*T.shape[:2], *self.signature.out_shape)
        kernels = T[..., : math.prod(self.weight_shape)].reshape(-1, *self.weight_shape[1:])
        x = self.x.expand(len(T), *self.x.shape).reshape(1, -1, *self.x.shape[2:])
        move = self.convolution.transpose if self.transposed else self.convolution.apply
        y = move(x, kernels, times=times).reshape(*T.shape[:2], *self.signature.out_shape)
        if not self.bias:
            return y
        return y + T[..., math.prod(self.weight_shape) :].reshape(*y.shape[:3], *[1] * (y.ndim - 3))

    def pull(self, W: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b p"]:
        """``(Σ_s w_s x_sᵀ, Σ_s w_s)``, the windows of cotangents in chunks."""
        pieces = self.pull_pieces(W)
        return torch.cat(pieces, -1) if self.bias else pieces[0]

    def pull_pieces(self, W: Float[Tensor, "k b *y"]) -> list[Float[Tensor, "k b _"]]:
        """The kernel's, and the bias's."""
        x = self._inputs()

        def pulled(part: slice) -> Tensor:
            return torch.einsum(f"kbgcs,bgas->kbg{self._order}", self._cotangents(W[part]), x).flatten(2)

        parts = list(over_chunks(self._cotangent_parts(W), pulled))
        weight = torch.cat(parts) if parts else W.new_zeros(*W.shape[:2], math.prod(self.weight_shape))
        return [weight, W.flatten(3).sum(3)] if self.bias else [weight]

    def push_squared(self, v: Float[Tensor, "k b p"]) -> Float[Tensor, "k b *y"]:
        """``v * x² + v_c``: a weight acts on an output once, through one element of the input."""
        return replace(self, x=self.x.square()).push(v)

    def pull_squared(self, w: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b p"]:
        """``(Σ_s w_s (x_s²)ᵀ, Σ_s w_s)``."""
        return replace(self, x=self.x.square()).pull(w)

    def pull_gram(self, W: Float[Tensor, "k b *y"], V: Float[Tensor, "l b *y"]) -> Float[Tensor, "b k l"]:
        """``Σ_st ⟨w_ks, v_lt⟩ ⟨x_s, x_t⟩``, or from the weights' cotangents where these take fewer operations."""
        k, n, (_, c, a, s) = len(W), len(V), self._sizes
        pulls = k if V is W else k + n
        if pulls * c * a * s + k * n * c * a <= s * s * a + k * c * s * s + k * n * c * s:
            return super().pull_gram(W, V)
        x = self._inputs()
        kernel = x.mT @ x
        right = self._cotangents(V)

        def row(part: slice) -> Tensor:
            return gram(torch.einsum("kbgcs,bgst->kbgct", self._cotangents(W[part]), kernel), right)

        rows = list(over_chunks(self._cotangent_parts(W), row))
        total = torch.cat(rows, 1) if rows else W.new_zeros(W.shape[1], k, n)
        return total + gram(W.flatten(3).sum(3), V.flatten(3).sum(3)) if self.bias else total

    def pull_diag(self, W: Float[Tensor, "k b *y"], V: Float[Tensor, "k b *y"]) -> Float[Tensor, "b p"]:
        """``Σ_st (Σ_k w_kcs v_kct) x_as x_at``, or from the weights' cotangents in chunks where these take less."""
        k, (g, c, a, s) = len(W), self._sizes
        if (1 if V is W else 2) * k * a <= s * (k + a):
            return super().pull_diag(W, V)
        x = self._inputs()

        def diagonal(part: slice) -> Tensor:
            w = self._cotangents(W[:, part])
            products = torch.einsum("kbgcs,kbgct->bgcst", w, w if V is W else self._cotangents(V[:, part]))
            spread = torch.einsum("bgcst,bgat->bgcsa", products, x[part])
            return torch.einsum(f"bgcsa,bgas->bg{self._order}", spread, x[part]).flatten(1)

        parts = list(over_chunks(WORKING_SET.slices(len(x), g * c * s * max(s, a, k) * x.element_size()), diagonal))
        weight = torch.cat(parts) if parts else W.new_zeros(0, math.prod(self.weight_shape))
        return self._pack(weight, (W.flatten(3).sum(3) * V.flatten(3).sum(3)).sum(0))

    @property
    def _order(self) -> str:
        return "ac" if self.transposed else "ca"

    @property
    def _sizes(self) -> tuple[int, int, int, int]:
        """Groups g, entries of a group's weights (c, a), positions s: the kernel's cotangent is ``(g, c, a)``."""
        settings, (first, second) = self.convolution, self.weight_shape[:2]
        per_group, per_window = first // settings.groups, second * settings.taps
        c, a = (per_window, per_group) if self.transposed else (per_group, per_window)
        return settings.groups, c, a, settings.positions

    def _inputs(self) -> Float[Tensor, "b g a s"]:
        g, _, a, s = self._sizes
        seen = self.x if self.transposed else self.convolution.windows(self.x)
        return seen.reshape(len(self.x), g, a, s)

    def _cotangents(self, W: Tensor) -> Float[Tensor, "k b g c s"]:
        g, c, _, s = self._sizes
        seen = self.convolution.windows(W) if self.transposed else W
        return seen.reshape(*W.shape[:2], g, c, s)

    def _cotangent_parts(self, W: Tensor) -> Iterator[slice]:
        g, c, _, s = self._sizes
        return WORKING_SET.slices(len(W), W.shape[1] * g * c * s * W.element_size())

    def _pack(self, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.cat([weight, bias], dim=-1) if self.bias else weight
