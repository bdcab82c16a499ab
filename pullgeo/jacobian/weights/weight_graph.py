"""Jacobians with respect to weights: a block row, one block per layer occurrence, behind the graph of inputs."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from pullgeo._torch.submodules import all_parameters
from pullgeo._torch.transforms import transformed
from pullgeo.jacobian.base import Jacobian, added_up, all_added_up
from pullgeo.jacobian.contractions import flat, gram, outer, times
from pullgeo.jacobian.kinds.graph import Edge, MoveAlong, sweep_backward, sweep_forward
from pullgeo.jacobian.kinds.linear_map import Reshape
from pullgeo.jacobian.recompute import over_chunks
from pullgeo.jacobian.signature import Signature
from pullgeo.jacobian.weights.autodiff import AutodiffWeight
from pullgeo.jacobian.weights.parameters import ParameterLayout, coordinate_count
from pullgeo.jacobian.weights.partial import restricted
from pullgeo.jacobian.weights.written import Written, pulled_pieces
from pullgeo.numerics.chunking import GRAM


@dataclass(frozen=True, eq=False)
class ParameterBlock:
    """How parameters move the value of a node directly.

    Args:
        module: the layer that they belong to; ``None`` where parameters are used by themselves.
        parameters: in the order of the coordinates of ``J``.
        J: from the parameters' flat vector to the node's value.
    """

    module: nn.Module | None
    parameters: tuple[nn.Parameter, ...]
    J: Jacobian

    def split(self, flat: Float[Tensor, "*b p"]) -> list[tuple[nn.Parameter, Float[Tensor, "*b _"]]]:
        """The parameters with the pieces of a vector that belong to them."""
        pieces = flat.split([coordinate_count(p) for p in self.parameters], dim=-1)
        return list(zip(self.parameters, pieces, strict=True))

    def pulled(self, delta: Float[Tensor, "k b *y"]) -> list[tuple[nn.Parameter, Float[Tensor, "k b _"]]]:
        """The parameters with the cotangents pulled to them."""
        return list(zip(self.parameters, pulled_pieces(self.J, self.parameters, delta), strict=True))


def own_of(module: nn.Module, J: Jacobian, layout: ParameterLayout) -> ParameterBlock:
    """A layer with its Jacobian with respect to all its parameters, restricted to those that count."""
    every: tuple[Any, ...] = tuple(all_parameters(module))
    chosen = every if layout.ids.issuperset(map(id, every)) else tuple(p for p in every if id(p) in layout.ids)
    return ParameterBlock(module, chosen, J if len(chosen) == len(every) else restricted(J, every, chosen))


@dataclass(frozen=True, eq=False)
class Stage:
    """A node of the graph.

    Args:
        own: the parameters that move its value directly, if there are any.
        edges: derivatives with respect to those earlier stages that depend on parameters.
    """

    own: ParameterBlock | None
    edges: tuple[Edge, ...] = ()

    @property
    def module(self) -> nn.Module | None:
        """The layer that the parameters belong to."""
        return None if self.own is None else self.own.module

    @property
    def weight(self) -> Jacobian | None:
        """The derivative with respect to the stage's own parameters."""
        return None if self.own is None else self.own.J


GRAPH_CHUNKS = 4
"""How many chunks the graph of the sweep of one chunk may take in a backward pass."""

Swept = Iterable[tuple[ParameterBlock, Tensor, Tensor]]
"""Parameters with the two cotangents of the node that they move."""

SweptOnce = Iterable[tuple[ParameterBlock, Tensor]]
"""Parameters with the cotangent of the node that they move."""

Collect = Callable[[SweptOnce, Tensor], Tensor]
"""What all parameters get, in the order of the weights, of what a stack of cotangents has met."""


class Stages:
    """The stages of a graph, recorded when they are needed for the first time.

    Args:
        record: records them.
    """

    def __init__(self, record: Callable[[], Sequence[Stage]]) -> None:
        self._record = record

    @cached_property
    def every(self) -> tuple[Stage, ...]:
        """All of them."""
        return tuple(self._record())

    @cached_property
    def shared(self) -> frozenset[int]:
        """The ids of the parameters that more than one stage has."""
        uses = Counter(id(p) for stage in self.every if stage.own is not None for p in stage.own.parameters)
        return frozenset(parameter for parameter, count in uses.items() if count > 1)


class Run(ABC):
    """What pulls a few cotangents without a graph.

    Attributes:
        trusted: whether it is known that products are those of a graph.
    """

    trusted: bool

    @abstractmethod
    def takes(self, W: Float[Tensor, "k b *y"]) -> bool:
        """Whether it may pull such a stack."""

    @abstractmethod
    def pull(self, W: Float[Tensor, "k b *y"], collect: Collect) -> Float[Tensor, "k b p"] | None:
        """The product, by what collects what layers get; ``None`` if that is over."""

    @abstractmethod
    def judge(self, collect: Collect, graph: Callable[[Tensor], Tensor]) -> None:
        """Compare it with a graph, and trust it or not."""


