"""What every Jacobian must do, checked against dense derivatives that know nothing of it."""

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Num
from torch import Tensor

from pullgeo.testing import oracles
from pullgeo.testing.contracts.judge import Judge, random_like, uncontiguous
from pullgeo.testing.oracles.samples import rows
from pullgeo.typing import Decoder, Wrt

First = Literal["autograd", "finite_difference"]
"""How the truth about first derivatives is found: the backward passes of a few of torch's operations are inexact."""

Second = Literal["autograd", "finite_difference", "skip"]
"""How the truth about second derivatives is found: some of torch's operations have no double backward."""


@runtime_checkable
class JacobianLike(Protocol):
    """The interface: K tangents lead the batch, weights are one flat vector."""

    def push(self, T: Tensor) -> Tensor:
        """``(k, b, *in) -> (k, b, *out)``."""

    def pull(self, W: Tensor) -> Tensor:
        """``(k, b, *out) -> (k, b, *in)``."""

    def push_squared(self, v: Tensor) -> Tensor:
        """``(k, b, *in) -> (k, b, *out)``."""

    def pull_squared(self, w: Tensor) -> Tensor:
        """``(k, b, *out) -> (k, b, *in)``."""

    def dense(self) -> Tensor:
        """``(b, n_out, n_in)``."""

    def second(self, T: Tensor, w: Tensor) -> Tensor:
        """``(k, b, *in), (b, *out) -> (b, k, k)``."""


@dataclass(frozen=True, eq=False)
class Probes:
    """Random tangents and cotangents of one map, and the truth about it in float64.

    Attributes:
        T: tangents ``(k, b, *in)``.
        S: further tangents ``(l, b, *in)``.
        W: cotangents ``(k, b, *out)``.
        V: further cotangents ``(l, b, *out)``.
        truth: the dense Jacobian ``(b, n_out, n_in)``.
    """

    T: Float[Tensor, "k b ..."]
    S: Float[Tensor, "l b ..."]
    W: Float[Tensor, "k b ..."]
    V: Float[Tensor, "l b ..."]
    truth: Float[Tensor, "b n_out n_in"]

    @classmethod
    def of(
        cls,
        module: Decoder,
        x: Num[Tensor, "b ..."],
        wrt: Wrt,
        generator: torch.Generator,
        first: First = "autograd",
    ) -> "Probes":
        """Draw them for a module at x; numbers of tangents differ from each other and from the batch size."""
        with torch.no_grad():
            y = module(x)
        jacobian = oracles.dense_jacobian if first == "autograd" else oracles.dense_jacobian_fd
        truth = jacobian(module, x, wrt)
        in_shape = tuple(x.shape[1:]) if wrt == "input" else (truth.shape[2],)
        k, l = [count for count in (2, 3, 5) if count != len(x)][:2]  # noqa: E741

        def draw(count: int, shape: tuple[int, ...]) -> Tensor:
            return random_like(y, count, len(x), *shape, generator=generator)

        out_shape = tuple(y.shape[1:])
        return cls(draw(k, in_shape), draw(l, in_shape), draw(k, out_shape), draw(l, out_shape), truth)

    def pushed(self, T: Tensor, squared: bool = False) -> Tensor:
        """The truth about ``J T`` or ``(J∘J) T``."""
        J = self.truth.square() if squared else self.truth
        moved = [torch.stack([j @ t for j, t in zip(J, tangents, strict=True)]) for tangents in rows(T.double(), 2)]
        return torch.stack(moved).reshape(*T.shape[:2], *self.W.shape[2:])

    def pulled(self, W: Tensor, squared: bool = False) -> Tensor:
        """The truth about ``Jᵀ W`` or ``(J∘J)ᵀ W``."""
        J = self.truth.square() if squared else self.truth
        moved = [torch.stack([j.T @ w for j, w in zip(J, weights, strict=True)]) for weights in rows(W.double(), 2)]
        return torch.stack(moved).reshape(*W.shape[:2], *self.T.shape[2:])


