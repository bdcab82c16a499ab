"""Random networks, and every product of their Jacobians against derivatives that know nothing of this package.

    python tests/fuzz/fuzz_products.py --seconds 60 --seed 0
    python tests/fuzz/fuzz_products.py --case 123     # one case again, as the line of a failure says

The truth are torch's own derivatives in float64, one output of one sample after the other. Where a product differs from
them, differences of fourth order decide who is right: torch's derivatives have faults of their own, which are counted
apart. Exits with 1 if a product was wrong, or if a network was refused that torch differentiates.
"""

import argparse
import copy
import random
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

sys.path.insert(0, str(Path(__file__).parents[2]))  # so that it runs as a script

from pullgeo import nnj
from pullgeo.jacobian import Jacobian, linearize
from pullgeo.jacobian.contractions import flat
from pullgeo.testing import oracles
from tests.fuzz.networks import SIZES, Grammar, Shape, kinds

TOLERANCE = {torch.float64: 1e-8, torch.float32: 2e-3}
"""Of the largest number in the truth."""

MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "grad": torch.enable_grad,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
}

MOST_WEIGHTS = 160


class Wrong(Exception):  # noqa: N818
    """A product that is not what it should be."""


@dataclass
class Case:
    """A network, a batch, and how they are asked for; all of it follows from the number.

    Args:
        number: of the case.
        exactly: take float64 whatever was drawn.
    """

    number: int
    exactly: bool = False

    def __post_init__(self) -> None:
        draw = self.draw = random.Random(self.number)
        torch.manual_seed(self.number)
        self.generator = torch.Generator().manual_seed(self.number)
        self.batch = draw.choice([3, 3, 5])
        shape: Shape = tuple(draw.sample(SIZES[:3], draw.choice([1, 1, 2, 3])))
        if len(shape) == 3:
            shape = (draw.choice([1, 2]), *shape[1:])
        grammar = Grammar(draw, self.batch)
        self.module, self.out_shape = grammar.network(shape, depth=3)
        while sum(p.numel() for p in self.module.parameters()) > MOST_WEIGHTS:
            self.module, self.out_shape = grammar.network(shape, depth=2)
        self.module.eval()
        for name, buffer in self.module.named_buffers():
            if name.split(".")[-1].startswith("running_"):
                buffer.uniform_(0.5, 1.5)
        # what float32 holds is what float64 is asked about
        self.x64 = self._drawn(self.batch, *shape).float().double()
        self.exact = copy.deepcopy(self.module).double()
        self.dtype = draw.choice([torch.float64, torch.float64, torch.float32])
        if self.exactly:
            self.dtype = torch.float64
        self.module.to(self.dtype)
        self.mode = draw.choice(sorted(MODES))
        self.layout = draw.choice(["contiguous", "contiguous", "expanded", "transposed", "inference"])
        self.as_function = draw.random() < 0.2
        self.wrt = "input" if self.as_function or not any(True for _ in self.exact.parameters()) else draw.choice(WRTS)
        self.chunk = draw.choice([None, None, 1, 2])
        if self.layout == "expanded":
            self.x64 = (
                self.x64[:1].expand_as(self.x64) if draw.random() < 0.5 else self.x64[..., :1].expand_as(self.x64)
            )
        self.kinds = kinds(self.module) | {
            self.mode,
            str(self.dtype).removeprefix("torch."),
            f"wrt {self.wrt}",
            self.layout,
        }

    def _drawn(self, *shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=self.generator)

    def laid_out(self, x: Tensor) -> Tensor:
        """The same numbers, in the precision and the layout of the case."""
        if self.layout == "expanded":
            x = x.to(self.dtype).contiguous()
            parts = (x[:1], x[:, :1], x[..., :1])
            return next((part.expand_as(x) for part in parts if torch.equal(part.expand_as(x), x)), x)
        if self.layout == "transposed":
            return x.to(self.dtype).transpose(0, -1).contiguous().transpose(0, -1)
        if self.layout == "inference":
            with torch.inference_mode():
                return x.to(self.dtype).clone()
        return x.to(self.dtype)

    def stack(self, k: int, *shape: int) -> Tensor:
        """k random tangents or cotangents in float64, all alike where layouts are expanded."""
        drawn = self._drawn(k, self.batch, *shape)
        return drawn[:1].expand_as(drawn) if self.layout == "expanded" else drawn

    @cached_property
    def truth(self) -> "Truth":
        """The derivatives in float64."""
        return Truth(self.exact, self.x64.contiguous(), self.wrt)

    @cached_property
    def lost(self) -> float:
        """What torch itself loses in single precision, where numbers cancel."""
        with torch.inference_mode(False):
            return self._far(Truth(self.module, self.x64.contiguous().float(), self.wrt))

    @cached_property
    def conditioning(self) -> float:
        """Some times what torch loses, or what a last digit more or less in the batch and the weights changes."""
        generator = torch.Generator().manual_seed(self.number)

        def nearly(a: Tensor) -> Tensor:
            noise = torch.randn(a.shape, dtype=a.dtype, generator=generator)
            return a + torch.finfo(torch.float32).eps * a * noise

        changes = [self.lost]
        with torch.inference_mode(False):
            for _ in range(3):
                module = copy.deepcopy(self.exact)
                with torch.no_grad():
                    for p in module.parameters():
                        p.copy_(nearly(p))
                changes.append(self._far(Truth(module, nearly(self.x64.contiguous()), self.wrt)))
        return 20 * max(changes)

    def _far(self, other: "Truth") -> float:
        """The largest difference between derivatives, relative to the largest number in the truth."""
        pairs = ((other.J, self.truth.J), (other.second, self.truth.second))
        return max(error / scale for error, scale in (_distance(a, b) for a, b in pairs))

    def linearized(self) -> Jacobian:
        """The Jacobian in the case's own precision, layout and grad mode."""
        x = self.laid_out(self.x64)
        f = (lambda z: self.module(z)) if self.as_function else self.module
        y, J = linearize(f, x, self.wrt)
        self.compare("value", y, self.truth.value)
        return J.in_chunks(self.chunk)

    def compare(self, what: str, got: Tensor, expected: Tensor, arbiter: Callable[[], Tensor] | None = None) -> None:
        """Raise unless two results agree, or differences say that the truth is what is wrong.

        Raises:
            Wrong: they do not.
            Rounded: no more than single precision explains; the same in double precision decides.
            TorchWrong: the product is right.
        """
        got = got.detach()
        if got.dtype != self.dtype or got.shape != expected.shape:
            raise Wrong(f"{what}: got {got.dtype} {tuple(got.shape)}, expected {self.dtype} {tuple(expected.shape)}")
        error, scale = _distance(got, expected)
        if error <= TOLERANCE[self.dtype] * scale:
            return
        if self.dtype == torch.float32 and error <= min(20 * self.lost, 0.05) * scale:
            return
        if arbiter is not None:
            decided = arbiter()
            loose = max(1e-5, TOLERANCE[self.dtype])
            if _distance(got, decided)[0] <= loose * scale < _distance(expected, decided)[0]:
                raise TorchWrong(what)
        text = f"{what}: off by {error:.3g} where the largest number is {scale:.3g}"
        if self.dtype == torch.float32 and error <= self.conditioning * scale:
            raise Rounded(text)
        raise Wrong(text)


