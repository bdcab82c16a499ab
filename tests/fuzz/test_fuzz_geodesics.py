"""The fuzzer of geodesics itself: it passes, and finds what is wrong."""

from dataclasses import replace

import pytest
from torch import Tensor

from pullgeo import PullbackManifold
from pullgeo.geodesic import Solution, Solver
from tests.fuzz import fuzz_geodesics


def test_a_few_cases_pass(capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz_geodesics.main(["--cases", "2", "--seed", "0", "--seconds", "100"]) == 0
    assert capsys.readouterr().out.endswith("2 cases, 0 failures\n")


def test_a_wrong_length_is_found_and_can_be_run_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    number = next(n for n in range(100) if fuzz_geodesics.case_of(n).kind == "linear")
    right = PullbackManifold.geodesic

    def wrong(self: PullbackManifold, z0: Tensor, z1: Tensor, solver: Solver | None = None) -> Solution:
        solution = right(self, z0, z1, solver)
        return replace(solution, length=1.01 * solution.length)

    monkeypatch.setattr(PullbackManifold, "geodesic", wrong)
    assert fuzz_geodesics.main(["--case", str(number)]) == 1
    printed = capsys.readouterr().out
    assert f"fuzz_geodesics.py --case {number}\n" in printed
    assert printed.endswith("1 cases, 1 failures\n")
