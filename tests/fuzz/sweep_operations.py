"""Every operation of torch against differences: which derivatives does torch get wrong, and are they served right?

``python tests/fuzz/sweep_operations.py`` takes the samples of torch's own tests (``op_db``; these need the package
``expecttest``), hides each operation in a function that nothing is known of, and asks its Jacobian for everything that
it can do: push, pull, their gradients, second derivatives both ways, the gradients of these. Central differences of
sixth order are the truth; a sample at which two steps of these disagree is no ordinary point and is left out. An
operation that fails is printed with the relative error of each product, or with the exception.

``--kinks`` goes to zeros, ones and ties instead, in both precisions, and asks whether push is the transpose of pull,
and whether second derivatives are finite and symmetric, wherever pull is finite. ``--torch`` leaves the substitutes
out, which shows what torch itself gets wrong. ``--only`` takes a part of the name, ``--samples`` how many for each
operation. All of it takes about ten minutes of one core.
"""

import argparse
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from pullgeo._torch import substitutes
from pullgeo.errors import PullgeoError
from pullgeo.jacobian import Jacobian
from pullgeo.jacobian.linearize import by_autodiff

STEP = 2e-3
TOLERANCE = 3e-8
SECONDS = 120
LEFT_OUT = (
    "masked.",
    "native_",
    "_native_",
    "_batch_norm_with_update",
    "_refs.",
    "ops.",
    "normal",
    "view_as_real",
    "istft",
    "imag",
    "as_strided",
    "nn.functional.one_hot",
)
"""What is random, private, takes no real numbers, or looks at memory."""
FIRST_ALONE = ("batch_norm", "instance_norm", "loss")
"""Operations with further arguments, such as targets, that are not differentiated."""
FAILURES = (PullgeoError, RuntimeError, NotImplementedError, ValueError, TypeError, AttributeError, IndexError)

Function = Callable[[Tensor], Tensor]
Found = dict[str, float | str]


class TooLong(Exception):  # noqa: N818
    """An operation that takes too long."""


def operations(only: str) -> Iterator[Any]:
    """What torch's own tests know of operations that can be differentiated."""
    from torch.testing._internal.common_methods_invocations import op_db

    for op in op_db:
        # eigenvectors of general matrices are complex, up to a phase of which samples do not get rid
        if only in op.name and op.supports_autograd and not op.name.startswith(LEFT_OUT) and op.name != "linalg.eig":
            yield op


