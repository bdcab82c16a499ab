"""Everything that a layer rule promises, in one call."""

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Num
from torch import Tensor, nn

from pullgeo.errors import ShapeError
from pullgeo.jacobian.base import Jacobian
from pullgeo.jacobian.linearize import linearize as package_linearize
from pullgeo.testing.contracts.derived import check_contractions, check_layerwise, check_second_push
from pullgeo.testing.contracts.gradients import check_gradients
from pullgeo.testing.contracts.jacobian import First, Probes, Second, check_products, check_second
from pullgeo.testing.contracts.judge import Judge, uncontiguous
from pullgeo.typing import Wrt

Linearize = Callable[..., tuple[Tensor, Any]]
"""``(module, x, wrt) -> (y, J)``."""


def check_rule(
    module: nn.Module,
    x: Num[Tensor, "b ..."],
    *,
    wrt: Wrt = "input",
    linearize: Linearize = package_linearize,
    first: First = "autograd",
    second: Second = "autograd",
    gradients: bool = True,
    second_gradients: bool = True,
    pickled: bool = True,
    generator: torch.Generator | None = None,
) -> None:
    """Check a layer rule: linearise a module in every way that users do, and compare with independent truths.

    At ``x``, in its dtype and in float64 and float32: the value; all products of the Jacobian, their adjointness, the
    contractions built on them, second derivatives (see `check_jacobian`). Then: the module and the arguments are left
    as they were; another batch and a part of the batch give what they should, and leave the first Jacobian alone;
    `copy.deepcopy` and `pickle` of the module change nothing; an empty batch and a non-contiguous one work; without
    grad mode the numbers stay; and gradients of value, ``push`` and ``pull`` with respect to the point, the tangents
    and the weights pass `torch.autograd.gradcheck`, first and second order.

    Args:
        module: the layer or network, in the mode in which it is to be used.
        x: ``(b, *in)`` with b ≥ 2 distinct samples; take sizes that differ so that swapped axes show, and keep it
            small: the truth costs a backward pass for each output of each sample.
        wrt: ``"input"`` or ``"weight"``.
        linearize: what is checked, ``(module, x, wrt) -> (y, J)``.
        first: where the truth about the Jacobian comes from, see `check_jacobian`.
        second: where the truth about second derivatives comes from; ``"finite_difference"`` for layers without a
            double backward in torch, ``"skip"`` to leave them out.
        gradients: check gradients of the products.
        second_gradients: check second derivatives of the products; switch off where torch has none.
        pickled: check that a pickled module behaves alike; switch off for classes defined inside functions.
        generator: source of the random tangents; a fixed one by default.

    Raises:
        AssertionError: a check fails; the text names it, the largest error and its place.
        ShapeError: fewer than two samples.

    Example:
        >>> check_rule(torch.nn.Tanh(), torch.randn(3, 2, dtype=torch.float64))
        >>> check_rule(torch.nn.Linear(2, 5), torch.randn(3, 2), wrt="weight")
    """
    if x.ndim < 1 or len(x) < 2:
        raise ShapeError(f"check_rule: x must hold two samples or more, got shape {tuple(x.shape)}.")
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    case = _Case(Judge(f"check_rule({type(module).__name__}, wrt={wrt!r})"), linearize, wrt, second)
    probes = Probes.of(module, x, wrt, generator, first)
    case.values(module, x, probes)
    case.repeated_calls(module, x, probes)
    case.copies(module, x, probes, pickled)
    case.layouts(module, x, probes)
    case.empty_batch(module, x, probes)
    for dtype in (torch.float64, torch.float32):
        if dtype != probes.T.dtype:
            twin, x_twin = _cast(module, x, dtype)
            case.values(twin, x_twin, Probes.of(twin, x_twin, wrt, generator, first))
    if gradients:
        twin, x_twin = _cast(module, x, torch.float64)
        T, W = probes.T.double(), probes.W.double()
        check_gradients(case.judge, linearize, twin, x_twin, T, W, wrt, second_gradients)


def _cast(module: nn.Module, x: Tensor, dtype: torch.dtype) -> tuple[nn.Module, Tensor]:
    return copy.deepcopy(module).to(dtype), x.to(dtype) if x.is_floating_point() else x


