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


ILL_CONDITIONED = [
    40947909,  # a layer norm of constant rows
    945019719,  # a root mean square norm of one entry
    pytest.param(581282037, marks=pytest.mark.full),  # layer norms of nearly constant rows in a transformer
]
"""Where one digit more or less of single precision changes second derivatives by as much as they are."""


@pytest.mark.parametrize("number", ILL_CONDITIONED)
@pytest.mark.heavy
def test_single_precision_is_judged_by_what_it_can_hold(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz_products.main(["--case", str(number)]) == 0
    assert "ill-conditioned in float32: 1" in capsys.readouterr().out


def test_what_is_wrong_in_double_precision_too_is_no_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_products, "_holds", lambda check, case: False)
    assert fuzz_products.main(["--case", "40947909"]) == 1
