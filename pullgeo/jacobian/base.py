"""What every Jacobian can do."""

import copy
import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo._repr import ShortRepr, shape_text
from pullgeo._torch.plain_memory import JACOBIAN_PRODUCTS, take_any_tensors
from pullgeo.errors import OptionError
from pullgeo.jacobian.contractions import combined, flat, gram, outer, times
from pullgeo.jacobian.recompute import over_chunks
from pullgeo.jacobian.signature import Signature
from pullgeo.numerics.chunking import GRAM, Budget, working_set

_Move = Callable[[Tensor], Tensor]

ChunkSize = int | Literal["auto"] | None
"""How many tangents or cotangents are moved at a time; ``"auto"``, and ``None``, bound the memory by bytes."""


class Jacobian(ShortRepr, ABC):
    """The derivative of a map at a batch of points: one linear map ``J`` per sample, no matrix unless asked for.

    K tangents ride in front of the batch: stacks are ``(k, b, *shape)``. All methods consist of ordinary torch
    operations, so they are differentiable with respect to the point and to weights, under the caller's grad mode.

    Subclasses are the *kinds* (elementwise, linear map, chain, ...). A kind states ``push``, ``pull`` and ``second``;
    the rest follows from them, and is overridden where the kind knows something cheaper.
    """

    signature: Signature

    is_linear: ClassVar[bool] = False
    """Whether the map is linear in its input, so that its second derivative vanishes; true of `LinearKind`."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let the products of every kind take stacks that were made under ``torch.inference_mode``."""
        super().__init_subclass__(**kwargs)
        take_any_tensors(cls, JACOBIAN_PRODUCTS)

    chunk_size: int | None = None
    """How many tangents or cotangents a contraction moves at a time; ``None`` chooses. See `in_chunks`."""

    @abstractmethod
    def push(self, T: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *y"]:
        """``J T``: k tangents pushed forward."""

    @abstractmethod
    def pull(self, W: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b *x"]:
        """``Jᵀ W``: k cotangents pulled back."""

    @abstractmethod
    def second(self, T: Float[Tensor, "k b *x"], w: Float[Tensor, "b *y"]) -> Float[Tensor, "b k k"]:
        """``Σ_o w_o ∂²y_o[T_i, T_j]``: the second derivative, contracted with a cotangent, in k directions."""

    @abstractmethod
    def second_push(self, T: Float[Tensor, "k b *x"], S: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *y"]:
        """``∂²y[T_k, S_k]``: the second derivative in k pairs of directions, as geodesic equations need it."""

    def push_with_second(
        self, T: Float[Tensor, "k b *x"], w: Float[Tensor, "b *y"]
    ) -> tuple[Float[Tensor, "k b *y"], Float[Tensor, "b k k"]]:
        """``J T`` together with ``second(T, w)``, for which the tangents are pushed once."""
        return self.push(T), self.second(T, w)

    def push_jet(
        self, X: Float[Tensor, "m b *x"], u: Float[Tensor, "l b k"], w: Float[Tensor, "l b k"]
    ) -> Float[Tensor, "n b *y"]:
        """Tangents with second derivatives along their combinations: the chain rule of second order, in one sweep.

        ``X`` stacks k tangents T and, behind them, the second derivatives C of the point itself in l pairs of
        directions, or nothing if these are zero. What follows is stacked in the same way::

            J T    and    J C + ∂²y[Σ_k u_lk T_k, Σ_k w_lk T_k]

        Directions need no tangents of their own, as those of every stage are combinations of the T that arrive there.

        Args:
            X: the stack, k or k + l long.
            u: coefficients of the first direction of each pair.
            w: of the second; the same tensor halves what directions cost.

        Returns:
            ``(k + l, b, *y)``; ``(k, b, *y)`` if all second derivatives vanish, as those of linear maps do.

        Cost: that of pushing k + l tangents, and the second derivative of each stage in l pairs of directions.

        Example:
            >>> import torch
            >>> from pullgeo import linearize
            >>> f = torch.nn.Sequential(torch.nn.Linear(2, 5), torch.nn.Tanh(), torch.nn.Linear(5, 7)).double()
            >>> J = linearize(f, torch.zeros(3, 2, dtype=torch.float64))[1]
            >>> u = torch.randn(1, 3, 2, dtype=torch.float64)
            >>> jet = J.push_jet(J.signature.in_basis(), u, u)
            >>> torch.allclose(jet[:2], J.columns()), torch.allclose(jet[2:], J.second_push(u, u))
            (True, True)
        """
        k = u.shape[2]
        T = X if X.shape[0] == k else X[:k]
        U = combined(T, u)
        second_order = self.second_push(U, U if w is u else combined(T, w))
        return add_second_order(self.push(X), k, second_order)

    def __repr__(self) -> str:
        s = self.signature
        return f"{self._kind()}(b={s.batch}, {shape_text(s.in_shape)} -> {shape_text(s.out_shape)})"

    def _kind(self) -> str:
        """The name of the kind; what is composed names its parts as well."""
        return type(self).__name__

    def in_chunks(self, size: ChunkSize) -> "Jacobian":
        """The same map, whose contractions move at most ``size`` tangents or cotangents at a time.

        This bounds what ``dense``, ``columns``, grams, diagonals and outer products hold besides their answer. ``push``
        and ``pull`` move the stack that they are given; `push_in_chunks` and `pull_in_chunks` cut it.

        Raises:
            OptionError: the size is not a positive number.
        """
        size = checked_chunk_size("in_chunks", size)
        if size is None:
            return self
        bounded = copy.copy(self)
        object.__setattr__(bounded, "chunk_size", size)
        return bounded

    def parts(self, k: int, item_bytes: int = 0) -> Iterator[slice]:
        """Slices of ``range(k)`` to move one after the other: of the chunk size, else as many as their bytes allow."""
        if self.chunk_size is not None:
            return Budget(self.chunk_size).slices(k)
        return working_set(self.signature.device).slices(k, item_bytes)

    @property
    def item_bytes(self) -> int:
        """What one tangent or cotangent of every sample takes on its way, where it is widest."""
        s = self.signature
        return max(math.prod(s.in_shape), math.prod(s.out_shape)) * s.batch * s.dtype.itemsize

    def in_one_piece(self, k: int) -> bool:
        """Whether k may be moved at once: within the chunk size, or the memory that a Gram matrix may use."""
        return k <= self.chunk_size if self.chunk_size is not None else GRAM.fits(k, self.item_bytes)

    def push_basis(self) -> Float[Tensor, "n_in b *y"]:
        """What the coordinate tangents become, moved all at once: `columns` in the output's shape."""
        return self.push(self.signature.in_basis())

    def gram_of_basis(self) -> Float[Tensor, "b n_in n_in"]:
        """``JᵀJ`` of columns that are all moved at once."""
        columns = flat(self.push_basis())
        return gram(columns, columns)

    def push_jet_of_basis(self, u: Float[Tensor, "l b k"], w: Float[Tensor, "l b k"]) -> Float[Tensor, "n b *y"]:
        """`push_jet` of the coordinate tangents."""
        return self.push_jet(self.signature.in_basis(), u, w)

    def push_in_chunks(self, T: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *y"]:
        """``J T``, at most the chunk size at a time."""
        return self._moved(self.push, T)

    def pull_in_chunks(self, W: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b *x"]:
        """``Jᵀ W``, at most the chunk size at a time."""
        return self._moved(self.pull, W)

    def push_squared(self, v: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *y"]:
        """``(J∘J) v``, squared by entries. Cost: min(n_in, n_out) passes, in chunks, unless the kind knows better."""
        s = self.signature
        if s.n_in < s.n_out:
            moved = self._sum_of_squared_columns(self.push, s.in_basis(), flat(v), s.n_out)
        else:
            moved = self._sums_of_squared_rows(self.pull, s.out_basis(), flat(v), s.n_out)
        return moved.reshape(*v.shape[:2], *s.out_shape)

    def pull_squared(self, w: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b *x"]:
        """``(J∘J)ᵀ w``, squared by entries. Cost: min(n_in, n_out) passes, in chunks, unless the kind knows better."""
        s = self.signature
        if s.n_out < s.n_in:
            moved = self._sum_of_squared_columns(self.pull, s.out_basis(), flat(w), s.n_in)
        else:
            moved = self._sums_of_squared_rows(self.push, s.in_basis(), flat(w), s.n_in)
        return moved.reshape(*w.shape[:2], *s.in_shape)

    def push_squared_layerwise(self, v: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *y"]:
        """``(J∘J) v`` with the off-diagonal terms dropped after every layer: one pass, exact for a single layer."""
        return self.push_squared(v)

    def pull_squared_layerwise(self, w: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b *x"]:
        """``(J∘J)ᵀ w`` with the off-diagonal terms dropped before every layer: one pass, exact for a single layer."""
        return self.pull_squared(w)

    def columns(self) -> Float[Tensor, "n_in b n_out"]:
        """All columns, leading the batch, from pushes or pulls, whichever are fewer."""
        s = self.signature
        if s.n_in <= s.n_out:
            return flat(self.push_in_chunks(s.in_basis()))
        return flat(self.pull_in_chunks(s.out_basis())).permute(2, 1, 0)

    def dense(self) -> Float[Tensor, "b n_out n_in"]:
        """The Jacobian as matrices. Cost: min(n_in, n_out) passes and ``b n_out n_in`` memory."""
        return self.columns().permute(1, 2, 0)

    def push_gram(self, T: Float[Tensor, "k b *x"], S: Float[Tensor, "l b *x"]) -> Float[Tensor, "b k l"]:
        """``⟨J T_k, J S_l⟩``. A chunk size below k makes it k pulls more."""
        return self._gram(self.push, self.pull, T, S)

    def pull_gram(self, W: Float[Tensor, "k b *y"], V: Float[Tensor, "l b *y"]) -> Float[Tensor, "b k l"]:
        """``⟨Jᵀ W_k, Jᵀ V_l⟩``: with a basis for both, ``J Jᵀ``. A chunk size below k makes it k pushes more."""
        return self._gram(self.pull, self.push, W, V)

    def push_diag(self, T: Float[Tensor, "k b *x"], S: Float[Tensor, "k b *x"]) -> Float[Tensor, "b *y"]:
        """``Σ_k J T_k ∘ J S_k``: the diagonal of ``J (Σ_k T_k S_kᵀ) Jᵀ``; pushed in chunks."""
        return self._sum_of_products(self.push, T, S)

    def pull_diag(self, W: Float[Tensor, "k b *y"], V: Float[Tensor, "k b *y"]) -> Float[Tensor, "b *x"]:
        """``Σ_k Jᵀ W_k ∘ Jᵀ V_k``: the diagonal of ``Jᵀ (Σ_k W_k V_kᵀ) J``; pulled in chunks."""
        return self._sum_of_products(self.pull, W, V)

    def pull_scaled_diag(self, c: Float[Tensor, "k b"], W: Float[Tensor, "k b *y"]) -> Float[Tensor, "b *x"]:
        """``Σ_k c_k (Jᵀ W_k)²``, by entries; kinds whose pulls cost most scale what they have pulled."""
        return self.pull_diag(times(c, W), W)

    def push_outer(self, T: Float[Tensor, "k b *x"], S: Float[Tensor, "k b *x"]) -> Float[Tensor, "b n_out n_out"]:
        """``J (Σ_k T_k S_kᵀ) Jᵀ``."""
        return self._sum_of_outers(self.push, T, S)

    def pull_outer(self, W: Float[Tensor, "k b *y"], V: Float[Tensor, "k b *y"]) -> Float[Tensor, "b n_in n_in"]:
        """``Jᵀ (Σ_k W_k V_kᵀ) J``."""
        return self._sum_of_outers(self.pull, W, V)

    @property
    def T(self) -> "Jacobian":
        """The transposed map: pushing through it is pulling through this one."""
        return Transpose(self)

    def _moved(self, move: _Move, stack: Tensor) -> Tensor:
        parts = list(self.parts(len(stack), self.item_bytes))
        if len(parts) < 2:
            return move(stack)
        return torch.cat(list(over_chunks(parts, lambda part: move(stack[part]))))

    def _gram(self, move: _Move, back: _Move, T: Tensor, S: Tensor) -> Tensor:
        if not self.in_one_piece(max(len(T), len(S))):
            parts = self.parts(len(T), self.item_bytes)
            return torch.cat(list(over_chunks(parts, lambda part: gram(back(move(T[part])), S))), 1)
        moved = move(T)
        return gram(moved, moved if S is T else move(S))

    def _sum_of_outers(self, move: _Move, T: Tensor, S: Tensor) -> Tensor:
        def term(part: slice) -> Tensor:
            moved = move(T[part])
            return outer(moved, moved if S is T else move(S[part]))

        total = added_up(over_chunks(self.parts(len(T), self.item_bytes), term))
        return outer(move(T), move(S)) if total is None else total

    def _sum_of_products(self, move: _Move, T: Tensor, S: Tensor) -> Tensor:
        def term(part: slice) -> Tensor:
            moved = move(T[part])
            return (moved * (moved if S is T else move(S[part]))).sum(0)

        total = added_up(over_chunks(self.parts(len(T), self.item_bytes), term))
        return move(T).sum(0) if total is None else total

    def _sum_of_squared_columns(self, move: _Move, basis: Tensor, c: Tensor, n_moved: int) -> Tensor:
        """``Σ_n c_n (A e_n)²`` from the columns of A, which the moved basis gives."""

        def term(part: slice) -> Tensor:
            return torch.einsum("kbn,nbo->kbo", c[:, :, part], flat(move(basis[part])).square())

        total = added_up(over_chunks(self.parts(len(basis), self.item_bytes), term))
        return c.new_zeros(*c.shape[:2], n_moved) if total is None else total

    def _sums_of_squared_rows(self, move: _Move, basis: Tensor, c: Tensor, n_rows: int) -> Tensor:
        """``⟨c, (Aᵀ e_o)²⟩`` for every o, from the rows of A, which the moved basis gives."""

        def rows(part: slice) -> Tensor:
            return torch.einsum("kbn,obn->kbo", c, flat(move(basis[part])).square())

        sums = list(over_chunks(self.parts(n_rows, self.item_bytes), rows))
        return torch.cat(sums, 2) if sums else c.new_zeros(*c.shape[:2], 0)


take_any_tensors(Jacobian, JACOBIAN_PRODUCTS)


class LinearKind(Jacobian):
    """Base of the kinds whose map is linear in its input, so that the second derivative vanishes."""

    is_linear = True

    def second(self, T: Float[Tensor, "k b *x"], w: Float[Tensor, "b *y"]) -> Float[Tensor, "b k k"]:
        """Zero."""
        return T.new_zeros(T.shape[1], len(T), len(T))

    def second_push(self, T: Float[Tensor, "k b *x"], S: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *y"]:
        """Zero."""
        return T.new_zeros(*T.shape[:2], *self.signature.out_shape)

    def push_jet(
        self, X: Float[Tensor, "m b *x"], u: Float[Tensor, "l b k"], w: Float[Tensor, "l b k"]
    ) -> Float[Tensor, "m b *y"]:
        """``J X``."""
        return self.push(X)

    def push_jet_of_basis(self, u: Float[Tensor, "l b k"], w: Float[Tensor, "l b k"]) -> Float[Tensor, "n b *y"]:
        """The columns of J."""
        return self.push_basis()


class Transpose(LinearKind):
    """``Jᵀ`` as a linear map, so that pushing a metric forward is pulling it back through the transpose."""

    def __init__(self, original: Jacobian) -> None:
        self.original = original
        self.signature = original.signature.transposed

    def push(self, T: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *y"]:
        """``Jᵀ T``."""
        return self.original.pull(T)

    def pull(self, W: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b *x"]:
        """``J W``."""
        return self.original.push(W)

    def push_squared(self, v: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *y"]:
        """``(J∘J)ᵀ v``."""
        return self.original.pull_squared(v)

    def pull_squared(self, w: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b *x"]:
        """``(J∘J) w``."""
        return self.original.push_squared(w)

    def push_gram(self, T: Float[Tensor, "k b *x"], S: Float[Tensor, "l b *x"]) -> Float[Tensor, "b k l"]:
        """``⟨Jᵀ T_k, Jᵀ S_l⟩``."""
        return self.original.pull_gram(T, S)

    def pull_gram(self, W: Float[Tensor, "k b *y"], V: Float[Tensor, "l b *y"]) -> Float[Tensor, "b k l"]:
        """``⟨J W_k, J V_l⟩``."""
        return self.original.push_gram(W, V)

    def gram_of_basis(self) -> Float[Tensor, "b n_in n_in"]:
        """``J Jᵀ``, by the original's own way to contract what it pulls."""
        basis = self.signature.in_basis()
        return self.original.pull_gram(basis, basis)

    def push_diag(self, T: Float[Tensor, "k b *x"], S: Float[Tensor, "k b *x"]) -> Float[Tensor, "b *y"]:
        """``Σ_k Jᵀ T_k ∘ Jᵀ S_k``."""
        return self.original.pull_diag(T, S)

    def pull_diag(self, W: Float[Tensor, "k b *y"], V: Float[Tensor, "k b *y"]) -> Float[Tensor, "b *x"]:
        """``Σ_k J W_k ∘ J V_k``."""
        return self.original.push_diag(W, V)

    def push_outer(self, T: Float[Tensor, "k b *x"], S: Float[Tensor, "k b *x"]) -> Float[Tensor, "b n_out n_out"]:
        """``Jᵀ (Σ_k T_k S_kᵀ) J``."""
        return self.original.pull_outer(T, S)

    def pull_outer(self, W: Float[Tensor, "k b *y"], V: Float[Tensor, "k b *y"]) -> Float[Tensor, "b n_in n_in"]:
        """``J (Σ_k W_k V_kᵀ) Jᵀ``."""
        return self.original.push_outer(W, V)

    @property
    def item_bytes(self) -> int:
        """As of the original."""
        return self.original.item_bytes

    @property
    def T(self) -> Jacobian:
        """The original."""
        return self.original

    def in_chunks(self, size: ChunkSize) -> "Transpose":
        """The transpose of the original in chunks."""
        bounded = Transpose(self.original.in_chunks(size))
        bounded.chunk_size = bounded.original.chunk_size
        return bounded


def add_second_order(
    jet: Float[Tensor, "m b *n"], k: int, second_order: Float[Tensor, "l b *n"]
) -> Float[Tensor, "n b *n"]:
    """A jet of k tangents, see `Jacobian.push_jet`, with something added to its second derivatives."""
    if jet.shape[0] == k:
        return torch.cat([jet, second_order])
    return torch.cat([jet[:k], jet[k:] + second_order])


def added_up(terms: Iterator[Tensor]) -> Tensor | None:
    """The sum of terms, one of which is held at a time; ``None`` if there are none."""
    total: Tensor | None = None
    for term in terms:
        total = term if total is None else total + term
    return total


def all_added_up(terms: Iterator[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """The sums of terms of several tensors, of which there is at least one."""
    totals = next(terms)
    for term in terms:
        totals = tuple(map(operator.add, totals, term))
    return totals


def checked_chunk_size(where: str, size: ChunkSize) -> int | None:
    """A number to take at a time; ``None`` for automatic.

    Raises:
        OptionError: it is no positive number.
    """
    if size is None or (isinstance(size, str) and size == "auto"):
        return None
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise OptionError(f'{where}: chunk_size must be a positive number or "auto", got {size!r}.')
    return size