class Rounded(Wrong):
    """A product in single precision that is as far off as the derivatives of a network nearby."""


class TorchWrong(Exception):  # noqa: N818
    """A derivative of torch's that differences refute, where the product is right."""


WRTS = ("input", "weight")


def _distance(a: Tensor, b: Tensor) -> tuple[float, float]:
    a, b = a.double(), b.double()
    if not a.numel():
        return 0.0, 1.0
    same = (a == b) | (a.isnan() & b.isnan())
    error = torch.where(same, 0.0, (a - b).abs()).nan_to_num(torch.inf).max()
    finite = b[b.isfinite()]
    return float(error), max(1.0, float(finite.abs().max()) if finite.numel() else 1.0)


class Truth:
    """Derivatives of a module at a batch by torch's reverse mode alone, one output of one sample after the other."""

    def __init__(self, module: nn.Module, x: Tensor, wrt: str) -> None:
        self.module, self.x, self.wrt = module, x, wrt
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            self.value = self.run().detach()
            self.J = self._jacobian()

    def run(self, x: Tensor | None = None) -> Tensor:
        """The module's value; in float64 and in eval mode, with the kernel for attention that has derivatives."""
        fastpath = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            y: Tensor = self.module((self.x if x is None else x).clone())
            return y
        finally:
            torch.backends.mha.set_fastpath_enabled(fastpath)

    def _jacobian(self) -> Tensor:
        rows = []
        for b in range(len(self.x)):
            x = self.x.clone().requires_grad_(self.wrt == "input")
            y = self.run(x)[b].flatten()
            of_one = [self._gradient(y[o], x, b, True) for o in range(len(y))]
            rows.append(torch.stack(of_one))
        return torch.stack(rows).detach()

    def _gradient(self, y: Tensor, x: Tensor, b: int, keep: bool) -> Tensor:
        leaves = [x] if self.wrt == "input" else list(self.module.parameters())
        if not y.requires_grad:
            return torch.cat([torch.zeros_like(leaf).flatten() for leaf in leaves])[: self._size(x)]
        found = torch.autograd.grad(y, leaves, retain_graph=True, create_graph=keep, allow_unused=True)
        filled = [torch.zeros_like(leaf) if g is None else g for g, leaf in zip(found, leaves, strict=True)]
        if self.wrt == "input":
            return filled[0][b].flatten()
        return torch.cat([g.flatten() for g in filled])

    def _size(self, x: Tensor) -> int:
        return x[0].numel() if self.wrt == "input" else sum(p.numel() for p in self.module.parameters())

    @cached_property
    def second(self) -> Tensor:
        """``∂²(Σ_o w_o y_o)`` as matrices ``(b, n, n)``, for the cotangent `weights`."""
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            return torch.stack([self._hessian(b) for b in range(len(self.x))]).detach()

    @cached_property
    def weights(self) -> Tensor:
        """A cotangent ``(b, n_out)``."""
        generator = torch.Generator().manual_seed(1)
        return torch.randn(*self.J.shape[:2], dtype=torch.float64, generator=generator)

    def _hessian(self, b: int) -> Tensor:
        x = self.x.clone().requires_grad_(self.wrt == "input")
        along = (self.run(x)[b].flatten() * self.weights[b]).sum()
        gradient = self._gradient(along, x, b, True)
        return torch.stack([self._gradient(g, x, b, True).detach() for g in gradient])

    def differences(self, T: Tensor, h: float = 2e-3) -> Tensor:
        """``J T`` of flat tangents ``(k, b, n)`` by differences of fourth order."""
        return torch.stack([self._difference(t, h, 1) for t in T])

    def second_differences(self, T: Tensor, h: float = 5e-3) -> Tensor:
        """``∂²y[T_k, T_k]`` by differences of fourth order."""
        return torch.stack([self._difference(t, h, 2) for t in T])

    def _difference(self, t: Tensor, h: float, order: int) -> Tensor:
        stencil = {1: (1 / 12, -2 / 3, 0, 2 / 3, -1 / 12), 2: (-1 / 12, 4 / 3, -5 / 2, 4 / 3, -1 / 12)}[order]
        values = [c * self._moved(t, s * h) for s, c in zip(range(-2, 3), stencil, strict=True) if c]
        total: Tensor = sum(values[1:], values[0])
        return total / h**order

    def _moved(self, t: Tensor, h: float) -> Tensor:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            if self.wrt == "input":
                return self.run(self.x + h * t.reshape(self.x.shape)).flatten(1)
            rows = []
            for b in range(len(self.x)):
                before = [p.clone() for p in self.module.parameters()]
                sizes = [p.numel() for p in before]
                for p, step in zip(self.module.parameters(), t[b].split(sizes), strict=True):
                    p.add_(h * step.view_as(p))
                rows.append(self.run()[b].flatten())
                for p, old in zip(self.module.parameters(), before, strict=True):
                    p.copy_(old)
            return torch.stack(rows)


