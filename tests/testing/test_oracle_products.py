"""The explicit products, with the shapes and flags of the nnj face."""

import pytest
import torch
from torch import nn

from pullgeo.errors import ModuleError
from pullgeo.testing import oracles

B, N_OUT, N, K = 3, 5, 7, 2


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


J = random(B, N_OUT, N, seed=9)


def test_vectors_in_flat_and_in_value_shape():
    v, w = random(B, N), random(B, N_OUT, seed=1)
    torch.testing.assert_close(oracles.jvp(J, v), torch.einsum("boi,bi->bo", J, v))
    torch.testing.assert_close(oracles.vjp(J, w), torch.einsum("boi,bo->bi", J, w))
    torch.testing.assert_close(oracles.jvp(J, v.reshape(B, 7, 1)), oracles.jvp(J, v))


def test_matrices_on_one_side():
    right, left = random(B, N, K), random(B, K, N_OUT)
    torch.testing.assert_close(oracles.jmp(J, right), torch.einsum("boi,bik->bok", J, right))
    torch.testing.assert_close(oracles.mjp(J, left), torch.einsum("bko,boi->bki", left, J))
    torch.testing.assert_close(oracles.jmp(J, None), J)
    torch.testing.assert_close(oracles.mjp(J, None), J)


@pytest.mark.parametrize("to_diag", [False, True])
@pytest.mark.parametrize("kind", ["full", "diag", "none"])
def test_both_sided_products_take_asymmetric_metrics(kind, to_diag):
    for n, product, formula in [(N, oracles.jmjTp, "boi,bij,bpj->bop"), (N_OUT, oracles.jTmjp, "boi,bop,bpj->bij")]:
        full = {"full": random(B, n, n), "diag": torch.diag_embed(random(B, n)), "none": torch.eye(n).double()[None]}
        M = full[kind].expand(B, n, n)
        given = {"full": M, "diag": M.diagonal(dim1=1, dim2=2), "none": None}[kind]
        operands = (J, M, J)
        expected = torch.einsum(formula, *operands)
        got = product(J, given, from_diag=kind == "diag", to_diag=to_diag)
        torch.testing.assert_close(got, expected.diagonal(dim1=1, dim2=2) if to_diag else expected)


def two_layers() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Sequential(nn.Linear(3, 1), nn.PReLU()))


def test_layout_is_nested_as_the_containers_are():
    layout = oracles.weight_layout(two_layers())
    assert [layout[0].tolist(), [entry.tolist() for entry in layout[1]]] == [
        list(range(9)),
        [list(range(9, 13)), [13]],
    ]
    assert oracles.weight_layout(nn.Linear(2, 1)).tolist() == [0, 1, 2]
    attention = nn.MultiheadAttention(2, 1)
    assert len(oracles.weight_layout(attention)) == sum(p.numel() for p in attention.parameters())
    with pytest.raises(ModuleError, match="parameters"):
        oracles.weight_layout(nn.Tanh())


def test_blocks_are_cut_out_and_put_back():
    layout = oracles.weight_layout(two_layers())
    full = random(B, 14, 14)
    blocks = oracles.blocks_of(full, layout)
    torch.testing.assert_close(blocks[1][0], full[:, 9:13, 9:13])
    rebuilt = oracles.full_from_blocks(blocks, layout, 14)
    mask = torch.block_diag(torch.ones(9, 9), torch.ones(4, 4), torch.ones(1, 1)).double()
    torch.testing.assert_close(rebuilt, full * mask)
    J_weight = random(B, N_OUT, 14, seed=4)
    torch.testing.assert_close(
        oracles.jmjTp(J_weight, blocks, layout=layout), torch.einsum("boi,bij,bpj->bop", J_weight, rebuilt, J_weight)
    )
    with pytest.raises(ModuleError, match="nested"):
        oracles.full_from_blocks(blocks, layout[0], 14)


def test_blocks_of_tied_parameters_overlap():
    first, second = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    second.weight = first.weight
    layout = oracles.weight_layout(nn.Sequential(first, second))
    assert [entry.tolist() for entry in layout] == [[0, 1, 2, 3], [0, 1, 2, 3]]
    block = random(B, 4, 4)
    torch.testing.assert_close(oracles.full_from_blocks([block, block], layout, 4), 2 * block)
