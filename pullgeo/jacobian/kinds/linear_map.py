"""Maps that are linear (or affine) in their input and do not depend on the point."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from pullgeo.jacobian.base import Jacobian, LinearKind
from pullgeo.jacobian.contractions import same_for_all
from pullgeo.jacobian.signature import Signature

Move = Callable[[Tensor], Tensor]


def stacked(operation: Move) -> Move:
    """An operation on batches ``(n, *x)``, for stacks ``(k, b, *x)``: it sees one batch of n = k b.

    Example:
        >>> import torch
        >>> stacked(torch.nn.Conv1d(2, 3, 1))(torch.zeros(5, 7, 2, 4)).shape
        torch.Size([5, 7, 3, 4])
    """
    return lambda T: operation(T.flatten(0, 1)).unflatten(0, T.shape[:2])


def shared(operation: Move) -> Move:
    """An operation on stacks that is the same for every sample, done once where all samples share their tangents.

    Example:
        >>> import torch
        >>> basis = torch.eye(3).unsqueeze(1).expand(3, 5, 3)
        >>> shared(torch.nn.Linear(3, 2))(basis).stride(1)
        0
    """

    def move(T: Tensor) -> Tensor:
        if not same_for_all(T):
            return operation(T)
        moved = operation(T[:, :1])
        return moved.expand(-1, T.shape[1], *moved.shape[2:])

    return move


@dataclass(frozen=True, eq=False)
class LinearMap(LinearKind):
    """``y = A x + c``, given by the functions that apply ``A``, ``Aᵀ`` and their entrywise squares to stacks.

    The four functions take stacks ``(k, b, *shape)`` and are linear in them. Where ``A`` is at hand, ``(n_out, n_in)``
    and the same for all samples, it is the fifth: its columns are what coordinate tangents become.
    """

    signature: Signature
    forward: Move
    backward: Move
    forward_squared: Move
    backward_squared: Move
    matrix: Tensor | None = None

    def push(self, T: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *y"]:
        """``A T``."""
        return self.forward(T)

    def pull(self, W: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b *x"]:
        """``Aᵀ W``."""
        return self.backward(W)

    def push_squared(self, v: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *y"]:
        """``(A∘A) v``."""
        return self.forward_squared(v)

    def pull_squared(self, w: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b *x"]:
        """``(A∘A)ᵀ w``."""
        return self.backward_squared(w)

    def push_basis(self) -> Float[Tensor, "n_in b *y"]:
        """The columns of ``A``, where it is at hand."""
        if self.matrix is None:
            return super().push_basis()
        columns = self.matrix.t().contiguous().unsqueeze(1)
        return columns if self.signature.batch == 1 else columns.expand(-1, self.signature.batch, -1)


def ones_map(x: Tensor, operation: Move, adjoint: Move) -> tuple[Tensor, LinearMap]:
    """The value and the Jacobian of an operation whose matrix holds zeros and ones, and so is its own square.

    Args:
        x: a batch.
        operation: applies the map to batches.
        adjoint: applies its transpose to batches.
    """
    y = operation(x)
    forward, backward = stacked(operation), stacked(adjoint)
    return y, LinearMap(Signature.between(x, y), forward, backward, forward, backward)


@dataclass(frozen=True, eq=False)
class Placed(LinearKind):
    """Samples that become a part of larger ones, along one dimension, with zeros elsewhere.

    Args:
        signature: shapes of both.
        sample: the shape in which a sample is put there.
        dim: along which of its dimensions, counted without the batch.
        start: where.
    """

    signature: Signature
    sample: tuple[int, ...]
    dim: int
    start: int

    @property
    def end(self) -> int:
        """Where the part ends."""
        return self.start + self.sample[self.dim]

    def push(self, T: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *y"]:
        """``T`` between zeros."""
        after = self.signature.out_shape[self.dim] - self.end
        return F.pad(self._shaped(T), [0, 0] * (len(self.sample) - 1 - self.dim) + [self.start, after])

    def pull(self, W: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b *x"]:
        """The part of ``W``."""
        part = W.narrow(self.dim + 2, self.start, self.sample[self.dim])
        return part.reshape(*W.shape[:2], *self.signature.in_shape)

    def push_squared(self, v: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *y"]:
        """As ``push``: the entries are zeros and ones."""
        return self.push(v)

    def pull_squared(self, w: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b *x"]:
        """As ``pull``: the entries are zeros and ones."""
        return self.pull(w)

    @staticmethod
    def side_by_side(parts: "Sequence[Placed]", stacks: Sequence[Tensor]) -> Tensor:
        """The sum of what parts of one whole push there, without the zeros that all but one of them are.

        Args:
            parts: in the order in which they stand there.
            stacks: what each pushes.
        """
        pieces: list[Tensor] = []
        end, dim, whole = 0, parts[0].dim, parts[0].signature.out_shape
        for part, T in zip(parts, stacks, strict=True):
            pieces.extend(_gap(T, whole, dim, part.start - end))
            pieces.append(part._shaped(T))
            end = part.end
        pieces.extend(_gap(stacks[-1], whole, dim, whole[dim] - end))
        return torch.cat(pieces, dim + 2)

    def _shaped(self, T: Tensor) -> Tensor:
        return T.reshape(*T.shape[:2], *self.sample)


def _gap(like: Tensor, whole: tuple[int, ...], dim: int, length: int) -> list[Tensor]:
    """Zeros of a length, if it has one."""
    return [like.new_zeros(*like.shape[:2], *whole[:dim], length, *whole[dim + 1 :])] if length else []


@dataclass(frozen=True, eq=False)
class Reshape(LinearKind):
    """Another shape for the same elements in the same order; the identity where the shapes are the same."""

    signature: Signature

    def push(self, T: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *y"]:
        """``T`` in the output's shape."""
        return T.reshape(*T.shape[:2], *self.signature.out_shape)

    def pull(self, W: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b *x"]:
        """``W`` in the input's shape."""
        return W.reshape(*W.shape[:2], *self.signature.in_shape)

    def push_squared(self, v: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *y"]:
        """As ``push``: the entries are zeros and ones."""
        return self.push(v)

    def pull_squared(self, w: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b *x"]:
        """As ``pull``: the entries are zeros and ones."""
        return self.pull(w)

    @property
    def T(self) -> Jacobian:
        """The reshape back."""
        return Reshape(self.signature.transposed)