Check = Callable[[Case, Jacobian], None]


def check_maps(case: Case, J: Jacobian) -> None:
    """``push``, ``pull``, ``dense`` and squares."""
    s, truth = J.signature, case.truth
    T, W = case.stack(2, *s.in_shape), case.stack(3, *s.out_shape)
    t, w = case.laid_out(T), case.laid_out(W)
    case.compare("dense", J.dense(), truth.J, lambda: _by_differences(truth))
    pushed = torch.einsum("boi,kbi->kbo", truth.J, flat(T))
    case.compare("push", flat(J.push(t)), pushed, lambda: truth.differences(flat(T)))
    case.compare("pull", flat(J.pull(w)), torch.einsum("boi,kbo->kbi", truth.J, flat(W)))
    squares = truth.J.square()
    case.compare("push_squared", flat(J.push_squared(t)), torch.einsum("boi,kbi->kbo", squares, flat(T)))
    case.compare("pull_squared", flat(J.pull_squared(w)), torch.einsum("boi,kbo->kbi", squares, flat(W)))


def _by_differences(truth: Truth) -> Tensor:
    b, _, n = truth.J.shape
    return truth.differences(torch.eye(n, dtype=torch.float64).unsqueeze(1).expand(n, b, n)).permute(1, 2, 0)


