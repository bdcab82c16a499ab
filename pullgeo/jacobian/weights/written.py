"""What layers pull, written to its place in the vector of weights: no piece is held besides the whole."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.jacobian.base import Jacobian
from pullgeo.jacobian.weights.base import WeightKind
from pullgeo.jacobian.weights.conv import ConvWeight
from pullgeo.jacobian.weights.linear import LinearWeight
from pullgeo.jacobian.weights.parameters import ParameterLayout, coordinate_count


class Written:
    """A product with respect to weights, as it comes about layer by layer.

    It is differentiable, as ``torch.cat`` of all pieces would be; but that holds them twice.

    Args:
        W: the cotangents.
        layout: where each parameter stands.

    Cost: the memory of the answer and of one piece; of linear layers and convolutions nothing besides the answer.
    """

    def __init__(self, W: Float[Tensor, "k b *y"], layout: ParameterLayout) -> None:
        self.answer = W.new_empty(*W.shape[:2], layout.size)
        self._places: dict[int, slice] = {}
        self._written: set[int] = set()
        end = 0
        for p in layout.parameters:
            end, start = end + coordinate_count(p), end
            self._places[id(p)] = slice(start, end)

    def add(self, J: Jacobian, parameters: Sequence[Tensor], delta: Float[Tensor, "k b *z"]) -> None:
        """Add what a layer pulls to what its parameters have got so far."""
        places = [self._places[id(p)] for p in parameters]
        fresh = self._written.isdisjoint(map(id, parameters))
        if fresh and isinstance(J, WeightKind) and not torch.is_grad_enabled():
            J.pull_into(delta, [self.answer[..., place] for place in places])
        elif fresh and isinstance(J, LinearWeight | ConvWeight):
            # views, by which `recomputed` sees what is used
            self.answer = _Pulled.apply(self.answer, delta.view_as(delta), J.x.view_as(J.x), J, places)
        else:
            for p, place, piece in zip(parameters, places, pulled_pieces(J, parameters, delta), strict=True):
                self.answer = _Placed.apply(self.answer, piece, place, id(p) in self._written)
        self._written.update(map(id, parameters))

    def whole(self) -> Float[Tensor, "k b p"]:
        """The answer, zero for parameters that no layer has."""
        for number, place in self._places.items():
            if number not in self._written:
                self.answer = _Placed.apply(self.answer, torch.zeros_like(self.answer[..., place]), place, False)
        return self.answer


def pulled_pieces(
    J: Jacobian, parameters: Sequence[Tensor], delta: Float[Tensor, "k b *z"]
) -> Sequence[Float[Tensor, "k b _"]]:
    """What a layer pulls, a piece for each of its parameters."""
    pieces = J.pull_pieces(delta) if isinstance(J, WeightKind) else []
    if len(pieces) == len(parameters):
        return pieces
    return (torch.cat(pieces, -1) if pieces else J.pull(delta)).split([coordinate_count(p) for p in parameters], -1)


class _Placed(torch.autograd.Function):
    """A piece, copied or added to its place; nothing has been written there that is overwritten."""

    @staticmethod
    def forward(ctx: Any, answer: Tensor, piece: Tensor, place: slice, added: bool) -> Tensor:
        """The answer itself."""
        ctx.place = place
        target = answer[..., place]
        if added:
            target.add_(piece)
        else:
            target.copy_(piece)
        ctx.mark_dirty(answer)
        return answer

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        """That of the whole, and of the place."""
        return cotangents[0], cotangents[0][..., ctx.place], None, None


class _Pulled(torch.autograd.Function):
    """What a layer with an input ``x`` pulls, computed in its place."""

    @staticmethod
    def forward(ctx: Any, answer: Tensor, delta: Tensor, x: Tensor, J: Any, places: list[slice]) -> Tensor:
        """The answer itself."""
        ctx.J, ctx.places = J, places
        ctx.save_for_backward(delta, x)
        J.pull_into(delta, [answer[..., place] for place in places])
        ctx.mark_dirty(answer)
        return answer

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
        """That of the whole; and of what was pulled, by pulling again."""
        again = torch.is_grad_enabled()
        wanted = ctx.needs_input_grad[1:3]
        with torch.enable_grad():
            delta, x = (saved.view_as(saved) for saved in ctx.saved_tensors)
            pieces = replace(ctx.J, x=x).pull_pieces(delta)
            inputs = [tensor for tensor, want in zip((delta, x), wanted, strict=True) if want]
            parts = [cotangents[0][..., place] for place in ctx.places]
            reached = [(piece, part) for piece, part in zip(pieces, parts, strict=True) if piece.requires_grad]
            outputs, weights = zip(*reached, strict=True)
            found = iter(torch.autograd.grad(outputs, inputs, weights, create_graph=again, allow_unused=True))
        return cotangents[0], *(next(found) if want else None for want in wanted), None, None