def check_jacobian(
    J: JacobianLike,
    module: Decoder,
    x: Num[Tensor, "b ..."],
    *,
    wrt: Wrt = "input",
    y: Tensor | None = None,
    first: First = "autograd",
    second: Second = "autograd",
    generator: torch.Generator | None = None,
) -> None:
    """Check one Jacobian at one batch: values, shapes, dtype, adjointness, arguments.

    ``push``, ``pull``, ``push_squared``, ``pull_squared``, ``dense`` and ``second`` are compared with
    `pullgeo.testing.oracles` in float64, at a relative tolerance of 1e-10 if ``x`` is float64.

    Args:
        J: the Jacobian of ``module`` at ``x``.
        module: the map itself, ``(b, *in) -> (b, *out)``.
        x: ``(b, *in)``; take b ≥ 3 distinct samples, and sizes that differ, so that swapped axes show.
        wrt: what J is the derivative with respect to.
        y: the value that came with J, compared with ``module(x)`` if given.
        first: where the truth about J comes from; ``"finite_difference"`` where torch's own backward is inexact
            (that of ``Hardsigmoid`` in float64 is) and no kink lies within 0.01 of x.
        second: where the truth about ``J.second`` comes from; ``"skip"`` leaves it out.
        generator: source of the random tangents; a fixed one by default.

    Raises:
        AssertionError: a check fails; the text names it, the largest error and its place.

    Cost: ``b n_out`` backward passes of the module.

    Example:
        >>> from pullgeo.jacobian import linearize
        >>> x = torch.randn(3, 2, dtype=torch.float64)
        >>> y, J = linearize(torch.nn.Tanh(), x)
        >>> check_jacobian(J, torch.nn.Tanh(), x, y=y)
    """
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    judge = Judge(f"check_jacobian({type(module).__name__}, wrt={wrt!r})")
    probes = Probes.of(module, x, wrt, generator, first)
    if y is not None:
        with torch.no_grad():
            expected = module(x)
        judge.close("value", y, expected, like=expected)
    check_products(judge, J, probes)
    if second != "skip":
        check_second(judge, J, module, x, probes, wrt, second)


def check_products(judge: Judge, J: JacobianLike, probes: Probes) -> None:
    """The first-order part of `check_jacobian`."""
    T, W = probes.T, probes.W
    for name, argument, expected in (
        ("push", T, probes.pushed(T)),
        ("pull", W, probes.pulled(W)),
        ("push_squared", T, probes.pushed(T, squared=True)),
        ("pull_squared", W, probes.pulled(W, squared=True)),
    ):
        product = getattr(J, name)
        with judge.unchanged(name, argument):
            judge.close(name, product(argument), expected, like=argument)
        check = f"{name} of a non-contiguous stack"
        with judge.attempt(check):
            judge.close(check, product(uncontiguous(argument)), expected, like=argument)
        single = argument[:1].expand_as(argument)
        check = f"{name} of an expanded stack"
        with judge.attempt(check):
            judge.close(check, product(single), expected[:1].expand_as(expected), like=argument)
    judge.close("dense", J.dense(), probes.truth, like=T)
    for forth, back in (("push", "pull"), ("push_squared", "pull_squared")):
        pushed = getattr(J, forth)(T)
        left = rows(pushed * W, 2).sum(-1)
        right = rows(getattr(J, back)(W) * T, 2).sum(-1)
        judge.close(f"adjointness ⟨{forth} T, W⟩ = ⟨T, {back} W⟩", left, right, scale=largest_product(pushed, W))


def largest_product(T: Tensor, W: Tensor) -> float:
    """The largest ‖T‖‖W‖ over stacks and samples: what rounding in ⟨T, W⟩ is relative to."""
    products = rows(T.detach(), 2).norm(dim=-1) * rows(W.detach(), 2).norm(dim=-1)
    return float(products.max()) if products.numel() else 0.0


def check_second(
    judge: Judge, J: JacobianLike, module: Decoder, x: Tensor, probes: Probes, wrt: Wrt, truth: Second
) -> None:
    """The second-order part of `check_jacobian`."""
    form = oracles.second_form if truth == "autograd" else oracles.second_form_fd
    rtol = 0.0 if truth == "autograd" else 1e-6
    T, w, other = probes.T, probes.W[0], probes.W[1]
    # Differences carry the rounding of the values that they cancel.
    scale = 0.0 if truth == "autograd" else largest_product(probes.pushed(T), probes.W)
    expected = form(module, x, w, T, wrt)
    with judge.unchanged("second", T, w):
        judge.close("second", J.second(T, w), expected, like=T, rtol=rtol, scale=scale)
    expected = form(module, x, other, T, wrt)
    judge.close("second at other weights", J.second(T, other), expected, like=T, rtol=rtol, scale=scale)
