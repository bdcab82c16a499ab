"""The demonstration."""

import re

import pytest
import torch

from pullgeo.cli.demo import central_points, most_gaining
from tests.cli.conftest import Folder
from tests.viz.reading import array_in, figures_in, payload_in


def test_it_writes_a_page_and_says_what_it_does(folder: Folder):
    done = folder.run("demo", "-o", "digits.html")
    assert (done.code, done.err) == (0, "")
    assert folder.left() == {"digits.html"}
    assert "45 pairs of digits" in done.out
    assert str(folder.path / "digits.html") in done.out

    (strips,) = figures_in(folder.path / "digits.html")
    payload = payload_in(folder.path / "digits.html")
    assert payload["latents"]["labels"]["names"] == list("0123456789")
    assert array_in(payload["latents"]["pictures"]).shape == (1797, 64)
    assert [curve["status"] for curve in payload["curves"]] == 6 * ["CONVERGED"]
    assert payload["accuracy"]["fine"]
    assert len(strips["layout"]["images"]) == 6 * 2 * 9
    rows = re.findall(r"<tr><td>.*?</tr>", (folder.path / "digits.html").read_text(encoding="utf-8"))
    gains = [float(re.search(r"(-?[\d.]+) %", row).group(1)) for row in rows]
    assert len(gains) == 6
    assert gains == sorted(gains, reverse=True)
    assert gains[-1] > 1


def test_central_points_are_members_near_the_middle():
    z = torch.tensor([[0.0, 0.0], [1.0, 1.0], [9.0, 9.0], [5.0, 9.0], [6.0, 5.0], [8.0, 6.0]])
    labels = torch.tensor([3, 3, 3, 8, 8, 8])
    assert central_points(z, labels).tolist() == [[1.0, 1.0], [6.0, 5.0]]


@pytest.mark.parametrize("n", [4, 7])
def test_no_point_is_in_more_than_two_of_the_chosen_pairs(n: int):
    pairs = torch.combinations(torch.arange(n))
    gain = -torch.arange(len(pairs)).double()
    chosen = most_gaining(gain, pairs)
    assert chosen[0] == 0
    assert chosen == sorted(chosen)
    assert pairs[chosen].flatten().bincount().max() == 2
    assert len(chosen) <= 6
