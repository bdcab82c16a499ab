"""Networks that branch and merge: a directed acyclic graph whose edges are Jacobians."""

import functools
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.jacobian.base import Jacobian, LinearKind, add_second_order
from pullgeo.jacobian.contractions import combined, gram
from pullgeo.jacobian.kinds.linear_map import Placed
from pullgeo.jacobian.signature import Signature

MoveAlong = Callable[[Jacobian, Tensor], Tensor]
"""How a stack passes along an edge: pushed, pulled, or moved by squares."""

Seed = Callable[[int], Tensor | None]
"""The stack that arises at a node by itself, if one does."""


@dataclass(frozen=True, eq=False)
class Edge:
    """The derivative of a node with respect to one of the nodes that it is computed from, the others held fixed."""

    parent: int
    J: Jacobian


class Interaction(ABC):
    """The mixed second derivative of an operation in its two arguments, which stand at a node's first two edges."""

    @abstractmethod
    def second(
        self, T: Float[Tensor, "k b *l"], S: Float[Tensor, "k b *r"], w: Float[Tensor, "b *y"]
    ) -> Float[Tensor, "b k k"]:
        """``⟨w, ∂₁∂₂y[T_i, S_j]⟩`` with ``T`` tangents of the first argument and ``S`` of the second."""

    @abstractmethod
    def second_push(self, T: Float[Tensor, "k b *l"], S: Float[Tensor, "k b *r"]) -> Float[Tensor, "k b *y"]:
        """``∂₁∂₂y[T_k, S_k]``."""


@dataclass(frozen=True, eq=False)
class Bilinear(Interaction):
    """Of a product ``y = B(l, r)``, linear in each argument: the same product of tangents.

    Args:
        product: ``B`` of stacks ``(k, b, *l)`` and ``(k, b, *r)``.
        pull_left: for a stack of tangents of the right argument and a cotangent ``(b, *y)``, the stack of cotangents
            of the left argument: ``(w, S) -> B(·, S_k)ᵀ w``.
    """

    product: Callable[[Tensor, Tensor], Tensor]
    pull_left: Callable[[Tensor, Tensor], Tensor]

    def second(
        self, T: Float[Tensor, "k b *l"], S: Float[Tensor, "k b *r"], w: Float[Tensor, "b *y"]
    ) -> Float[Tensor, "b k k"]:
        """``⟨w, B(T_i, S_j)⟩``."""
        return gram(T, self.pull_left(w, S))

    def second_push(self, T: Float[Tensor, "k b *l"], S: Float[Tensor, "k b *r"]) -> Float[Tensor, "k b *y"]:
        """``B(T_k, S_k)``."""
        return self.product(T, S)


@dataclass(frozen=True, eq=False)
class Node:
    """An operation: its derivative with respect to each argument, and how the first two interact to second order."""

    edges: tuple[Edge, ...]
    interaction: Interaction | None = None