@dataclass(frozen=True, eq=False)
class WeightGraph(Jacobian):
    """``J_θ = Σ_l P_l ∂_l``: the layers' own derivatives ``∂_l``, each behind all paths ``P_l`` from it to the output.

    One backward sweep brings the cotangents to every layer's output; there each layer contracts them with its own
    weight Jacobian, so a diagonal, a block or the Gram matrix never sees a stack of size k x P. Where stages share
    parameters, their contributions must add up before anything is squared: these cotangents are pulled to the weights.

    Args:
        root: the module whose parameter vector the weights are, in its order.
        x: the batch.
        source: where the stages come from.
        signature: ``(P,) -> (*y)``.
        layout: where each parameter stands in the vector of weights; what it leaves out is held fixed.
        run: pulls few cotangents without the stages, if there is one.
    """

    root: nn.Module
    x: Shaped[Tensor, "b *x"]
    source: Stages
    signature: Signature
    layout: ParameterLayout
    run: Run | None = None

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Nodes in an order of computation, each on a path from a parameter to the last."""
        return self.source.every

    @property
    def shared(self) -> frozenset[int]:
        """The ids of the parameters that more than one stage has."""
        return self.source.shared

    def push(self, T: Float[Tensor, "k b p"]) -> Float[Tensor, "k b *y"]:
        """Tangents of the weights pushed to the output in one forward sweep."""
        return self._forward(lambda J, t: J.push(t), T)

    def pull(self, W: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b p"]:
        """Cotangents of the output pulled to all weights in one backward sweep.

        Cost: of few cotangents, where a run serves, their backward passes in plain reverse mode; nothing is recorded.
        """
        run = self.run
        if run is not None and run.takes(W):
            if not run.trusted:
                run.judge(self._collected, self._pulled_by_stages)
            pulled = run.pull(W, self._collected) if run.trusted else None
            if pulled is not None:
                return pulled
        return self._pulled_by_stages(W)

    def pull_squared(self, w: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b p"]:
        """``(J_θ∘J_θ)ᵀ w`` exactly, in chunks. Cost: n_out backward sweeps for each of the k."""
        basis = self.signature.out_basis()
        squared = [self._squared(basis, rows.T) for rows in flat(w)]
        return torch.stack(squared) if squared else self.pull(w)

    def pull_squared_layerwise(self, w: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b p"]:
        """``(J_θ∘J_θ)ᵀ w`` with off-diagonal terms dropped before every layer: one backward sweep."""
        swept = self.sweep(lambda J, w: J.pull_squared_layerwise(w), w)
        return self._assembled(own.split(own.J.pull_squared_layerwise(delta)) for own, delta in swept)

    def push_squared_layerwise(self, v: Float[Tensor, "k b p"]) -> Float[Tensor, "k b *y"]:
        """``(J_θ∘J_θ) v`` with off-diagonal terms dropped after every layer: one forward sweep."""
        return self._forward(lambda J, t: J.push_squared_layerwise(t), v)

    def pull_gram(self, W: Float[Tensor, "k b *y"], V: Float[Tensor, "l b *y"]) -> Float[Tensor, "b k l"]:
        """``⟨J_θᵀ W_k, J_θᵀ V_l⟩``: with a basis for both the empirical neural tangent kernel ``J_θ J_θᵀ``.

        Cost: one backward sweep of each stack; with a chunk size, or where they take too much memory, one of each pair
        of their chunks.
        """
        if self.in_one_piece(max(len(W), len(V))):
            return self._gram_of(W, V)
        columns = list(self.sweep_parts(len(V)))
        tiles = [(left, right) for left in self.sweep_parts(len(W)) for right in columns]
        found = list(over_chunks(tiles, lambda tile: self._gram_of(W[tile[0]], V[tile[1]])))
        n = len(columns)
        return torch.cat([torch.cat(found[i : i + n], 2) for i in range(0, len(found), n)], 1)

    def pull_diag(self, W: Float[Tensor, "k b *y"], V: Float[Tensor, "k b *y"]) -> Float[Tensor, "b p"]:
        """``Σ_k J_θᵀ W_k ∘ J_θᵀ V_k``, layer by layer and in chunks of k."""

        def term(part: slice) -> Tensor:
            w = W[part]
            return self._diagonal(self.sweep_pair(w, w if V is W else V[part]))

        total = added_up(over_chunks(self.sweep_parts(len(W)), term))
        return W.new_zeros(W.shape[1], self.signature.n_in) if total is None else total

    def pull_blocks(
        self, W: Float[Tensor, "k b *y"], V: Float[Tensor, "k b *y"]
    ) -> list[Float[Tensor, "b _ _"] | None]:
        """Diagonal blocks of ``J_θᵀ (Σ_k W_k V_kᵀ) J_θ``: one per stage, ``None`` where it has no parameters."""
        keys = [id(own) for own in self._owners]

        def term(part: slice) -> tuple[Tensor, ...]:
            w = W[part]
            blocks = self._blocks_of(w, w if V is W else V[part])
            return tuple(blocks[key] for key in keys)

        parts = list(self.sweep_parts(len(W))) or [slice(0, 0)]
        totals = dict(zip(keys, all_added_up(over_chunks(parts, term)), strict=True))
        return [None if stage.own is None else totals[id(stage.own)] for stage in self.stages]

    def second(self, T: Float[Tensor, "k b p"], w: Float[Tensor, "b *y"]) -> Float[Tensor, "b k k"]:
        """By automatic differentiation of the root module, sample by sample: layers interact to second order."""
        return AutodiffWeight(self.root, self.x, self.signature, self.layout).second(T, w)

    def second_push(self, T: Float[Tensor, "k b p"], S: Float[Tensor, "k b p"]) -> Float[Tensor, "k b *y"]:
        """By automatic differentiation of the root module, sample by sample: layers interact to second order."""
        return AutodiffWeight(self.root, self.x, self.signature, self.layout).second_push(T, S)

    @property
    def _edges(self) -> list[tuple[Edge, ...]]:
        return [stage.edges for stage in self.stages]

    @property
    def _owners(self) -> list[ParameterBlock]:
        return [stage.own for stage in self.stages if stage.own is not None]

    def is_shared(self, own: ParameterBlock) -> bool:
        """Whether a layer's parameters serve another stage too."""
        return any(id(p) in self.shared for p in own.parameters)

    def _blocks_of(self, W: Tensor, V: Tensor) -> dict[int, Tensor]:
        blocks: dict[int, Tensor] = {}
        held = SharedAccumulator()
        for own, delta, gamma in self.sweep_pair(W, V):
            if self.is_shared(own):
                held.add(own, delta, gamma)
            else:
                blocks[id(own)] = own.J.pull_outer(delta, gamma)
        for own in self._owners:
            if self.is_shared(own):
                pulled, other = held.of(own)
                blocks[id(own)] = outer(torch.cat(pulled, -1), torch.cat(other, -1))
        return blocks

    def _gram_of(self, W: Tensor, V: Tensor) -> Tensor:
        total = W.new_zeros(W.shape[1], len(W), len(V))
        held = SharedAccumulator()
        for own, delta, gamma in self.sweep_pair(W, V):
            if self.is_shared(own):
                held.add(own, delta, gamma)
            else:
                total = total + own.J.pull_gram(delta, gamma)
        for pulled, other in held.pairs.values():
            total = total + gram(pulled, other)
        return total

    def _forward(self, move: MoveAlong, T: Tensor) -> Tensor:
        layout = self.layout
        pieces = dict(zip(map(id, layout.parameters), layout.split(T), strict=True))

        def seed(i: int) -> Tensor | None:
            own = self.stages[i].own
            return None if own is None else move(own.J, torch.cat([pieces[id(p)] for p in own.parameters], -1))

        return sweep_forward(self._edges, move, seed)

    def sweep(self, move: MoveAlong, W: Tensor) -> Iterator[tuple[ParameterBlock, Tensor]]:
        """Every layer with what arrives at its output from the last stage, in reverse order."""
        for i, delta in sweep_backward(self._edges, move, W):
            own = self.stages[i].own
            if own is not None:
                yield own, delta

    def sweep_pair(self, W: Tensor, V: Tensor) -> Iterator[tuple[ParameterBlock, Tensor, Tensor]]:
        """Every layer with two stacks of cotangents of its output, which are one where they begin as one."""
        swept = self.sweep(lambda J, w: J.pull(w), W)
        if V is W:
            yield from ((own, delta, delta) for own, delta in swept)
        else:
            other = self.sweep(lambda J, w: J.pull(w), V)
            yield from ((own, delta, gamma) for (own, delta), (_, gamma) in zip(swept, other, strict=True))

    def sweep_parts(self, k: int) -> Iterator[slice]:
        """Chunks of a stack of k, of the chunk size, or small enough for the widest node that they pass."""
        return self.parts(k, self.sweep_bytes)

    def in_one_piece(self, k: int) -> bool:
        """Whether k cotangents may be swept at once: within the chunk size, or what a Gram matrix may hold."""
        return k <= self.chunk_size if self.chunk_size is not None else GRAM.fits(k, self.sweep_bytes)

    @property
    def item_bytes(self) -> int:
        """That of a sweep, or the weights of every sample."""
        return max(super().item_bytes, self.sweep_bytes)

    @property
    def sweep_bytes(self) -> int:
        """What one cotangent of every sample takes on its way through a sweep that contracts layer by layer.

        Where gradients are on, a backward pass keeps the whole sweep of a chunk, so long graphs take smaller chunks.
        """
        widths = [edge.J.item_bytes for stage in self.stages for edge in stage.edges]
        widths += [own.J.item_bytes for own in self._owners if isinstance(own.J, Reshape) or self.is_shared(own)]
        s = self.signature
        widest = max([s.dtype.itemsize * s.batch * s.n_out, *widths])
        return max(widest, sum(widths) // GRAPH_CHUNKS) if torch.is_grad_enabled() else widest

    def _squared(self, W: Tensor, scale: Float[Tensor, "k b"]) -> Tensor:
        """``Σ_k scale_k (J_θᵀ W_k)²``: the scale waits until a layer contracts, so one sweep serves both factors."""

        def term(part: slice) -> Tensor:
            swept = self.sweep(lambda J, w: J.pull(w), W[part])
            return self._diagonal(((own, delta, delta) for own, delta in swept), scale[part])

        total = added_up(over_chunks(self.sweep_parts(len(W)), term))
        return W.new_zeros(W.shape[1], self.signature.n_in) if total is None else total

    def _diagonal(self, swept: Swept, scale: Float[Tensor, "k b"] | None = None) -> Tensor:
        """The products of both cotangents pulled to the weights, entry by entry; scaled, of one with itself."""
        found: dict[int, Tensor] = {}
        held = SharedAccumulator()
        for own, delta, gamma in swept:
            if self.is_shared(own):
                held.add(own, delta if scale is None else times(scale, delta), gamma)
            else:
                J = own.J
                diagonal = J.pull_diag(delta, gamma) if scale is None else J.pull_scaled_diag(scale, delta)
                found.update((id(p), piece) for p, piece in own.split(diagonal))
        found.update((p, (pulled * other).sum(0)) for p, (pulled, other) in held.pairs.items())
        return self.in_order(found)

    def _pulled_by_stages(self, W: Tensor) -> Tensor:
        if len(self.stages) == 1:
            own = self.stages[0].own
            if own is not None and [*map(id, own.parameters)] == [*map(id, self.layout.parameters)]:
                return own.J.pull(W)
        return self._collected(self.sweep(lambda J, w: J.pull(w), W), W)

    def _collected(self, swept: SweptOnce, W: Tensor) -> Tensor:
        if transformed():  # which does not know of places
            return self._assembled(own.pulled(delta) for own, delta in swept)
        written = Written(W, self.layout)
        for own, delta in swept:
            written.add(own.J, own.parameters, delta)
        return written.whole()

    def _assembled(self, contributions: Iterable[list[tuple[nn.Parameter, Tensor]]]) -> Tensor:
        """Contributions of the stages to the weights, added up."""
        found: dict[int, Tensor] = {}
        for contribution in contributions:
            for p, piece in contribution:
                found[id(p)] = found[id(p)] + piece if id(p) in found else piece
        return self.in_order(found)

    def in_order(self, found: dict[int, Tensor]) -> Tensor:
        """What was found for each parameter, by its id, in the order of the weights; zeros for those without any."""
        like = next(iter(found.values()))
        lead, parameters = like.shape[:-1], self.layout.parameters
        ordered = [found[id(p)] if id(p) in found else like.new_zeros(*lead, coordinate_count(p)) for p in parameters]
        return torch.cat(ordered, dim=-1) if len(ordered) > 1 else ordered[0]


class SharedAccumulator:
    """Cotangents pulled to parameters that several stages share, added up as the sweep meets them."""

    def __init__(self) -> None:
        self.pairs: dict[int, tuple[Tensor, Tensor]] = {}

    def add(self, own: ParameterBlock, delta: Tensor, gamma: Tensor) -> None:
        """Pull both cotangents of a layer's output to its parameters."""
        pulled = own.J.pull(delta)
        other = pulled if gamma is delta else own.J.pull(gamma)
        for (p, left), (_, right) in zip(own.split(pulled), own.split(other), strict=True):
            before = self.pairs.get(id(p))
            self.pairs[id(p)] = (left, right) if before is None else (before[0] + left, before[1] + right)

    def of(self, own: ParameterBlock) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Both pulled cotangents, parameter by parameter of one layer."""
        pulled, other = zip(*(self.pairs[id(p)] for p in own.parameters), strict=True)
        return pulled, other
