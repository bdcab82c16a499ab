"""Embedding and EmbeddingBag with respect to their table."""

import pytest
import torch
from torch import Tensor, nn

from pullgeo.errors import DtypeError, ModuleError, ShapeError
from pullgeo.jacobian import LookupWeight, linearize, weight_rule_for
from pullgeo.jacobian.contractions import gram
from pullgeo.testing import check_rule, oracles

AGAIN = torch.tensor([[0, 2, 0], [1, 1, 1], [4, 3, 2]])
"""Rows looked up twice and three times in a sample, and once."""

BESIDE_PADDING = torch.tensor([[0, 1, 0], [1, 1, 1], [4, 3, 1]])
"""The same, row 1 being the padding: in one sample there is nothing else."""


def test_embedding() -> None:
    check_rule(nn.Embedding(5, 2).double(), AGAIN, wrt="weight")
    check_rule(nn.Embedding(5, 2).double(), AGAIN[:, 0].clone(), wrt="weight", gradients=False, second="skip")
    check_rule(nn.Embedding(5, 2).double(), AGAIN.reshape(3, 1, 3), wrt="weight", gradients=False, second="skip")


def test_the_row_of_padding_has_no_derivative() -> None:
    module = nn.Embedding(5, 2, padding_idx=1).double()
    # torch's value depends on that row all the same, so differences of values would not agree
    check_rule(module, BESIDE_PADDING, wrt="weight", gradients=False)
    assert not linearize(module, torch.tensor([[1]]), "weight")[1].dense().any()


@pytest.mark.parametrize("padding", [None, 1])
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags(mode: str, padding: int | None) -> None:
    module = nn.EmbeddingBag(5, 2, mode=mode, padding_idx=padding).double()
    # torch has no forward mode for bags, which the checks of gradients would need
    check_rule(module, AGAIN if padding is None else BESIDE_PADDING, wrt="weight", gradients=False, second="skip")


def test_gradients_flow_through_products_of_bags() -> None:
    module = nn.EmbeddingBag(5, 2, mode="mean").double()
    J = weight_rule_for(module)(module, AGAIN)  # type: ignore[misc]
    T = torch.randn(2, 3, 10, dtype=torch.float64, requires_grad=True)
    W = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(J.push, T)
    assert torch.autograd.gradcheck(J.pull_squared, W)


@pytest.mark.parametrize("module", [nn.Embedding(5, 2), nn.EmbeddingBag(5, 2), nn.EmbeddingBag(5, 2, mode="max")])
def test_tables_are_not_formed_for_diagonals_and_gram_matrices(module: nn.Module) -> None:
    module = module.double()
    J = weight_rule_for(module)(module, AGAIN)  # type: ignore[misc]
    assert isinstance(J, LookupWeight)
    W, V = (torch.randn(7, 3, *J.signature.out_shape, dtype=torch.float64) for _ in range(2))
    expected = gram(J.pull(W), J.pull(V)), (J.pull(W) * J.pull(V)).sum(0)

    def whole(self: LookupWeight, W: Tensor) -> Tensor:
        raise AssertionError("a stack of tables was formed")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LookupWeight, "pull", whole)
        torch.testing.assert_close(J.pull_gram(W, V), expected[0])
        torch.testing.assert_close(J.pull_diag(W, V), expected[1])


def test_scaling_by_frequency_is_no_part_of_the_derivative() -> None:
    module = nn.Embedding(5, 2, scale_grad_by_freq=True, sparse=True).double()
    truth = oracles.dense_jacobian_fd(module, AGAIN, "weight")
    torch.testing.assert_close(linearize(module, AGAIN, "weight")[1].dense(), truth, rtol=1e-9, atol=1e-9)


def test_a_network_over_tokens() -> None:
    network = nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Linear(9, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    check_rule(network, AGAIN, wrt="weight", gradients=False, second="skip")


def test_indices_have_no_derivative() -> None:
    with pytest.raises(DtypeError, match="wrt='weight' if these are indices"):
        linearize(nn.Embedding(5, 2), AGAIN)
    with pytest.raises(ModuleError, match="indices, which have no derivative"):
        linearize(nn.Embedding(5, 2), torch.zeros(3, 2))


def test_bags_marked_by_offsets_are_refused() -> None:
    module = nn.EmbeddingBag(5, 2)
    with pytest.raises(ShapeError, match=r"\(b, bag size\).*padding_idx"):
        weight_rule_for(module)(module, AGAIN[0])  # type: ignore[misc]