def functions(op: Any, dtype: torch.dtype, limit: int) -> Iterator[tuple[str, Function, Tensor]]:
    """The samples of an operation, as functions of one vector in a batch of one, and where."""
    number = 0
    for sample in op.sample_inputs("cpu", dtype, requires_grad=True):
        leaves, spec = pytree.tree_flatten((sample.input, sample.args, sample.kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        varied = [i for i, leaf in enumerate(leaves) if _varies(leaf, dtype)]
        if any(word in op.name for word in FIRST_ALONE):
            varied = [i for i in varied if leaves[i] is sample.input]
        if not varied or any(leaf.layout != torch.strided for leaf in tensors):
            continue
        function = _as_function(op, sample, leaves, spec, varied)
        x = torch.cat([leaves[i].detach().reshape(-1) for i in varied]).unsqueeze(0)
        with torch.no_grad():
            first, again = function(x), function(x)
        if first.numel() == 0 or not torch.equal(first, again) or not torch.isfinite(first).all():
            continue
        settings = [repr(leaf)[:20] for leaf in leaves if not isinstance(leaf, Tensor)]
        yield f"{[tuple(leaves[i].shape) for i in varied]} {' '.join(settings)}", function, x
        number += 1
        if number == limit:
            return


def _varies(leaf: Any, dtype: torch.dtype) -> bool:
    return isinstance(leaf, Tensor) and leaf.dtype == dtype and leaf.numel() > 0 and leaf.requires_grad


def _as_function(op: Any, sample: Any, leaves: list[Any], spec: Any, varied: list[int]) -> Function:
    shapes = [leaves[i].shape for i in varied]

    def function(x: Tensor) -> Tensor:
        given = [leaf.detach() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        pieces = x.squeeze(0).split([shape.numel() for shape in shapes])
        for i, piece, shape in zip(varied, pieces, shapes, strict=True):
            given[i] = piece.reshape(shape)
        input, args, kwargs = pytree.tree_unflatten(given, spec)
        value = op.gradcheck_wrapper(op.op, input, *args, **kwargs)
        found = _real(sample.output_process_fn_grad(value) if sample.output_process_fn_grad else value, x.dtype)
        return torch.cat(found, 1) if found else x.new_zeros(1, 0)

    return function


def _real(value: Any, dtype: torch.dtype) -> list[Tensor]:
    """The floating point numbers in nested results, as one row each; complex ones as pairs."""
    leaves = [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]
    leaves = [torch.view_as_real(leaf.resolve_conj()) if leaf.is_complex() else leaf for leaf in leaves]
    return [leaf.reshape(1, -1).to(dtype) for leaf in leaves if leaf.is_floating_point()]


def difference(got: Tensor, truth: Tensor) -> float:
    """The largest relative error; infinity for NaN."""
    error = ((got.detach() - truth).abs().max() / truth.abs().max().clamp(min=1e-2)).item()
    return error if error == error else float("inf")


def ordinary(function: Function, x: Tensor, t: Tensor) -> Tensor | None:
    """The derivative along t by central differences of sixth order, or None where it depends on the step."""

    def along(step: float) -> Tensor:
        wide, middle, narrow = (
            (function(x + h * t) - function(x - h * t)) / (2 * h) for h in (step, step / 2, step / 4)
        )
        return (64 * narrow - 20 * middle + wide) / 45

    with torch.no_grad():
        wide, narrow = along(STEP), along(STEP / 3)
    return narrow if difference(wide, narrow) < 1e-6 else None


class Trial:
    """A function at a point, in three directions."""

    def __init__(self, function: Function, x: Tensor) -> None:
        generator = torch.Generator().manual_seed(1)
        self.function, self.x = function, x
        self.T = torch.randn(3, *x.shape, dtype=x.dtype, generator=generator)
        self.w = torch.randn(function(x).shape, dtype=x.dtype, generator=generator)
        self.found: Found = {}

    def run(self) -> Found:
        """How far each product is from the truth; nothing at points that are not ordinary."""
        slopes = self._differences(self.function)
        if slopes is None:
            return {}
        for check in (self.push, self.pull):
            self._attempt(check, slopes)
        bends = self._differences(lambda p: self.at(p).pull(self.w[None])[0])
        if bends is None:
            return self.found
        form = (self.T[:, None] * bends).flatten(2).sum(2)
        for check in (self.gradient_of_push, self.gradient_of_pull, self.second, self.second_push):
            self._attempt(check, form)
        jerk = self._differences(lambda p: self.at(p).second(self.T[:2], self.w)[:, 0, 1:])
        if jerk is not None:
            for check in (self.gradient_of_second, self.gradient_of_second_push):
                self._attempt(check, jerk.flatten())
        return self.found

    def at(self, point: Tensor) -> Jacobian:
        """The Jacobian at a point."""
        return by_autodiff(self.function, point)[1]

    @torch.no_grad()
    def push(self, truth: Tensor) -> float:
        """Of the stack, and one by one."""
        J = self.at(self.x)
        return max(difference(J.push(T), t) for T, t in ((self.T, truth), (self.T[:1], truth[:1])))

    @torch.no_grad()
    def pull(self, truth: Tensor) -> float:
        """Of a stack, and of one."""
        J, w = self.at(self.x), self.w
        expected = (w * truth).flatten(1).sum(1)
        pulled = (J.pull(w[None])[0], J.pull(torch.stack([w.flip(1), w]))[1])
        return max(difference((p * self.T).flatten(1).sum(1), expected) for p in pulled)

    def gradient_of_push(self, form: Tensor) -> float:
        """Of a stack, and of one."""
        return max(self._gradient(lambda J, k=k: (J.push(self.T[:k])[0] * self.w).sum(), form[0]) for k in (1, 3))

    def gradient_of_pull(self, form: Tensor) -> float:
        """Of a stack, and of one."""
        w = self.w[None]
        return max(
            self._gradient(lambda J, k=k: (J.pull(w.repeat(k, 1, 1))[0] * self.T[0]).sum(), form[0]) for k in (1, 2)
        )

    def second(self, form: Tensor) -> float:
        """With and without gradients."""
        with torch.no_grad():
            plain = self.at(self.x).second(self.T, self.w)[0]
        return max(difference(plain, form), difference(self.at(self.x).second(self.T, self.w)[0], form))

    def second_push(self, form: Tensor) -> float:
        """With and without gradients."""
        with torch.no_grad():
            plain = self.at(self.x).second_push(self.T[:2], self.T[1:])
        moved = (plain, self.at(self.x).second_push(self.T[:2], self.T[1:]))
        return max(difference((bent * self.w).flatten(1).sum(1), form.diag(1)) for bent in moved)

    def gradient_of_second(self, jerk: Tensor) -> float:
        """Of one entry."""
        return self._gradient(lambda J: J.second(self.T[:2], self.w)[0, 0, 1], jerk)

    def gradient_of_second_push(self, jerk: Tensor) -> float:
        """Of one pair."""
        return self._gradient(lambda J: (J.second_push(self.T[:1], self.T[1:2])[0] * self.w).sum(), jerk)

    def _attempt(self, check: Callable[[Tensor], float], truth: Tensor) -> None:
        name = check.__name__.replace("_", " ")
        try:
            self.found[name] = check(truth)
        except FAILURES as error:
            self.found[name] = f"{type(error).__name__}: {error}".replace("\n", " ")[:150]

    def _gradient(self, compute: Callable[[Jacobian], Tensor], truth: Tensor) -> float:
        point = self.x.clone().requires_grad_()
        value = compute(self.at(point))
        grad = torch.autograd.grad(value, point, allow_unused=True)[0] if value.requires_grad else None
        grad = torch.zeros_like(point) if grad is None else grad
        return difference((self.T * grad).flatten(1).sum(1), truth)

    def _differences(self, function: Function) -> Tensor | None:
        try:
            found = [ordinary(function, self.x, t) for t in self.T]
        except FAILURES:
            return None
        return None if any(f is None for f in found) else torch.stack(found)  # type: ignore[arg-type]


def special(x: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Points at which functions have kinks and ties."""
    for name, value in (("zeros", 0.0), ("ones", 1.0), ("halves", 0.5), ("threes", 3.0), ("minus ones", -1.0)):
        yield name, torch.full_like(x, value)
    yield "sixes", torch.full_like(x, 6.0)
    yield "whole numbers", x.round().clamp(-1, 1)
    yield "zeros and ones", (x > 0).to(x.dtype)
    yield "minus infinity", torch.full_like(x, -torch.inf)


def at_kink(function: Function, x: Tensor) -> Found:
    """Whether push is the transpose of pull, and the second derivative finite and symmetric, where pull is finite."""
    y = function(x).detach()
    J = by_autodiff(function, x)[1]
    pulled = J.pull(J.signature.out_basis()).reshape(y.numel(), x.numel())
    if y.isnan().any() or not torch.isfinite(pulled).all():
        return {}
    pushed = J.push(J.signature.in_basis()).reshape(x.numel(), y.numel()).T
    small = 100 * torch.finfo(x.dtype).eps
    wrong = ~((pushed - pulled).abs() <= small * pulled.abs().max().clamp(min=1))
    if wrong.any():
        place = tuple(wrong.nonzero()[0].tolist())
        return {"push": f"{pushed[place].item():.3g} for {pulled[place].item():.3g}"}
    generator = torch.Generator().manual_seed(1)
    T = torch.randn(2, *x.shape, dtype=x.dtype, generator=generator)
    w = torch.randn(y.shape, dtype=x.dtype, generator=generator)
    form, bent = J.second(T, w)[0], (J.second_push(T[:1], T[1:]) * w).sum()
    if not (torch.isfinite(form).all() and torch.isfinite(bent)):
        return {"second": f"{form.tolist()}, {bent.item()}"}
    apart = max((form - form.T).abs().max(), (form[0, 1] - bent).abs())
    return (
        {"symmetry": f"{form.tolist()}, {bent.item()}"} if apart > 100 * small * form.abs().max().clamp(min=1) else {}
    )


def try_kinks(op: Any, limit: int) -> Iterator[tuple[str, Found]]:
    """What fails at kinks of an operation, and where."""
    for dtype in (torch.float64, torch.float32):
        for name, function, x in functions(op, dtype, limit):
            for where, point in special(x) if x.numel() <= 60 else ():
                try:
                    found = at_kink(function, point)
                except (ValueError, IndexError, torch.linalg.LinAlgError):  # not defined there
                    continue
                except (RuntimeError, NotImplementedError, PullgeoError) as error:
                    found = {"error": f"{type(error).__name__}: {error}".replace("\n", " ")[:150]}
                yield f"{dtype} {where} {name[:60]}", found


def try_points(op: Any, limit: int, tolerance: float) -> Iterator[tuple[str, Found]]:
    """What fails at ordinary points of an operation, and where."""
    for name, function, x in functions(op, torch.float64, limit):
        found = Trial(function, x).run()
        yield name, {k: v for k, v in found.items() if isinstance(v, str) or v > tolerance}


@contextmanager
def bounded(seconds: int) -> Iterator[None]:
    """Give up after some time."""

    def expired(*_: Any) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, expired)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def sweep(only: str, attempt: Callable[[Any], Iterator[tuple[str, Found]]]) -> int:
    """Print what fails; how many operations do."""
    tried = points = failed = 0
    for op in operations(only):
        seen: dict[str, str] = {}
        try:
            with bounded(SECONDS):
                for where, found in attempt(op):
                    points += 1
                    for check, error in found.items():
                        text = error if isinstance(error, str) else f"{error:.1e}"
                        seen.setdefault(check, f"{text}   [{where[:90]}]")
        except TooLong:
            seen["time"] = "too long"
        except (*FAILURES, torch.linalg.LinAlgError) as error:
            seen["not run"] = f"{type(error).__name__}: {error}".replace("\n", " ")[:150]
        tried += 1
        failed += bool(seen)
        name = f"{op.name}.{op.variant_test_name}" if op.variant_test_name else op.name
        for check, text in seen.items():
            say(f"{name}: {check}: {text}")
    say(f"{tried} operations, {points} points, {failed} operations fail")
    return failed


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--tolerance", type=float, default=TOLERANCE)
    parser.add_argument("--torch", action="store_true", help="without substitutes")
    parser.add_argument("--kinks", action="store_true", help="at zeros, ones and ties")
    options = parser.parse_args()
    warnings.simplefilter("ignore")

    def attempt(op: Any) -> Iterator[tuple[str, Found]]:
        if options.kinks:
            return try_kinks(op, options.samples)
        return try_points(op, options.samples, options.tolerance)

    with mock.patch.dict(substitutes.SUBSTITUTES, clear=options.torch):
        sweep(options.only, attempt)


if __name__ == "__main__":
    main()
