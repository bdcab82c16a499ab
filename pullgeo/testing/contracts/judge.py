"""Comparison with a truth, and a text that says where and by how much it failed."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pullgeo.testing.tolerances import Tolerance, tolerance_for


@dataclass(frozen=True, eq=False)
class Judge:
    """Raises `AssertionError` with the subject, the check and the place of the largest error.

    Attributes:
        subject: what is judged, the start of every message.
        tolerance: what may differ; by default the row of the dtype that is compared.
    """

    subject: str
    tolerance: Tolerance | None = field(default=None)

    def fail(self, check: str, reason: str) -> None:
        """Raise."""
        raise AssertionError(f"{self.subject}: {check}: {reason}")

    def require(self, holds: bool, check: str, reason: str) -> None:
        """Raise unless ``holds``."""
        if not holds:
            self.fail(check, reason)

    def close(
        self,
        check: str,
        got: object,
        expected: Tensor,
        like: Tensor | None = None,
        rtol: float = 0.0,
        scale: float = 0.0,
    ) -> None:
        """Raise unless ``got`` is a tensor with the shape and, within the tolerance, the values of ``expected``.

        Args:
            check: name of the check.
            got: what the subject returned.
            expected: the truth, in any precision.
            like: a tensor whose dtype and device ``got`` must have.
            rtol: what may differ relative to the largest expected entry, if more than the tolerance says.
            scale: size of the terms that make up an entry, if they are larger than the entries.
        """
        if not isinstance(got, Tensor):
            self.fail(check, f"expected a tensor, got {type(got).__name__}")
            return
        self.require(
            got.shape == expected.shape, check, f"expected shape {tuple(expected.shape)}, got {tuple(got.shape)}"
        )
        if like is not None:
            self.require(got.dtype == like.dtype, check, f"expected dtype {like.dtype}, got {got.dtype}")
            self.require(got.device == like.device, check, f"expected device {like.device}, got {got.device}")
        if got.numel() == 0:
            return
        tolerance = self.tolerance if self.tolerance is not None else tolerance_for(got.dtype)
        got64, expected64 = got.detach().double(), expected.detach().double()
        self.require(not bool(expected64.isnan().any()), check, "the truth itself is NaN; choose another point")
        error = (got64 - expected64).abs()
        error = torch.where(torch.isfinite(got64) & torch.isfinite(expected64), error, torch.inf)
        error = torch.where(got64 == expected64, 0.0, error)
        finite = expected64[torch.isfinite(expected64)]
        scale = max(scale, float(finite.abs().max()) if finite.numel() else 0.0)
        allowed = max(rtol, tolerance.exact) * scale + tolerance.floor
        worst = int(error.flatten().argmax())
        if float(error.flatten()[worst]) > allowed:
            place = tuple(int(i) for i in torch.unravel_index(torch.tensor(worst), error.shape))
            self.fail(
                check,
                f"max error {float(error.flatten()[worst]):.3g} at {place}: got {float(got64[place]):.9g}, "
                f"expected {float(expected64[place]):.9g}; allowed {allowed:.3g}",
            )

    @contextmanager
    def attempt(self, check: str) -> Iterator[None]:
        """Turn an error that the subject raises inside the block into a failure of this check."""
        try:
            yield
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise AssertionError(f"{self.subject}: {check}: raised {type(error).__name__}: {error}") from error

    @contextmanager
    def unchanged(self, check: str, *arguments: Tensor) -> Iterator[None]:
        """Raise if a tensor was written to inside the block, even if it was restored afterwards."""
        kept = [(argument, argument.detach().clone(), argument._version) for argument in arguments]
        yield
        for position, (argument, value, version) in enumerate(kept):
            same = argument._version == version and bool(torch.equal(argument.detach(), value))
            self.require(same, check, f"argument {position} was changed in place")


def random_like(x: Tensor, *shape: int, generator: torch.Generator) -> Tensor:
    """Normal numbers of the given shape on the device of ``x``, in its dtype if that is floating point."""
    dtype = x.dtype if x.is_floating_point() else torch.get_default_dtype()
    return torch.randn(*shape, dtype=torch.float64, generator=generator).to(dtype=dtype, device=x.device)


def uncontiguous(x: Tensor) -> Tensor:
    """The same values with the first axis innermost in memory, so that ``view`` fails and strides matter."""
    return x.movedim(0, -1).contiguous().movedim(-1, 0)
