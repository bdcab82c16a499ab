"""Local response normalisation: every channel divided by the energy of its neighbours."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.jacobian.base import Jacobian
from pullgeo.jacobian.contractions import gram
from pullgeo.jacobian.signature import Signature


@dataclass(frozen=True, eq=False)
class LocalResponse(Jacobian):
    """``y = x s^-β`` with ``s = k + a win(x²)``, where ``win`` sums over neighbouring channels (dimension 1).

    Args:
        x: the point, ``(b, c, *x)``.
        window: ones where channel i is in the window of channel o, itself included, and zeros elsewhere, ``(c, c)``.
        a: factor of the window's energy.
        beta: exponent.
        k: what is added to it.
    """

    x: Float[Tensor, "b c *x"]
    window: Float[Tensor, "c c"]
    a: float
    beta: float
    k: float

    @property
    def signature(self) -> Signature:  # type: ignore[override]
        """``(c, *x) -> (c, *x)``."""
        return Signature.between(self.x, self.x)

    @property
    def value(self) -> Float[Tensor, "b c *x"]:
        """``y``."""
        return self.x * self._power(0)

    def push(self, T: Float[Tensor, "k b c *x"]) -> Float[Tensor, "k b c *x"]:
        """``g T + x g' ds[T]``, with ``g = s^-β``."""
        return self._power(0) * T + self.x * self._power(1) * self._energy(T)

    def pull(self, W: Float[Tensor, "k b c *x"]) -> Float[Tensor, "k b c *x"]:
        """``g W + 2a x winᵀ(x g' W)``."""
        return self._power(0) * W + 2 * self.a * self.x * self._window_back(self.x * self._power(1) * W)

    def push_squared(self, v: Float[Tensor, "k b c *x"]) -> Float[Tensor, "k b c *x"]:
        """Diagonal entries ``g + 2a x² g'``, others ``2a x_o g'_o x_i`` within the window."""
        others = _mixed(self._others, self.x.square() * v)
        return self._own.square() * v + self._cross.square() * others

    def pull_squared(self, w: Float[Tensor, "k b c *x"]) -> Float[Tensor, "k b c *x"]:
        """The transpose of ``push_squared``."""
        others = _mixed(self._others.T, self._cross.square() * w)
        return self._own.square() * w + self.x.square() * others

    def second(self, T: Float[Tensor, "k b c *x"], w: Float[Tensor, "b c *x"]) -> Float[Tensor, "b k k"]:
        """As `second_push`, contracted."""
        energy = self._energy(T)
        mixed = gram(T * (w * self._power(1)), energy)
        second_order = gram(energy * (w * self.x * self._power(2)), energy)
        spread = 2 * self.a * self._window_back((w * self.x * self._power(1)).unsqueeze(0))
        return mixed + mixed.mT + second_order + gram(T * spread, T)

    def second_push(self, T: Float[Tensor, "k b c *x"], S: Float[Tensor, "k b c *x"]) -> Float[Tensor, "k b c *x"]:
        """``g' (T ds[S] + S ds[T]) + x (g'' ds[T] ds[S] + g' 2a win(T S))``."""
        of_T, of_S = self._energy(T), self._energy(S)
        linear = self._power(1) * (T * of_S + S * of_T)
        return linear + self.x * (self._power(2) * of_T * of_S + self._power(1) * 2 * self.a * self._window(T * S))

    def _power(self, order: int) -> Tensor:
        """``s^-β`` or its derivatives with respect to s."""
        s = self.k + self.a * self._window(self.x.square().unsqueeze(0)).squeeze(0)
        factor = (1.0, -self.beta, self.beta * (self.beta + 1))[order]
        return factor * s ** (-self.beta - order)

    @property
    def _own(self) -> Tensor:
        return self._power(0) + self._cross * self.x

    @property
    def _cross(self) -> Tensor:
        return 2 * self.a * self.x * self._power(1)

    def _energy(self, T: Tensor) -> Tensor:
        """``ds[T] = 2a win(x T)``."""
        return 2 * self.a * self._window(self.x * T)

    @property
    def _others(self) -> Tensor:
        return self.window - torch.eye(len(self.window), dtype=self.window.dtype, device=self.window.device)

    def _window(self, T: Tensor) -> Tensor:
        return _mixed(self.window, T)

    def _window_back(self, W: Tensor) -> Tensor:
        return _mixed(self.window.T, W)


def _mixed(matrix: Tensor, T: Tensor) -> Tensor:
    """A matrix applied to the channels of a stack."""
    return (matrix @ T.flatten(3)).reshape(T.shape)
