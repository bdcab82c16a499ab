"""Every operation of torch against differences: which derivatives of its own does torch get wrong, and do we serve them?

``python tests/fuzz/sweep_operations.py`` takes the samples of torch's own tests (``op_db``; this needs the package
``expecttest``), hides each operation in a function that nothing is known of, and asks `Autodiff` for everything that it
can do: push, pull, their gradients, second derivatives both ways. Central differences of sixth order are the truth; a
sample at which two steps of these disagree is no ordinary point and is left out. What fails is printed, one line for
each operation: the largest relative error of each product, or the exception. ``--torch`` leaves our substitutes out,
which shows what torch itself gets wrong. ``--only`` takes a part of the name, ``--samples`` how many for each operation.
"""

import argparse
import signal
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from pullgeo.jacobian import substitutes
from pullgeo.jacobian.base import Jacobian
from pullgeo.jacobian.linearize import by_autodiff

STEP = 2e-3
TOLERANCE = 1e-6
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
"""What is random, takes no real numbers, or looks at memory."""
FIRST_ALONE = ("batch_norm", "instance_norm", "loss")
"""Operations with further arguments, such as targets, that are not differentiated."""
Function = Callable[[Tensor], Tensor]

CHECKS = ("push", "pull", "d push", "d pull", "second", "second push", "d second", "d second push")


def left_out(name: str) -> bool:
    """Whether an operation is not tried."""
    return name == "linalg.eig" or name.startswith(LEFT_OUT)


class TooLong(Exception):  # noqa: N818
    """An operation that takes too long."""


