"""The fuzzers themselves: they find what is wrong, and run as they say."""

import pytest
from torch import Tensor, nn

from pullgeo.jacobian import Elementwise
from tests.fuzz import fuzz_products


def test_a_few_cases_pass(capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz_products.main(["--cases", "3", "--seed", "6", "--seconds", "100"]) == 0
    assert capsys.readouterr().out.endswith("3 cases, 0 failures\n")


def test_a_wrong_derivative_is_found_and_can_be_run_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    number = 136  # a single elementwise layer
    assert type(fuzz_products.Case(number).module) is nn.Tanh

    def wrong(J: Elementwise, W: Tensor) -> Tensor:
        return 1.01 * J.derivative * W

    assert fuzz_products.main(["--case", str(number)]) == 0
    capsys.readouterr()
    monkeypatch.setattr(Elementwise, "pull", wrong)
    assert fuzz_products.main(["--case", str(number)]) == 1
    printed = capsys.readouterr().out
    assert printed.startswith(f"python tests/fuzz/fuzz_products.py --case {number}\n  check_")
    assert printed.endswith("1 cases, 1 failures\n")
