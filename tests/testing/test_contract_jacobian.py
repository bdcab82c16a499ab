"""check_jacobian passes a right Jacobian and fails every broken one, naming what is wrong."""

import pytest
import torch
from torch import nn

from pullgeo.testing.contracts import check_jacobian
from tests.testing.fakes import Layer, Matrices, linearize

X = torch.tensor([[0.3, -0.2, 0.9], [0.7, 0.1, -0.4], [-0.5, 0.8, 0.2]], dtype=torch.float64)


@pytest.mark.parametrize("wrt", ["input", "weight"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_right_jacobian_passes(dtype, wrt):
    module, x = Layer(dtype), X.to(dtype)
    y, J = linearize(module, x, wrt)
    check_jacobian(J, module, x, wrt=wrt, y=y)


class PushTransposed(Matrices):
    def push(self, T):
        return Matrices(self.J.mT, self.in_shape, self.out_shape, self.form).push(T)


class PushOfFirstSample(Matrices):
    def push(self, T):
        return Matrices(self.J[:1].expand_as(self.J), self.in_shape, self.out_shape, self.form).push(T)


class PushOffByOnePart(Matrices):
    def push(self, T):
        return super().push(T) * (1 + 1e-8)


class PushFlat(Matrices):
    def push(self, T):
        return super().push(T).flatten(2)


class PushSwapsStackAndBatch(Matrices):
    def push(self, T):
        return super().push(T).transpose(0, 1)


class PushInSinglePrecision(Matrices):
    def push(self, T):
        return super().push(T).float()


class PushInPlace(Matrices):
    def push(self, T):
        T *= 2
        return super().push(T) / 2


class PushInPlaceAndBack(Matrices):
    def push(self, T):
        T *= 2
        moved = super().push(T) / 2
        T /= 2
        return moved


class PushByView(Matrices):
    def push(self, T):
        return super().push(T.view(-1, 3).view(T.shape))


class PushForgetsStrides(Matrices):
    def push(self, T):
        packed = T if T.is_contiguous() else torch.as_strided(T, T.shape, T.contiguous().stride())
        return super().push(packed)


class PushOfNaN(Matrices):
    def push(self, T):
        return super().push(T) * torch.nan


class PushReturnsNothing(Matrices):
    def push(self, T):
        return None


class PullIsNoAdjoint(Matrices):
    def pull(self, W):
        return Matrices(self.J.mT, self.in_shape, self.out_shape, self.form).pull(W)


class PullKeepsOneEntryTwice(Matrices):
    def pull(self, W):
        return super().pull(W) + super().pull(W) * (torch.arange(3) == 1)


class SquaredByAbsoluteValue(Matrices):
    def push_squared(self, v):
        return Matrices(self.J.abs(), self.in_shape, self.out_shape, self.form).push(v)


class SquaredAfterTheSum(Matrices):
    def pull_squared(self, w):
        return self.pull(w).square()


class DenseTransposed(Matrices):
    def dense(self):
        return self.J.mT


class SecondWithoutCrossTerms(Matrices):
    def second(self, T, w):
        return torch.diag_embed(super().second(T, w).diagonal(dim1=1, dim2=2))


class SecondIsZero(Matrices):
    def second(self, T, w):
        return 0 * super().second(T, w)


class SecondIgnoresItsWeights(Matrices):
    """Right at the first weights that it sees."""

    def second(self, T, w):
        self.kept = getattr(self, "kept", w)
        return super().second(T, self.kept)


class SecondInPlace(Matrices):
    def second(self, T, w):
        form = super().second(T, w)
        w *= 0
        return form


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (PushTransposed, r"push: max error .* at \(.*\): got .*, expected"),
        (PushOfFirstSample, "push: max error"),
        (PushOffByOnePart, "push: max error"),
        (PushFlat, r"push: expected shape \(2, 3, 3, 1\), got \(2, 3, 3\)"),
        (PushSwapsStackAndBatch, "push: expected shape"),
        (PushInSinglePrecision, "push: expected dtype torch.float64, got torch.float32"),
        (PushInPlace, "push: argument 0 was changed in place"),
        (PushInPlaceAndBack, "push: argument 0 was changed in place"),
        (PushByView, "push of a non-contiguous stack: raised RuntimeError"),
        (PushForgetsStrides, "push of a non-contiguous stack: max error"),
        (PushOfNaN, "push: max error inf"),
        (PushReturnsNothing, "push: expected a tensor, got NoneType"),
        (PullIsNoAdjoint, "pull: max error"),
        (PullKeepsOneEntryTwice, "pull: max error"),
        (SquaredByAbsoluteValue, "push_squared: max error"),
        (SquaredAfterTheSum, "pull_squared: max error"),
        (DenseTransposed, "dense: max error"),
        (SecondWithoutCrossTerms, "second: max error"),
        (SecondIsZero, "second: max error"),
        (SecondIgnoresItsWeights, "second at other weights: max error"),
        (SecondInPlace, "second: argument 1 was changed in place"),
    ],
)
def test_a_broken_jacobian_fails(kind, message):
    module = Layer()
    _, J = linearize(module, X, kind=kind)
    with pytest.raises(AssertionError, match=rf"check_jacobian\(Layer, wrt='input'\): {message}"):
        check_jacobian(J, module, X)


def test_rounding_passes():
    class PullOffByRounding(Matrices):
        def pull(self, W):
            return super().pull(W) * (1 + 1e-13)

    module = Layer()
    _, J = linearize(module, X, kind=PullOffByRounding)
    check_jacobian(J, module, X)


def test_products_that_wear_out_are_no_longer_adjoint():
    class PullWearsOut(Matrices):
        calls = 0

        def pull(self, W):
            self.calls += 1
            return super().pull(W) * (1 if self.calls <= 3 else 2)

    module = Layer()
    _, J = linearize(module, X, kind=PullWearsOut)
    with pytest.raises(AssertionError, match="adjointness ⟨push T, W⟩ = ⟨T, pull W⟩: max error"):
        check_jacobian(J, module, X)


def test_the_value_is_compared():
    module = Layer()
    y, J = linearize(module, X)
    with pytest.raises(AssertionError, match="value: max error"):
        check_jacobian(J, module, X, y=y + 1e-6)
    with pytest.raises(AssertionError, match="value: expected dtype"):
        check_jacobian(J, module, X, y=y.float())


def test_second_derivatives_may_be_left_out_or_found_by_differences():
    module = Layer()
    _, J = linearize(module, X, kind=SecondIsZero)
    check_jacobian(J, module, X, second="skip")
    with pytest.raises(AssertionError, match="second: max error"):
        check_jacobian(J, module, X, second="finite_difference")
    _, J = linearize(module, X)
    check_jacobian(J, module, X, second="finite_difference")


def test_a_jacobian_of_another_network_fails_with_respect_to_weights():
    module, other = Layer(), Layer()
    with torch.no_grad():
        other.weight += 1e-3
    _, J = linearize(other, X, "weight")
    with pytest.raises(AssertionError, match="push: max error"):
        check_jacobian(J, module, X, wrt="weight")


def test_the_truth_must_be_a_number():
    class Root(nn.Module):
        def forward(self, x):
            return x.sqrt().unsqueeze(-1)

    _, J = linearize(Layer(), X)
    with pytest.raises(AssertionError, match="truth itself is NaN"):
        check_jacobian(J, Root(), -X.abs())
