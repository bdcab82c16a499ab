"""Solutions in files."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from pullgeo import PullbackManifold
from pullgeo.errors import DataError
from pullgeo.geodesic import Newton, Solution, Status


@pytest.fixture
def solution(generator: torch.Generator) -> Solution:
    torch.manual_seed(0)
    manifold = PullbackManifold(nn.Sequential(nn.Linear(2, 7), nn.Tanh(), nn.Linear(7, 5)).double())
    z = torch.randn(6, 2, generator=generator, dtype=torch.float64)
    return manifold.geodesic(z[:3], torch.cat([z[3:5], z[2:3]]), Newton(segments=8))


def test_what_is_saved_comes_back(solution: Solution, tmp_path: Path) -> None:
    assert solution.status[2] is Status.COINCIDENT
    solution.save(tmp_path / "pairs.safetensors")
    again = Solution.load(str(tmp_path / "pairs.safetensors"))
    assert again.status == solution.status
    assert torch.equal(again.curve.nodes, solution.curve.nodes)
    for name in ("length", "energy", "iterations", "residual", "error_estimate", "speed_ratio", "minima", "converged"):
        ours, theirs = getattr(again, name), getattr(solution, name)
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)
    assert not again.length.requires_grad
    assert [file.name for file in tmp_path.iterdir()] == ["pairs.safetensors"]


def test_no_pairs_at_all(solution: Solution, tmp_path: Path) -> None:
    solution[:0].save(tmp_path / "none")
    assert len(Solution.load(tmp_path / "none")) == 0


def test_what_is_something_else_is_refused(solution: Solution, tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(DataError, match="Check the path"):
        Solution.load(path)
    with pytest.raises(DataError, match="Check the path"):
        Solution.load(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="Check the path"):
        Solution.load(path)
    safetensors.torch.save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(DataError, match="weight"):
        Solution.load(path)
    solution.save(path)
    content = path.read_bytes()
    path.write_bytes(content[:-9])
    with pytest.raises(DataError, match="Check the path"):
        Solution.load(path)
    path.write_bytes(content.replace(b"COINCIDENT", b"COINCIDENX"))
    with pytest.raises(DataError, match="COINCIDENX"):
        Solution.load(path)
    path.write_bytes(content.replace(b"Solution.1", b"Solution.9"))
    with pytest.raises(DataError, match="newer release"):
        Solution.load(path)
    with pytest.raises(OSError, match="No such file"):
        solution.save(tmp_path / "nowhere" / "file")


def test_a_bit_that_flipped_is_noticed(solution: Solution, tmp_path: Path) -> None:
    path = tmp_path / "file"
    solution.save(path)
    content = path.read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    for place in range(begin, len(content), 13):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        with pytest.raises(DataError, match="not those that were written"):
            Solution.load(path)


def test_what_was_written_without_a_checksum_is_read(solution: Solution, tmp_path: Path) -> None:
    path = tmp_path / "file"
    solution.save(path)
    tensors = safetensors.torch.load_file(path)
    told = {"format": "pullgeo.Solution.1", "status": ",".join(status.name for status in solution.status)}
    safetensors.torch.save_file(tensors, path, told)
    assert torch.equal(Solution.load(path).length, solution.length)
    for name, dtype in (("length", torch.int64), ("iterations", torch.float64), ("energy", torch.bool)):
        safetensors.torch.save_file({**tensors, name: tensors[name].to(dtype)}, path, told)
        with pytest.raises(DataError, match=str(dtype)):
            Solution.load(path)
