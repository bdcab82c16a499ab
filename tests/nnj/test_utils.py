"""Inverses of nested blocks."""

import pytest
import torch

from pullgeo import nnj
from pullgeo.errors import DtypeError, ShapeError, SingularMetricError
from tests.nnj.cases import points, random, twin


def test_blocks_are_inverted_where_they_stand() -> None:
    net = twin("nested")
    with torch.no_grad():
        blocks = net.jTmjp(points("nested", 3), None, random(3, 5, 5), wrt="weight")
    regular = _plus_identity(blocks)
    inverses = nnj.utils.invert_block_diagonal(regular)
    flat, flat_inverse = list(_leaves(regular)), list(_leaves(inverses))
    assert len(flat) == len(flat_inverse) == 4
    assert isinstance(inverses[1][0][1], torch.Tensor)
    for block, inverse in zip(flat, flat_inverse, strict=True):
        assert block.shape[1] == 1 or (block - block.mT).abs().max() > 1e-3
        torch.testing.assert_close(block @ inverse, torch.eye(block.shape[1], dtype=block.dtype).expand_as(block))


def _plus_identity(blocks: list) -> list:
    return [_plus_identity(b) if isinstance(b, list) else b + torch.eye(b.shape[-1], dtype=b.dtype) for b in blocks]


def _leaves(blocks: list) -> list:
    return [leaf for b in blocks for leaf in (_leaves(b) if isinstance(b, list) else [b])]


def test_a_single_block_and_empty_ones() -> None:
    block = random(3, 2, 2)
    torch.testing.assert_close(
        nnj.invert_block_diagonal(block) @ block, torch.eye(2, dtype=block.dtype).expand(3, 2, 2)
    )
    assert nnj.invert_block_diagonal((torch.zeros(0, 2, 2), torch.zeros(3, 0, 0)))[1].shape == (3, 0, 0)


def test_singular_blocks_are_named() -> None:
    regular, rank_one = torch.eye(3).expand(2, 3, 3), torch.ones(2, 3, 1) * torch.arange(1.0, 4.0)
    with pytest.raises(SingularMetricError, match=r"blocks\[1\]\[0\] is singular .* 2 of 2 matrices\. Add a multiple"):
        nnj.invert_block_diagonal([regular, [rank_one]])
    with pytest.raises(SingularMetricError, match="1 of 2"):
        nnj.invert_block_diagonal(torch.stack([torch.eye(3), torch.zeros(3, 3)]))
    with pytest.raises(SingularMetricError, match="1 of 2"):
        nnj.invert_block_diagonal(torch.stack([torch.eye(3), torch.full((3, 3), torch.nan)]))


def test_the_gauss_newton_block_of_a_wide_layer_is_singular_to_working_precision() -> None:
    net, x = nnj.Sequential(nnj.Linear(7, 11), nnj.Tanh(), nnj.Linear(11, 2)).double(), random(3, 7)
    with pytest.raises(SingularMetricError, match="Add a multiple of the identity"):
        nnj.invert_block_diagonal(net.jTmjp(x, wrt="weight"))


def test_an_ill_conditioned_block_is_still_inverted() -> None:
    block = torch.diag(torch.tensor([1.0, 1e-12], dtype=torch.float64))[None]
    expected = torch.diag(torch.tensor([1.0, 1e12], dtype=torch.float64))[None]
    torch.testing.assert_close(nnj.invert_block_diagonal(block), expected)


def test_what_is_no_block_is_refused(without_type_checks: None) -> None:
    with pytest.raises(ShapeError, match=r"blocks\[0\] must have shape \(\.\.\., n, n\), got \(3, 2\)"):
        nnj.invert_block_diagonal([torch.zeros(3, 2)])
    with pytest.raises(DtypeError, match="got NoneType"):
        nnj.invert_block_diagonal([None])
    with pytest.raises(DtypeError, match=r"got torch\.int64"):
        nnj.invert_block_diagonal(torch.eye(2, dtype=torch.int64))