@dataclass(frozen=True, eq=False)
class Graph(Jacobian):
    """``J`` of a network whose values are used several times and brought together again: residuals, gates, skips.

    Node 0 is the input, the last one the output; the others stand between them in an order of computation. Pushing is
    a sweep forwards in which every node adds up what arrives along its edges; pulling is the same backwards. Cross
    terms of branches are therefore exact, as in ``(A + I)ᵀ M (A + I)``.

    The layerwise squared maps add up diagonals where branches merge: one pass as in a chain, and the products of two
    different branches are among the terms that they drop.

    Args:
        nodes: node 0 has no edges; edges lead to earlier nodes.
        signature: shapes of the first and the last.
    """

    nodes: tuple[Node, ...]
    signature: Signature

    def _kind(self) -> str:
        return f"Graph[{len(self.nodes)} nodes]"

    @property
    def item_bytes(self) -> int:
        """As of the widest edge."""
        return max([super().item_bytes, *(edge.J.item_bytes for node in self.nodes for edge in node.edges)])

    def push(self, T: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *y"]:
        """One sweep forwards."""
        return sweep_forward(self._edges, _pushed, lambda i: T if i == 0 else None)

    def pull(self, W: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b *x"]:
        """One sweep backwards."""
        return self._backward(lambda J, w: J.pull(w), W)

    def push_squared_layerwise(self, v: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *y"]:
        """One sweep forwards of diagonals."""
        return sweep_forward(self._edges, lambda J, t: J.push_squared_layerwise(t), lambda i: v if i == 0 else None)

    def pull_squared_layerwise(self, w: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b *x"]:
        """One sweep backwards of diagonals."""
        return self._backward(lambda J, w: J.pull_squared_layerwise(w), w)

    def second(self, T: Float[Tensor, "k b *x"], w: Float[Tensor, "b *y"]) -> Float[Tensor, "b k k"]:
        """The sum over nodes of their second derivatives, at the tangents pushed and the cotangent pulled there."""
        return self.push_with_second(T, w)[1]

    def push_with_second(
        self, T: Float[Tensor, "k b *x"], w: Float[Tensor, "b *y"]
    ) -> tuple[Float[Tensor, "k b *y"], Float[Tensor, "b k k"]]:
        """One sweep backwards of the cotangent, then one forwards in which each edge's tangents serve at once."""
        deltas = dict(sweep_backward(self._edges, lambda J, w: J.pull(w), w.unsqueeze(0)))
        total = T.new_zeros(T.shape[1], len(T), len(T))
        arrived = [T]
        for i, node in enumerate(self.nodes[1:], start=1):
            moved: list[Tensor] = []
            for edge in node.edges:
                if isinstance(edge.J, LinearKind):
                    moved.append(edge.J.push(arrived[edge.parent]))
                else:
                    pushed, second_order = edge.J.push_with_second(arrived[edge.parent], deltas[i].squeeze(0))
                    moved.append(pushed)
                    total = total + second_order
            if node.interaction is not None:
                left, right = (arrived[edge.parent] for edge in node.edges[:2])
                mixed = node.interaction.second(left, right, deltas[i].squeeze(0))
                total = total + mixed + mixed.mT
            arrived.append(_sum(moved))
        return arrived[-1], total

    def second_push(self, T: Float[Tensor, "k b *x"], S: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *y"]:
        """One sweep forwards of ``(T, S, C)``, with ``C`` the second derivative so far."""
        Ts, Ss, Cs = [T], [S], [torch.zeros_like(T)]
        for node in self.nodes[1:]:
            Ts.append(_sum(arrivals(node.edges, _pushed, Ts)))
            Ss.append(Ts[-1] if S is T else _sum(arrivals(node.edges, _pushed, Ss)))
            C = _sum(arrivals(node.edges, _pushed, Cs))
            for edge in node.edges:
                if not isinstance(edge.J, LinearKind):
                    C = C + edge.J.second_push(Ts[edge.parent], Ss[edge.parent])
            if node.interaction is not None:
                left, right = (edge.parent for edge in node.edges[:2])
                C = C + node.interaction.second_push(Ts[left], Ss[right])
                C = C + node.interaction.second_push(Ss[left], Ts[right])
            Cs.append(C)
        return Cs[-1]

    def push_jet(
        self, X: Float[Tensor, "m b *x"], u: Float[Tensor, "l b k"], w: Float[Tensor, "l b k"]
    ) -> Float[Tensor, "n b *y"]:
        """One sweep forwards, in which every node adds up what arrives and its arguments' interactions."""
        k = u.shape[2]
        arrived = [X]
        for node in self.nodes[1:]:
            jet = _sum_of_jets([edge.J.push_jet(arrived[edge.parent], u, w) for edge in node.edges], k)
            if node.interaction is not None:
                parents = [arrived[edge.parent][:k] for edge in node.edges[:2]]
                (left_u, right_u), (left_w, right_w) = ([combined(T, c) for T in parents] for c in (u, w))
                jet = add_second_order(jet, k, node.interaction.second_push(left_u, right_w))
                jet = add_second_order(jet, k, node.interaction.second_push(left_w, right_u))
            arrived.append(jet)
        return arrived[-1]

    @property
    def _edges(self) -> list[tuple[Edge, ...]]:
        return [node.edges for node in self.nodes]

    def _backward(self, move: MoveAlong, W: Tensor) -> Tensor:
        delta = W
        for _, delta in sweep_backward(self._edges, move, W):  # noqa: B007
            pass
        return delta


def sweep_forward(edges: Sequence[Sequence[Edge]], move: MoveAlong, seed: Seed) -> Tensor:
    """The stack that arrives at the last node.

    Args:
        edges: for each node those that lead to it; a node without any needs a seed.
        move: how a stack passes along an edge.
        seed: the stack that arises at a node, besides what arrives there.
    """
    last_use = {edge.parent: i for i, arriving in enumerate(edges) for edge in arriving}
    held: dict[int, Tensor] = {}
    for i, arriving in enumerate(edges):
        own = seed(i)
        parts = arrivals(arriving, move, held)
        held[i] = _sum(parts if own is None else [*parts, own])
        for edge in arriving:
            if last_use[edge.parent] == i:
                held.pop(edge.parent, None)
    return held[len(edges) - 1]


def arrivals(arriving: Sequence[Edge], move: MoveAlong, held: Mapping[int, Tensor] | Sequence[Tensor]) -> list[Tensor]:
    """What arrives at a node along its edges, to be added up; the pieces of one whole are put side by side at once."""
    placed = [edge.J for edge in arriving if isinstance(edge.J, Placed)]
    if len(placed) > 1 and len(placed) == len(arriving):
        return [Placed.side_by_side(placed, [held[edge.parent] for edge in arriving])]
    return [move(edge.J, held[edge.parent]) for edge in arriving]


def sweep_backward(edges: Sequence[Sequence[Edge]], move: MoveAlong, W: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Every node with the stack that arrives there from the last one, in reverse order.

    Args:
        edges: for each node those that lead to it; every node but the last is a parent of a later one.
        move: how a stack passes back along an edge.
        W: what starts at the last node.
    """
    held = {len(edges) - 1: W}
    for i in reversed(range(len(edges))):
        delta = held.pop(i)
        yield i, delta
        for edge in edges[i]:
            moved = move(edge.J, delta)
            held[edge.parent] = held[edge.parent] + moved if edge.parent in held else moved


def _pushed(J: Jacobian, T: Tensor) -> Tensor:
    return J.push(T)


def _sum(stacks: Iterable[Tensor]) -> Tensor:
    return functools.reduce(operator.add, stacks)


def _sum_of_jets(jets: list[Tensor], k: int) -> Tensor:
    """What arrives at a node; a jet of k tangents alone has no second derivatives."""
    longest = max(map(len, jets))
    total = _sum(jet for jet in jets if len(jet) == longest)
    short = [jet for jet in jets if len(jet) < longest]
    return torch.cat([_sum([total[:k], *short]), total[k:]]) if short else total
