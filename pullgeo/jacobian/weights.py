"""Jacobians with respect to weights: a block row, one block per layer occurrence, behind the chain of inputs."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from pullgeo.jacobian.autodiff import AutodiffWeight
from pullgeo.jacobian.base import Jacobian, chunks
from pullgeo.jacobian.contract import gram, outer
from pullgeo.jacobian.parameters import ParameterLayout
from pullgeo.jacobian.signature import Signature


@dataclass(frozen=True, eq=False)
class Stage:
    """One step of a chain: how tangents pass through it and, if it has parameters, how these move its output.

    Args:
        module: the layer; it owns the parameters that ``weight`` is about.
        through: derivative with respect to the stage's input; ``None`` where no earlier stage has parameters.
        weight: derivative with respect to the stage's own parameters; ``None`` where it has none.
    """

    module: nn.Module
    through: Jacobian | None
    weight: Jacobian | None


@dataclass(frozen=True, eq=False)
class WeightChain(Jacobian):
    """``J_θ = [J_L⋯J_2 ∂_1, ..., J_L ∂_{L-1}, ∂_L]`` of a chain of layers, in the root module's parameter order.

    One backward sweep brings the cotangents to every layer's output; there each layer contracts them with its own
    weight Jacobian, so a diagonal, a block or the Gram matrix never sees a stack of size k x P. Where stages share
    parameters, their contributions add up before anything is squared: cotangents are then pulled to the weights.
    """

    root: nn.Module
    x: Shaped[Tensor, "b *x"]
    stages: tuple[Stage, ...]
    signature: Signature

    @property
    def layout(self) -> ParameterLayout:
        """Where each parameter stands in the root's vector of weights."""
        return ParameterLayout.of(self.root)

    @property
    def shares_parameters(self) -> bool:
        """Whether a parameter belongs to more than one stage."""
        ids = [id(p) for stage in self.stages if stage.weight is not None for p in stage.module.parameters()]
        return len(set(ids)) < len(ids)

    def push(self, T: Float[Tensor, "k b p"]) -> Float[Tensor, "k b *y"]:
        """Tangents of the weights pushed to the output in one forward sweep."""
        layout = self.layout
        t: Tensor | None = None
        for stage in self.stages:
            if t is not None and stage.through is not None:
                t = stage.through.push(t)
            if stage.weight is not None:
                own = stage.weight.push(layout.gather(T, stage.module.parameters()))
                t = own if t is None else t + own
        return T.new_zeros(*T.shape[:2], *self.signature.out_shape) if t is None else t

    def pull(self, W: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b p"]:
        """Cotangents of the output pulled to all weights in one backward sweep."""
        return self._assemble(((stage, weight.pull(delta)) for stage, weight, delta in self._sweep(W)), W)

    def pull_squared(self, w: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b p"]:
        """``(J_θ∘J_θ)ᵀ w`` exactly. Cost: n_out backward sweeps for each of the k."""
        basis = self.signature.out_basis()
        return torch.stack([self.pull_diag(basis * w_k, basis) for w_k in w]) if len(w) else self.pull(w)

    def pull_squared_layerwise(self, w: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b p"]:
        """``(J_θ∘J_θ)ᵀ w`` with off-diagonal terms dropped before every layer: one backward sweep."""
        swept = self._sweep(w, squared=True)
        return self._assemble(((stage, weight.pull_squared_layerwise(delta)) for stage, weight, delta in swept), w)

    def push_squared_layerwise(self, v: Float[Tensor, "k b p"]) -> Float[Tensor, "k b *y"]:
        """``(J_θ∘J_θ) v`` with off-diagonal terms dropped after every layer: one forward sweep."""
        layout = self.layout
        t: Tensor | None = None
        for stage in self.stages:
            if t is not None and stage.through is not None:
                t = stage.through.push_squared_layerwise(t)
            if stage.weight is not None:
                own = stage.weight.push_squared_layerwise(layout.gather(v, stage.module.parameters()))
                t = own if t is None else t + own
        return v.new_zeros(*v.shape[:2], *self.signature.out_shape) if t is None else t

    def pull_gram(self, W: Float[Tensor, "k b *y"], V: Float[Tensor, "l b *y"]) -> Float[Tensor, "b k l"]:
        """``⟨J_θᵀ W_k, J_θᵀ V_l⟩``: with a basis for both the empirical neural tangent kernel ``J_θ J_θᵀ``."""
        if self.shares_parameters:
            pulled = self.pull(W)
            return gram(pulled, pulled if V is W else self.pull(V))
        total = W.new_zeros(W.shape[1], len(W), len(V))
        for _, weight, delta, gamma in self._sweep_pair(W, V):
            total = total + weight.pull_gram(delta, gamma)
        return total

    def pull_diag(self, W: Float[Tensor, "k b *y"], V: Float[Tensor, "k b *y"]) -> Float[Tensor, "b p"]:
        """``Σ_k J_θᵀ W_k ∘ J_θᵀ V_k``, layer by layer and in chunks of k."""
        if self.shares_parameters:
            return super().pull_diag(W, V)
        item_bytes = W.element_size() * self.signature.batch * max(self.signature.n_out, self._widest)
        total = W.new_zeros(W.shape[1], self.signature.n_in)
        for part in chunks(len(W), item_bytes):
            swept = self._sweep_pair(W[part], W[part] if V is W else V[part])
            diagonals = ((stage, weight.pull_diag(delta, gamma)) for stage, weight, delta, gamma in swept)
            total = total + self._assemble(diagonals, total)
        return total

    def pull_blocks(
        self, W: Float[Tensor, "k b *y"], V: Float[Tensor, "k b *y"]
    ) -> list[Float[Tensor, "b _ _"] | None]:
        """Diagonal blocks of ``J_θᵀ (Σ_k W_k V_kᵀ) J_θ``: one per stage, ``None`` where it has no parameters."""
        if self.shares_parameters:
            layout, JW, JV = self.layout, self.pull(W), self.pull(V)
            return [self._shared_block(stage, layout, JW, JV) for stage in self.stages]
        swept = self._sweep_pair(W, V)
        blocks = {id(stage): weight.pull_outer(delta, gamma) for stage, weight, delta, gamma in swept}
        return [blocks.get(id(stage)) for stage in self.stages]

    def second(self, T: Float[Tensor, "k b p"], w: Float[Tensor, "b *y"]) -> Float[Tensor, "b k k"]:
        """By automatic differentiation of the root module, sample by sample: layers interact to second order."""
        return AutodiffWeight(self.root, self.x, self.signature).second(T, w)

    def second_push(self, T: Float[Tensor, "k b p"], S: Float[Tensor, "k b p"]) -> Float[Tensor, "k b *y"]:
        """By automatic differentiation of the root module, sample by sample: layers interact to second order."""
        return AutodiffWeight(self.root, self.x, self.signature).second_push(T, S)

    @property
    def _widest(self) -> int:
        widths = [stage.through.signature.n_in for stage in self.stages if stage.through is not None]
        return max(widths, default=1)

    @staticmethod
    def _shared_block(stage: Stage, layout: ParameterLayout, JW: Tensor, JV: Tensor) -> Tensor | None:
        if stage.weight is None:
            return None
        parameters = list(stage.module.parameters())
        return outer(layout.gather(JW, parameters), layout.gather(JV, parameters))

    def _sweep(self, W: Tensor, squared: bool = False) -> Iterator[tuple[Stage, Jacobian, Tensor]]:
        for stage in reversed(self.stages):
            if stage.weight is not None:
                yield stage, stage.weight, W
            if stage.through is None:
                return
            W = stage.through.pull_squared_layerwise(W) if squared else stage.through.pull(W)

    def _sweep_pair(self, W: Tensor, V: Tensor) -> Iterator[tuple[Stage, Jacobian, Tensor, Tensor]]:
        if V is W:
            for stage, weight, delta in self._sweep(W):
                yield stage, weight, delta, delta
        else:
            for (stage, weight, delta), (_, _, gamma) in zip(self._sweep(W), self._sweep(V), strict=True):
                yield stage, weight, delta, gamma

    def _assemble(self, pieces: Iterable[tuple[Stage, Tensor]], like: Tensor) -> Tensor:
        layout = self.layout
        found: dict[int, Tensor] = {}
        lead: torch.Size | None = None
        for stage, flat in pieces:
            lead = flat.shape[:-1]
            own = ParameterLayout.of(stage.module)
            for parameter, piece in zip(own.parameters, own.split(flat), strict=True):
                found[id(parameter)] = found[id(parameter)] + piece if id(parameter) in found else piece
        lead = lead if lead is not None else like.shape[:2]
        untouched = (like.new_zeros(*lead, p.numel()) for p in layout.parameters if id(p) not in found)
        return torch.cat([found[id(p)] if id(p) in found else next(untouched) for p in layout.parameters], dim=-1)