class _Case:
    """The checks of one rule, in the order in which they are run."""

    def __init__(self, judge: Judge, linearize: Linearize, wrt: Wrt, second: Second) -> None:
        self.judge, self.linearize, self.wrt, self.second = judge, linearize, wrt, second

    def values(self, module: nn.Module, x: Tensor, probes: Probes) -> None:
        with torch.no_grad():
            expected = module(x)
        before = _fingerprint(module)
        judge = Judge(f"{self.judge.subject} in {probes.T.dtype}")
        with judge.unchanged("linearize", x, *module.state_dict().values()):
            y, J = self.linearize(module, x, self.wrt)
            judge.close("value", y, expected, like=expected)
            if isinstance(J, Jacobian):
                _check_signature(judge, J, probes)
            check_products(judge, J, probes)
            if self.second != "skip":
                check_second(judge, J, module, x, probes, self.wrt, self.second)
            if isinstance(J, Jacobian):
                check_contractions(judge, J, probes)
                check_layerwise(judge, J, module, x, probes, self.wrt)
                if self.second != "skip":
                    check_second_push(judge, J, module, x, probes, self.wrt, self.second)
        difference = _difference(before, _fingerprint(module))
        judge.require(not difference, "module unchanged", f"linearize left its traces on the module: {difference}")

    def repeated_calls(self, module: nn.Module, x: Tensor, probes: Probes) -> None:
        y, J = self.linearize(module, x, self.wrt)
        pushed, pulled = J.push(probes.T), J.pull(probes.W)
        rolled_y, rolled = self.linearize(module, x.roll(1, 0), self.wrt)
        check = "another batch"
        self.judge.close(f"{check}: value", rolled_y, y.roll(1, 0))
        self.judge.close(f"{check}: push", rolled.push(probes.T.roll(1, 1)), pushed.roll(1, 1))
        self.judge.close(f"{check}: pull", rolled.pull(probes.W.roll(1, 1)), pulled.roll(1, 1))
        part_y, part = self.linearize(module, x[:1], self.wrt)
        self.judge.close("batch of one: value", part_y, y[:1])
        self.judge.close("batch of one: push", part.push(probes.T[:, :1]), pushed[:, :1])
        self.judge.close("batch of one: pull", part.pull(probes.W[:, :1]), pulled[:, :1])
        check = "first Jacobian after linearising at other points"
        self.judge.close(f"{check}: push", J.push(probes.T), pushed)
        self.judge.close(f"{check}: pull", J.pull(probes.W), pulled)

    def copies(self, module: nn.Module, x: Tensor, probes: Probes, pickled: bool) -> None:
        self._same("deepcopy", copy.deepcopy(module), module, x, probes)
        if pickled:
            buffer = io.BytesIO()
            try:
                pickle.dump(module, buffer)
            except (pickle.PicklingError, AttributeError, TypeError) as error:
                self.judge.fail("pickle", f"the module cannot be pickled ({error}); if it never could, pickled=False")
            buffer.seek(0)
            self._same("pickle", pickle.load(buffer), module, x, probes)  # noqa: S301

    def layouts(self, module: nn.Module, x: Tensor, probes: Probes) -> None:
        self._same("non-contiguous input", module, module, x, probes, uncontiguous(x))
        with torch.no_grad():
            self._same("under no_grad", module, module, x, probes)
            y, J = self.linearize(module, x, self.wrt)
            tracked = y.requires_grad or J.push(probes.T).requires_grad
        self.judge.require(not tracked, "under no_grad", "the result requires grad")

    def empty_batch(self, module: nn.Module, x: Tensor, probes: Probes) -> None:
        try:
            with torch.no_grad():
                expected = module(x[:0])
        except (RuntimeError, ValueError, IndexError, ZeroDivisionError):
            return  # the module itself does not take an empty batch
        if expected.shape[1:] != probes.W.shape[2:]:
            return  # nor does this one: some of torch's layers hand an empty batch on as it is
        T, W = probes.T[:, :0], probes.W[:, :0]
        with self.judge.attempt("empty batch"):
            y, J = self.linearize(module, x[:0], self.wrt)
            self.judge.close("empty batch: value", y, expected, like=expected)
            for check, got, shaped in (
                ("push", J.push(T), W),
                ("pull", J.pull(W), T),
                ("push_squared", J.push_squared(T), W),
                ("pull_squared", J.pull_squared(W), T),
                ("dense", J.dense(), probes.truth[:0]),
            ):
                self.judge.close(f"empty batch: {check}", got, shaped, like=T)
            if self.second != "skip":
                self.judge.close("empty batch: second", J.second(T, W[0]), T.new_zeros(0, len(T), len(T)), like=T)

    def _same(
        self, check: str, other: nn.Module, module: nn.Module, x: Tensor, probes: Probes, at: Tensor | None = None
    ) -> None:
        y, J = self.linearize(module, x, self.wrt)
        with self.judge.attempt(check):
            other_y, other_J = self.linearize(other, x if at is None else at, self.wrt)
            self.judge.close(f"{check}: value", other_y, y, like=y)
            self.judge.close(f"{check}: push", other_J.push(probes.T), J.push(probes.T), like=y)
            self.judge.close(f"{check}: pull", other_J.pull(probes.W), J.pull(probes.W), like=y)


def _check_signature(judge: Judge, J: Jacobian, probes: Probes) -> None:
    """Between which spaces it says that it maps."""
    got = (J.signature.batch, J.signature.in_shape, J.signature.out_shape)
    expected = (probes.T.shape[1], tuple(probes.T.shape[2:]), tuple(probes.W.shape[2:]))
    judge.require(
        got == expected,
        "signature",
        f"{type(J).__name__} is for a batch of {got[0]} from {got[1]} to {got[2]}, expected a batch of {expected[0]} "
        f"from {expected[1]} to {expected[2]}",
    )


def _fingerprint(module: nn.Module) -> dict[str, str]:
    """What a rule might leave on a module: attributes, modes, hooks."""
    prints = {}
    for name, child in module.named_modules():
        attributes = sorted(vars(child))
        sized = {key: len(value) for key, value in vars(child).items() if isinstance(value, dict | list | set)}
        state = {key: id(value) for key, value in vars(child).items() if not isinstance(value, dict | list | set)}
        prints[name or type(child).__name__] = repr((attributes, sized, state))
    for name, parameter in module.named_parameters():
        prints[f"parameter {name}"] = repr((id(parameter), parameter.requires_grad, parameter.grad is None))
    return prints


def _difference(before: dict[str, str], after: dict[str, str]) -> str:
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return ", ".join(changed)