def check_contractions(case: Case, J: Jacobian) -> None:
    """Grams, outer products and diagonals of stacks."""
    s, truth = J.signature, case.truth.J
    T, S = (case.stack(k, *s.in_shape) for k in (2, 2))
    W, V = (case.stack(k, *s.out_shape) for k in (2, 2))
    JT, JS = (torch.einsum("boi,kbi->kbo", truth, flat(a)) for a in (T, S))
    JW, JV = (torch.einsum("boi,kbo->kbi", truth, flat(a)) for a in (W, V))
    t, u, w, v = map(case.laid_out, (T, S, W, V))
    case.compare("push_gram", J.push_gram(t, u), torch.einsum("kbo,lbo->bkl", JT, JS))
    case.compare("pull_gram", J.pull_gram(w, v), torch.einsum("kbi,lbi->bkl", JW, JV))
    case.compare("push_outer", J.push_outer(t, u), torch.einsum("kbo,kbp->bop", JT, JS))
    case.compare("pull_outer", J.pull_outer(w, v), torch.einsum("kbi,kbj->bij", JW, JV))
    case.compare("push_diag", J.push_diag(t, u).flatten(1), (JT * JS).sum(0))
    case.compare("pull_diag", J.pull_diag(w, v).flatten(1), (JW * JV).sum(0))


def check_second(case: Case, J: Jacobian) -> None:
    """Second derivatives in every form, and jets."""
    s, truth = J.signature, case.truth
    H, w = truth.second, truth.weights
    T, S = case.stack(2, *s.in_shape), case.stack(2, *s.in_shape)
    t, u = case.laid_out(T), case.laid_out(S)
    cotangent = case.laid_out(w.reshape(s.batch, *s.out_shape))
    form = torch.einsum("kbi,bij,lbj->bkl", flat(T), H, flat(T))

    def arbiter() -> Tensor:  # the diagonal decides for the form
        diagonal = (truth.second_differences(flat(T)) * w).sum(-1).T
        return torch.diagonal_scatter(form, diagonal, dim1=1, dim2=2)

    case.compare("second", J.second(t, cotangent), form, arbiter)
    pushed = torch.einsum("boi,kbi->kbo", truth.J, flat(T))
    first, second = J.push_with_second(t, cotangent)
    case.compare("push_with_second: push", flat(first), pushed)
    case.compare("push_with_second: second", second, form, arbiter)
    mixed = torch.einsum("kbi,bij,kbj->kb", flat(T), H, flat(S))
    along = (flat(J.second_push(t, u)).double() * w).sum(-1)
    case.compare("second_push", along.to(case.dtype), mixed)
    a, b = case.stack(2, 2)[:, :, :], case.stack(2, 2)[:, :, :]  # two pairs of directions, of two tangents
    jet = flat(J.push_jet(torch.cat([t, u]), case.laid_out(a), case.laid_out(b)))
    bent = torch.einsum("lbk,kbi,bij,mbj,lbm->lb", a, flat(T), H, flat(T), b)
    moved = torch.einsum("boi,lbi->lbo", truth.J, flat(S))
    case.compare("push_jet: tangents", jet[:2], pushed)
    along = ((jet[2:].double() - moved) * w).sum(-1)
    case.compare("push_jet: second", along.to(case.dtype), bent)


