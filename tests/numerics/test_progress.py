"""Bars: one for each call that asks for one, and none otherwise."""

import pytest

from pullgeo.numerics.progress import advance, counted, progress_bar, stepped, with_progress


@with_progress("round", total=3)
def rounds(count: int, *, progress: bool = False) -> int:
    for _ in range(count):
        steps(2)
        advance()
    return count


@with_progress()
def steps(count: int, *, progress: bool = False) -> None:
    for left in counted(range(count)):
        stepped(left)
        advance(1000)  # means the bar of this call, which as a rule is not shown


def test_nothing_is_shown_unless_asked(capsys: pytest.CaptureFixture):
    assert rounds(3) == 3
    steps(5, progress=False)
    assert capsys.readouterr() == ("", "")


def test_a_bar_counts_the_units_of_its_own_call_alone(capsys: pytest.CaptureFixture):
    assert rounds(3, progress=True) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert "rounds: 100%" in err
    assert "3/3" in err
    assert "12 steps" in err


def test_a_bar_without_units_of_its_own_counts_steps(capsys: pytest.CaptureFixture):
    with progress_bar("name", True):
        for left in (7, 5, 3):
            stepped(left)
    assert "name: 3step" in (err := capsys.readouterr().err)
    assert "3 in work" in err


def test_bars_begin_where_others_have_ended(capsys: pytest.CaptureFixture):
    with progress_bar("name", True, unit="pair", total=11, done=4):
        advance(7)
    assert "11/11" in capsys.readouterr().err


def test_an_exception_closes_the_bar_and_later_calls_do_not_see_it(capsys: pytest.CaptureFixture):
    @with_progress("round")
    def failing(*, progress: bool = False) -> None:
        advance()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing(progress=True)
    assert "failing: 1round" in capsys.readouterr().err
    stepped()
    advance()
    assert capsys.readouterr() == ("", "")


def test_a_shown_call_inside_a_shown_one_has_its_own_bar(capsys: pytest.CaptureFixture):
    with progress_bar("outer", True, unit="part", total=2):
        advance()
        with progress_bar("inner", True, unit="pair", total=5):
            advance(5)
        advance()
    err = capsys.readouterr().err
    assert "outer: 100%" in err
    assert "inner: 100%" in err
    assert "5/5" in err
