"""What every Jacobian can do."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.jacobian.contract import flat, gram, outer
from pullgeo.jacobian.signature import Signature

Second = Callable[[Tensor], Tensor]
"""``w (b, *y) -> (b, k, k)``: the second derivative of ⟨w, f⟩ in the directions that were pushed."""

CHUNK_BYTES = 2**26
"""Working set of a contraction that would otherwise hold all K pulled cotangents at once."""


class Jacobian(ABC):
    """The derivative of a map at a batch of points: one linear map ``J`` per sample, no matrix unless asked for.

    K tangents ride in front of the batch: stacks are ``(k, b, *shape)``. All methods are made of ordinary torch
    operations, so they are differentiable with respect to the point and to weights, under the caller's grad mode.

    Subclasses are the *kinds* (elementwise, linear map, chain, ...). A kind states ``push``, ``pull`` and ``second``;
    the rest follows from them, and is overridden where the kind knows something cheaper.
    """

    signature: Signature

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

    def push_with_second(self, T: Float[Tensor, "k b *x"]) -> tuple[Float[Tensor, "k b *y"], Second]:
        """``J T`` together with the function ``w -> second(T, w)``, which then reuses the tangents pushed here."""
        return self.push(T), lambda w: self.second(T, w)

    def push_squared(self, v: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *y"]:
        """``(J∘J) v``, squared by entries. Cost: min(n_in, n_out) passes, in chunks, unless the kind knows better."""
        s = self.signature
        if s.n_in < s.n_out:
            moved = _sum_of_squared_columns(self.push, s.in_basis(), flat(v), s.n_out)
        else:
            moved = _sums_of_squared_rows(self.pull, s.out_basis(), flat(v), s.n_out)
        return moved.reshape(*v.shape[:2], *s.out_shape)

    def pull_squared(self, w: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b *x"]:
        """``(J∘J)ᵀ w``, squared by entries. Cost: min(n_in, n_out) passes, in chunks, unless the kind knows better."""
        s = self.signature
        if s.n_out < s.n_in:
            moved = _sum_of_squared_columns(self.pull, s.out_basis(), flat(w), s.n_in)
        else:
            moved = _sums_of_squared_rows(self.push, s.in_basis(), flat(w), s.n_in)
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
            return flat(self.push(s.in_basis()))
        return flat(self.pull(s.out_basis())).permute(2, 1, 0)

    def dense(self) -> Float[Tensor, "b n_out n_in"]:
        """The Jacobian as matrices. Cost: min(n_in, n_out) passes and ``b n_out n_in`` memory."""
        return self.columns().permute(1, 2, 0)

    def push_gram(self, T: Float[Tensor, "k b *x"], S: Float[Tensor, "l b *x"]) -> Float[Tensor, "b k l"]:
        """``⟨J T_k, J S_l⟩``."""
        JT = self.push(T)
        return gram(JT, JT if S is T else self.push(S))

    def pull_gram(self, W: Float[Tensor, "k b *y"], V: Float[Tensor, "l b *y"]) -> Float[Tensor, "b k l"]:
        """``⟨Jᵀ W_k, Jᵀ V_l⟩``: with a basis for both, ``J Jᵀ``."""
        JW = self.pull(W)
        return gram(JW, JW if V is W else self.pull(V))

    def push_diag(self, T: Float[Tensor, "k b *x"], S: Float[Tensor, "k b *x"]) -> Float[Tensor, "b *y"]:
        """``Σ_k J T_k ∘ J S_k``: the diagonal of ``J (Σ_k T_k S_kᵀ) Jᵀ``; pushed in chunks."""
        return _sum_of_products(self.push, T, S, self.signature.n_out)

    def pull_diag(self, W: Float[Tensor, "k b *y"], V: Float[Tensor, "k b *y"]) -> Float[Tensor, "b *x"]:
        """``Σ_k Jᵀ W_k ∘ Jᵀ V_k``: the diagonal of ``Jᵀ (Σ_k W_k V_kᵀ) J``; pulled in chunks."""
        return _sum_of_products(self.pull, W, V, self.signature.n_in)

    def push_outer(self, T: Float[Tensor, "k b *x"], S: Float[Tensor, "k b *x"]) -> Float[Tensor, "b n_out n_out"]:
        """``J (Σ_k T_k S_kᵀ) Jᵀ``."""
        JT = self.push(T)
        return outer(JT, JT if S is T else self.push(S))

    def pull_outer(self, W: Float[Tensor, "k b *y"], V: Float[Tensor, "k b *y"]) -> Float[Tensor, "b n_in n_in"]:
        """``Jᵀ (Σ_k W_k V_kᵀ) J``."""
        JW = self.pull(W)
        return outer(JW, JW if V is W else self.pull(V))

    @property
    def T(self) -> "Jacobian":
        """The transposed map: pushing through it is pulling through this one."""
        return Transpose(self)


class LinearKind(Jacobian):
    """Base of the kinds whose map is linear in its input, so that the second derivative vanishes."""

    def second(self, T: Float[Tensor, "k b *x"], w: Float[Tensor, "b *y"]) -> Float[Tensor, "b k k"]:
        """Zero."""
        return T.new_zeros(T.shape[1], len(T), len(T))

    def second_push(self, T: Float[Tensor, "k b *x"], S: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *y"]:
        """Zero."""
        return T.new_zeros(*T.shape[:2], *self.signature.out_shape)


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
    def T(self) -> Jacobian:
        """The original."""
        return self.original


def chunks(k: int, item_bytes: int, budget: int = CHUNK_BYTES) -> Iterator[slice]:
    """Slices of ``range(k)`` of as many items as fit a budget of bytes, at least one."""
    step = max(1, budget // max(1, item_bytes))
    for start in range(0, k, step):
        yield slice(start, min(start + step, k))


def _sum_of_products(move: Callable[[Tensor], Tensor], T: Tensor, S: Tensor, n: int) -> Tensor:
    item_bytes = n * T.shape[1] * T.element_size()
    total: Tensor | None = None
    for part in chunks(len(T), item_bytes):
        moved = move(T[part])
        term = (moved * (moved if S is T else move(S[part]))).sum(0)
        total = term if total is None else total + term
    return move(T).sum(0) if total is None else total


def _sum_of_squared_columns(move: Callable[[Tensor], Tensor], basis: Tensor, c: Tensor, n_moved: int) -> Tensor:
    """``Σ_n c_n (A e_n)²`` from the columns of A, which the moved basis gives."""
    total = c.new_zeros(*c.shape[:2], n_moved)
    for part in chunks(len(basis), n_moved * c.shape[1] * c.element_size()):
        total = total + torch.einsum("kbn,nbo->kbo", c[:, :, part], flat(move(basis[part])).square())
    return total


def _sums_of_squared_rows(move: Callable[[Tensor], Tensor], basis: Tensor, c: Tensor, n_rows: int) -> Tensor:
    """``⟨c, (Aᵀ e_o)²⟩`` for every o, from the rows of A, which the moved basis gives."""
    parts = chunks(n_rows, c.shape[1] * c.shape[2] * c.element_size())
    sums = [torch.einsum("kbn,obn->kbo", c, flat(move(basis[part])).square()) for part in parts]
    return torch.cat(sums, 2) if sums else c.new_zeros(*c.shape[:2], 0)