def check_products(case: Case, J: Jacobian) -> None:
    """The six products of `pullgeo.nnj`, with matrices that are not symmetric, diagonals and none."""
    truth, wrt = case.truth.J, case.wrt
    module: Any = case.module
    x = case.laid_out(case.x64)
    _, n_out, n = truth.shape
    b = case.batch
    v, w = case.stack(1, n)[0], case.stack(1, n_out)[0]
    M, N = case._drawn(b, n, 2), case._drawn(b, 2, n_out)
    left = (module, x, None)
    ours = nnj.products
    case.compare("jvp", ours.jvp(*left, case.laid_out(v), wrt), oracles.jvp(truth, v))
    case.compare("vjp", ours.vjp(*left, case.laid_out(w), wrt), oracles.vjp(truth, w))
    case.compare("jmp", ours.jmp(*left, case.laid_out(M), wrt, chunk_size=case.chunk), oracles.jmp(truth, M))
    case.compare("mjp", ours.mjp(*left, case.laid_out(N), wrt, chunk_size=case.chunk), oracles.mjp(truth, N))
    given = case.draw.choice(["matrix", "diagonal", "none"])
    to_diag = case.draw.random() < 0.5
    for name, size in (("jmjTp", n), ("jTmjp", n_out)):
        matrix = {"matrix": case._drawn(b, size, size), "diagonal": case._drawn(b, size), "none": None}[given]
        flags = {"from_diag": given == "diagonal", "to_diag": to_diag}
        expected = getattr(oracles, name)(truth, matrix, **flags)
        full = {"full": True} if name == "jTmjp" and wrt == "weight" and not to_diag else {}
        laid = None if matrix is None else case.laid_out(matrix)
        got = getattr(ours, name)(*left, laid, wrt, **flags, **full, chunk_size=case.chunk)
        case.compare(f"{name} {given} {'to diagonal' if to_diag else ''}", got, expected)
        if full:
            blocks = getattr(ours, name)(*left, laid, wrt, **flags)
            compare_blocks(case, blocks, oracles.blocks_of(expected, oracles.weight_layout(module)))
        if name == "jTmjp":
            total = getattr(ours, name)(*left, laid, wrt, **flags, **full, reduction="sum")
            case.compare(f"{name} {given} summed", total, expected.sum(0))


def compare_blocks(case: Case, got: Any, expected: Any) -> None:
    """Blocks over weights, nested as the containers are."""
    if isinstance(expected, list):
        if not isinstance(got, list) or len(got) != len(expected):
            raise Wrong("blocks: other nesting")
        for one, other in zip(got, expected, strict=True):
            compare_blocks(case, one, other)
    else:
        case.compare("blocks", got, expected)


CHECKS: tuple[Check, ...] = (check_maps, check_contractions, check_second, check_products)


def numbers(seed: int) -> Iterator[int]:
    """The cases of a seed, without end."""
    draw = random.Random(seed)
    while True:
        yield draw.randrange(10**9)


def run_case(number: int, counts: Counter[str]) -> str | None:
    """One case: what is wrong with it, or ``None``."""
    torch.backends.mha.set_fastpath_enabled(True)
    try:
        case = Case(number)
        finite = bool(case.truth.J.isfinite().all()) and bool(case.truth.second.isfinite().all())
    except RuntimeError as error:
        if not any(reason in str(error) for reason in ("not implemented", "modified by an inplace operation")):
            raise
        counts[f"no derivative in torch: {str(error)[:60]}"] += 1
        return None
    if not finite:
        counts["not finite"] += 1
        return None
    counts.update(case.kinds)
    for check in CHECKS:
        try:
            _run(check, case)
        except TorchWrong as found:
            counts[f"torch is wrong: {found}"] += 1
        except Exception as error:  # noqa: BLE001  any error at all is a finding
            if isinstance(error, Rounded) and _holds(check, Case(number, exactly=True)):
                counts["ill-conditioned in float32"] += 1
                continue
            text = str(error) if isinstance(error, Wrong) else "".join(traceback.format_exception(error)[-4:])
            asked = f"{case.dtype}, {case.mode}, wrt {case.wrt}, {case.layout}, chunks of {case.chunk}"
            return f"{check.__name__}: {text}\n  x {tuple(case.x64.shape)}, {asked}\n  {case.module}"
    return None


def _run(check: Check, case: Case) -> None:
    with MODES[case.mode](), warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated")  # torch says it of itself
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch's own scripts
        warnings.filterwarnings("ignore", "There is a performance drop")
        check(case, case.linearized())


def _holds(check: Check, case: Case) -> bool:
    try:
        _run(check, case)
    except TorchWrong:
        return True
    except Exception:  # noqa: BLE001
        return False
    return True


def main(arguments: list[str] | None = None) -> int:
    """Run cases until the time is over; 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to go on")
    parser.add_argument("--cases", type=int, default=None, help="how many cases at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, default=None, help="run this case alone")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    counts: Counter[str] = Counter()
    done = failures = 0
    end = time.monotonic() + options.seconds
    for number in [options.case] if options.case is not None else numbers(options.seed):
        if time.monotonic() > end or done == options.cases:
            break
        wrong = run_case(number, counts)
        done += 1
        if wrong is not None:
            failures += 1
            print(f"python tests/fuzz/fuzz_products.py --case {number}\n  {wrong}", flush=True)
    print(", ".join(f"{kind}: {count}" for kind, count in sorted(counts.items())))
    print(f"{done} cases, {failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
