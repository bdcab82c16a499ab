"""Blocks over weights: one for each layer, nested as the containers are."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from jaxtyping import Int
from torch import Tensor, nn

from pullgeo.errors import DtypeError, OptionError, ShapeError
from pullgeo.jacobian.base import Jacobian, all_added_up
from pullgeo.jacobian.contractions import outer
from pullgeo.jacobian.recompute import over_chunks
from pullgeo.jacobian.weights.batch_sum import BatchSum
from pullgeo.jacobian.weights.parameters import ParameterLayout
from pullgeo.jacobian.weights.weight_graph import WeightGraph
from pullgeo.metric.block_diagonal import BlockDiagonal
from pullgeo.metric.implicit import Implicit
from pullgeo.nnj.arguments import Side

Blocks: TypeAlias = Tensor | list[Any]
"""``(b, P_l, P_l)`` for a layer, or ``(P_l, P_l)`` added up over the batch; a list of these for a container."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A module that owns parameters, those that count, and where they stand in the root's vector of weights."""

    module: nn.Module
    parameters: tuple[nn.Parameter, ...]
    positions: Int[Tensor, " p"]


Layout: TypeAlias = Layer | list[Any]
"""A layer, or the layouts of the children of a container."""


def weight_layout(
    module: nn.Module, device: torch.device | None = None, weights: ParameterLayout | None = None
) -> Layout:
    """The layers of a module that has parameters, nested as its children are; parameters that do not count are none.

    A module with parameters of its own is one layer, whatever it contains; any other is the list of those of its
    children that have parameters, each child once. A module that only wraps one of its children, as a skip connection
    does, says so by the name of that child, ``blocks_are_of``, and is laid out as the child is.
    """
    layout = ParameterLayout.of(module) if weights is None else weights
    positions = layout.split(torch.arange(layout.size, device=device))
    places = dict(zip(map(id, layout.parameters), positions, strict=True))
    return _layout(module, places, layout)


def layers(layout: Layout) -> Iterator[Layer]:
    """All layers, in order."""
    if isinstance(layout, Layer):
        yield layout
    else:
        for entry in layout:
            yield from layers(entry)


def pull_blocks(metric: Implicit, layout: Layout) -> Blocks:
    """The blocks of a metric on weights, ``J_θᵀ M J_θ``, for each layer, nested as the layout is.

    Cost: as many backward sweeps as M has dimensions and the blocks themselves; where the stages of ``J`` are other
    modules than these layers, the pulled stacks are held in chunks besides.
    """
    J, terms = metric.J, metric.terms
    matching = isinstance(J, WeightGraph) and _stages_match(J, layout)

    def term(part: slice) -> tuple[Tensor, ...]:
        W, V = metric.factors(part)
        if isinstance(J, WeightGraph) and matching:
            return tuple(_blocks_of_stages(J, W, V, layout))
        return tuple(_blocks_of_any(J, W, V, layout))

    parts = J.sweep_parts(terms) if isinstance(J, WeightGraph) and matching else J.parts(terms, J.item_bytes)
    return _nest(layout, iter(all_added_up(over_chunks(list(parts) or [slice(0, 0)], term))))


def sum_blocks(metric: Implicit, layout: Layout) -> Blocks:
    """The same blocks added up over the batch; an array of the batch times the weights is never formed."""
    J = metric.J
    if not isinstance(J, WeightGraph):
        raise OptionError("sum_blocks: expected a metric pulled back to the weights of a network.")
    groups = [layer.parameters for layer in layers(layout)]
    over_batch = BatchSum(J)
    parts = list(J.sweep_parts(metric.terms)) or [slice(0, 0)]
    terms = over_chunks(parts, lambda part: tuple(over_batch.pull_blocks(*metric.factors(part), groups)))
    return _nest(layout, iter(all_added_up(terms)))


def block_metric(side: Side, blocks: list[Any] | tuple[Any, ...], layout: Layout) -> BlockDiagonal:
    """The metric on all weights that nested blocks stand for.

    Raises:
        ShapeError: the blocks are not nested as the layout is, or one has the wrong shape.
        DtypeError: an entry is not a tensor of the Jacobian's precision.
    """
    matched = list(_match(side, blocks, layout, "matrix"))
    return BlockDiagonal(tuple(b for b, _ in matched), tuple(layer.positions for _, layer in matched), side.n)


def _layout(module: nn.Module, places: dict[int, Tensor], weights: ParameterLayout) -> Layout:
    children = [child for child in module.children() if weights.own(child)]
    if not children or any(id(p) in places for p in module.parameters(recurse=False)):
        own = weights.own(module)
        return Layer(module, own, torch.cat([places[id(p)] for p in own]))
    wrapped = getattr(type(module), "blocks_are_of", None)
    if wrapped is not None and children == [getattr(module, wrapped)]:
        return _layout(children[0], places, weights)
    return [_layout(child, places, weights) for child in children]


def _nest(layout: Layout, blocks: Iterator[Tensor]) -> Blocks:
    return next(blocks) if isinstance(layout, Layer) else [_nest(entry, blocks) for entry in layout]


def _stages_match(J: WeightGraph, layout: Layout) -> bool:
    own = {id(stage.module) for stage in J.stages if stage.weight is not None}
    return all(id(layer.module) in own for layer in layers(layout))


def _blocks_of_stages(J: WeightGraph, W: Tensor, V: Tensor, layout: Layout) -> list[Tensor]:
    blocks = {id(s.module): b for s, b in zip(J.stages, J.pull_blocks(W, V), strict=True) if b is not None}
    return [blocks[id(layer.module)] for layer in layers(layout)]


def _blocks_of_any(J: Jacobian, W: Tensor, V: Tensor, layout: Layout) -> list[Tensor]:
    JW = J.pull(W)
    JV = JW if V is W else J.pull(V)
    return [outer(JW[..., layer.positions], JV[..., layer.positions]) for layer in layers(layout)]


def _match(side: Side, blocks: object, layout: Layout, path: str) -> Iterator[tuple[Tensor, Layer]]:
    if isinstance(layout, Layer):
        n = len(layout.positions)
        name = type(layout.module).__name__
        if not isinstance(blocks, Tensor) or blocks.dtype != side.dtype:
            got = blocks.dtype if isinstance(blocks, Tensor) else type(blocks).__name__
            raise DtypeError(f"{side.where}: {path} (for {name}) must be a {side.dtype} tensor, got {got}.")
        if blocks.shape != (side.batch, n, n):
            raise ShapeError(
                f"{side.where}: {path} (for {name}) must have shape {(side.batch, n, n)}, got {tuple(blocks.shape)}. "
                "There is one block per layer with parameters, in the order of its own parameter vector."
            )
        yield blocks, layout
        return
    if not isinstance(blocks, list | tuple) or len(blocks) != len(layout):
        got = f"{len(blocks)} entries" if isinstance(blocks, list | tuple) else type(blocks).__name__
        raise ShapeError(
            f"{side.where}: {path} must be a list of {len(layout)} entries, one per child that has parameters, got "
            f"{got}. Blocks are nested as the containers are, as jTmjp(wrt='weight') returns them."
        )
    for number, (block, entry) in enumerate(zip(blocks, layout, strict=True)):
        yield from _match(side, block, entry, f"{path}[{number}]")