def real(value: Any, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """The floating point numbers in nested results, as one row each; complex ones as pairs."""
    found = []
    for leaf in pytree.tree_leaves(value):
        if isinstance(leaf, Tensor) and leaf.is_complex():
            leaf = torch.view_as_real(leaf.resolve_conj())
        if isinstance(leaf, Tensor) and leaf.is_floating_point():
            found.append(leaf.reshape(1, -1).to(dtype))
    return found


def functions(op: Any, dtype: torch.dtype, limit: int) -> Iterator[tuple[str, Function, Tensor]]:
    """The samples of an operation, as functions of one vector in a batch of one."""
    number = 0
    for sample in op.sample_inputs("cpu", dtype, requires_grad=True):
        if number >= limit:
            return
        arguments = (sample.input, sample.args, sample.kwargs)
        leaves, spec = pytree.tree_flatten(arguments)
        given = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        varied = [i for i in given if leaves[i].dtype == dtype and leaves[i].numel() and leaves[i].requires_grad]
        if any(word in op.name for word in FIRST_ALONE):
            varied = [i for i in varied if leaves[i] is sample.input]
        if not varied or any(isinstance(leaf, Tensor) and leaf.layout != torch.strided for leaf in leaves):
            continue
        shapes = [tuple(leaves[i].shape) for i in varied]
        sizes = [leaves[i].numel() for i in varied]
        x = torch.cat([leaves[i].detach().reshape(-1) for i in varied]).unsqueeze(0)

        def function(
            x: Tensor,
            leaves: Any = leaves,
            spec: Any = spec,
            sample: Any = sample,
            where: Any = (varied, sizes, shapes),
        ) -> Tensor:
            varied, sizes, shapes = where
            given = [leaf.detach() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
            for i, piece, shape in zip(varied, x.squeeze(0).split(sizes), shapes, strict=True):
                given[i] = piece.reshape(shape)
            input, args, kwargs = pytree.tree_unflatten(given, spec)
            value = op.gradcheck_wrapper(op.op, input, *args, **kwargs)
            processed = sample.output_process_fn_grad(value) if sample.output_process_fn_grad else value
            found = real(processed, x.dtype)
            return torch.cat(found, 1) if found else x.new_zeros(1, 0)

        name = ", ".join(f"{k}={v!r}"[:40] for k, v in sample.kwargs.items() if not isinstance(v, Tensor))
        extra = ", ".join(repr(a)[:20] for a in sample.args if not isinstance(a, Tensor | list | tuple))
        with torch.no_grad():
            first, again = function(x), function(x)
        if first.numel() == 0 or not torch.equal(first, again) or not torch.isfinite(first).all():
            continue
        number += 1
        yield f"{shapes} {extra} {name}", function, x


def along(function: Function, x: Tensor, t: Tensor, step: float) -> Tensor:
    """``f'(x) t`` by central differences of sixth order."""

    def central(h: float) -> Tensor:
        return (function(x + h * t) - function(x - h * t)) / (2 * h)

    return (64 * central(step / 4) - 20 * central(step / 2) + central(step)) / 45


def difference(got: Tensor, truth: Tensor) -> float:
    """The largest relative error; infinity for NaN."""
    error = ((got - truth).abs().max() / truth.abs().max().clamp(min=1e-2)).item()
    return error if error == error else float("inf")


def ordinary(function: Function, x: Tensor, t: Tensor) -> Tensor | None:
    """The derivative by differences, or None where it depends on the step."""
    with torch.no_grad():
        wide, narrow = along(function, x, t, STEP), along(function, x, t, STEP / 3)
    return narrow if difference(wide, narrow) < 1e-6 else None


def errors(function: Function, x: Tensor, deep: bool = True) -> dict[str, float | str]:
    """How far each product is from the truth."""
    generator = torch.Generator().manual_seed(1)
    y = function(x).detach()
    J = by_autodiff(function, x)[1]
    T = torch.randn(3, *x.shape, dtype=x.dtype, generator=generator)
    w = torch.randn(y.shape, dtype=x.dtype, generator=generator)
    found: dict[str, float | str] = {}
    slopes = [ordinary(function, x, t) for t in T]
    if any(slope is None for slope in slopes):
        return {}
    truth = torch.stack(slopes)  # type: ignore[arg-type]

    def attempt(check: str, compute: Callable[[], float]) -> None:
        try:
            found[check] = compute()
        except (RuntimeError, NotImplementedError, ValueError, TypeError, AttributeError, IndexError) as error:
            found[check] = f"{type(error).__name__}: {error}".replace("\n", " ")[:150]

    def at(point: Tensor) -> Jacobian:
        return by_autodiff(function, point)[1]

    def worst(*values: float) -> float:
        return max(values)

    @torch.no_grad()
    def push() -> float:
        return worst(
            difference(J.push(T), truth), *(difference(J.push(T[i : i + 1]), truth[i : i + 1]) for i in range(3))
        )

    @torch.no_grad()
    def pull() -> float:
        W = torch.stack([w, w.flip(1), w * 2])
        return worst(
            difference((J.pull(W) * T[:, None].transpose(0, 1)[0]).flatten(1).sum(1), (W * truth).flatten(1).sum(1)),
            difference((J.pull(w[None]) * T).flatten(1).sum(1), (w * truth).flatten(1).sum(1)),
        )

    attempt("push", push)
    attempt("pull", pull)
    try:
        bends = [ordinary(lambda p: at(p).pull(w[None])[0], x, t) for t in T]
    except (RuntimeError, NotImplementedError) as error:
        return found
    if any(bend is None for bend in bends):
        return found
    form = torch.stack([(T * bend).flatten(1).sum(1) for bend in bends])  # type: ignore[operator]
    single = lambda p: form

    def gradient(compute: Callable[[Tensor], Tensor]) -> Tensor:
        point = x.clone().requires_grad_()
        value = compute(point)
        if not value.requires_grad:
            return torch.zeros(len(T), dtype=x.dtype)
        (grad,) = torch.autograd.grad(value, point, allow_unused=True)
        return torch.zeros(len(T), dtype=x.dtype) if grad is None else (T * grad).flatten(1).sum(1)

    def d_push() -> float:
        of_stack = worst(*(difference(gradient(lambda p: (at(p).push(T)[i] * w).sum()), form[i]) for i in range(2)))
        return worst(of_stack, difference(gradient(lambda p: (at(p).push(T[:1])[0] * w).sum()), form[0]))

    def d_pull() -> float:
        W = torch.stack([w, w])
        of_stack = worst(*(difference(gradient(lambda p: (at(p).pull(W)[1] * T[i]).sum()), form[i]) for i in range(2)))
        return worst(of_stack, difference(gradient(lambda p: (at(p).pull(w[None])[0] * T[0]).sum()), form[0]))

    def second() -> float:
        with torch.no_grad():
            plain = J.second(T, w)[0]
        return worst(
            difference(plain, form),
            difference(J.second(T, w)[0].detach(), form),
            difference(J.second(T[:1], w)[0].detach(), form[:1, :1]),
        )

    def second_push() -> float:
        truth = form.diag(1)
        with torch.no_grad():
            plain = (J.second_push(T[:2], T[1:]) * w).flatten(1).sum(1)
        tracked = (J.second_push(T[:2], T[1:]) * w).flatten(1).sum(1).detach()
        return worst(difference(plain, truth), difference(tracked, truth))

    attempt("d push", d_push)
    attempt("d pull", d_pull)
    attempt("second", second)
    attempt("second push", second_push)
    if not deep:
        return found
    try:
        jerk = [ordinary(lambda p: at(p).second(T[:2], w)[:, 0, 1:].contiguous(), x, t) for t in T]
    except (RuntimeError, NotImplementedError):
        return found
    if any(value is None for value in jerk):
        return found
    third = torch.stack([value.reshape(()) for value in jerk])  # type: ignore[union-attr]
    attempt("d second", lambda: difference(gradient(lambda p: at(p).second(T[:2], w)[0, 0, 1]), third))
    attempt(
        "d second push", lambda: difference(gradient(lambda p: (at(p).second_push(T[:1], T[1:2])[0] * w).sum()), third)
    )
    return found


def special(x: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Points at which functions have kinks and ties."""
    yield "zeros", torch.zeros_like(x)
    yield "ones", torch.ones_like(x)
    yield "halves", torch.full_like(x, 0.5)
    yield "whole numbers", x.round().clamp(-1, 1)
    yield "zeros and ones", (x > 0).to(x.dtype)
    yield "threes", torch.full_like(x, 3.0)
    yield "minus ones", torch.full_like(x, -1.0)
    yield "sixes", torch.full_like(x, 6.0)
    yield "infinity", torch.full_like(x, torch.inf)
    yield "minus infinity", torch.full_like(x, -torch.inf)


def kinked(function: Function, x: Tensor) -> dict[str, float | str]:
    """Whether push is the transpose of pull, finite where that is, and the second derivative finite and symmetric."""
    generator = torch.Generator().manual_seed(1)
    y = function(x).detach()
    if y.isnan().any():
        return {}
    J = by_autodiff(function, x)[1]
    found: dict[str, float | str] = {}
    tolerance = 20 * torch.finfo(x.dtype).eps
    try:
        pulled = J.pull(J.signature.out_basis())
    except (RuntimeError, NotImplementedError, ValueError, TypeError) as error:
        return {"pull": f"{type(error).__name__}: {error}".replace("\n", " ")[:150]}
    pulled = pulled.reshape(y.numel(), x.numel())
    if not torch.isfinite(pulled).all():  # which is infinity times zero somewhere, and no convention helps
        return {}
    try:
        pushed = J.push(J.signature.in_basis()).reshape(x.numel(), y.numel()).T
        same = (pushed - pulled).abs() <= tolerance * pulled.nan_to_num().abs().max().clamp(min=1)
        if not same.all():
            worst = (~same).nonzero()[0].tolist()
            found["push"] = f"{pushed[tuple(worst)].item():.3g} for {pulled[tuple(worst)].item():.3g}"
        T = torch.randn(2, *x.shape, dtype=x.dtype, generator=generator)
        w = torch.randn(y.shape, dtype=x.dtype, generator=generator)
        form = J.second(T, w)[0]
        bent = (J.second_push(T[:1], T[1:]) * w).sum()
        if not torch.isfinite(form).all() or not torch.isfinite(bent):
            found["second"] = f"{form.tolist()}, {bent.item()}"
        else:
            scale = tolerance * 100 * max(1, form.abs().max().item())
            if max((form - form.T).abs().max(), (form[0, 1] - bent).abs()) > scale:
                found["symmetry"] = f"{form.tolist()}, {bent.item()}"
    except (RuntimeError, NotImplementedError, ValueError, TypeError) as error:
        found["error"] = f"{type(error).__name__}: {error}".replace("\n", " ")[:150]
    return found


def sweep_kinks(only: str, limit: int) -> int:
    """Print where a convention fails at kinks; how many operations fail."""
    from torch.testing._internal.common_methods_invocations import op_db
    from torch.testing._internal.opinfo.core import UnaryUfuncInfo

    def expired(*_: Any) -> None:
        raise TooLong

    signal.signal(signal.SIGALRM, expired)
    failed = 0
    for op in op_db:
        if only not in op.name or not op.supports_autograd or left_out(op.name):
            continue
        lines: dict[str, str] = {}
        signal.alarm(SECONDS)
        for dtype in (torch.float64, torch.float32):
            try:
                for name, function, x in functions(op, dtype, limit):
                    if x.numel() > 60:
                        continue
                    for where, point in special(x):
                        if "infinity" in where and isinstance(op, UnaryUfuncInfo):
                            continue
                        try:
                            found = kinked(function, point)
                        except (RuntimeError, ValueError, IndexError):  # not defined there
                            continue
                        if found:
                            key = ", ".join(found)
                            lines.setdefault(key, f"{dtype} {where} {name[:60]}: {found}")
            except TooLong:
                lines["time"] = "too long"
                break
            except Exception as error:  # noqa: BLE001
                lines["error"] = f"NOT RUN {type(error).__name__}: {error}"[:150]
        signal.alarm(0)
        if lines:
            failed += 1
            print(f"{op.name}{'.' + op.variant_test_name if op.variant_test_name else ''}:", flush=True)
            for line in lines.values():
                print("   ", line[:300], flush=True)
    print(f"{failed} operations fail at kinks")
    return failed


def sweep(only: str, limit: int, tolerance: float, deep: bool) -> int:
    """Print what fails; how many operations do."""
    from torch.testing._internal.common_methods_invocations import op_db

    def expired(*_: Any) -> None:
        raise TooLong

    signal.signal(signal.SIGALRM, expired)
    failed, tried, points = 0, 0, 0
    for op in op_db:
        if only not in op.name or not op.supports_autograd or left_out(op.name):
            continue
        worst: dict[str, float | str] = {}
        where = ""
        signal.alarm(SECONDS)
        try:
            for name, function, x in functions(op, torch.float64, limit):
                found = errors(function, x, deep)
                points += bool(found)
                for check, error in found.items():
                    bad = isinstance(error, str) or error > tolerance
                    if bad and (
                        check not in worst
                        or (isinstance(error, float) and isinstance(worst[check], float) and error > worst[check])
                    ):
                        worst[check], where = error, where or name
        except TooLong:
            print(f"{op.name}: too long", flush=True)
        except Exception as error:  # noqa: BLE001
            print(f"{op.name}: NOT RUN {type(error).__name__}: {error}"[:200], flush=True)
        finally:
            signal.alarm(0)
        tried += 1
        if worst:
            failed += 1
            text = "; ".join(f"{k} {v if isinstance(v, str) else format(v, '.1e')}" for k, v in worst.items())
            print(
                f"{op.name}{'.' + op.variant_test_name if op.variant_test_name else ''}: {text}   [{where[:80]}]",
                flush=True,
            )
    print(f"{tried} operations, {points} points, {failed} operations fail")
    return failed


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--tolerance", type=float, default=TOLERANCE)
    parser.add_argument("--torch", action="store_true", help="without our substitutes")
    parser.add_argument("--kinks", action="store_true", help="at zeros, ones, ties and infinity instead")
    parser.add_argument("--shallow", action="store_true", help="without third derivatives")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with mock.patch.dict(substitutes.SUBSTITUTES, clear=options.torch):
        if options.kinks:
            sweep_kinks(options.only, options.samples)
            return
        sweep(options.only, options.samples, options.tolerance, not options.shallow)


if __name__ == "__main__":
    main()
