"""The picture of distances as the members of an ensemble see them."""

import torch

from pullgeo.stats import DistanceUncertainty
from pullgeo.viz import distance_spread


def test_pairs_stand_by_their_mean_with_the_colour_of_their_verdict() -> None:
    lengths = torch.tensor([[3.0, 1.0, 2.0, torch.nan], [3.0, 2.0, 2.0, torch.nan]], dtype=torch.float64)
    expected = torch.tensor([3.1, 1.6, 2.1, 5.0], dtype=torch.float64)
    figure = distance_spread(DistanceUncertainty(lengths, expected, 2 * expected, expected / 2, 8))
    traces = {trace.name: trace for trace in figure.data}
    agree, disagree = traces["members: AGREE"], traces["members: DISAGREE"]
    assert list(agree.y) == [2.0, 3.0]
    assert list(agree.customdata) == [2, 0]
    assert list(disagree.x) == [0]
    assert list(disagree.error_y.array) == [0.5**0.5]
    assert list(traces["expected metric"].y) == [1.6, 2.1, 3.1, 5.0]
    assert list(traces["independent members, T = 8"].y) == [3.2, 4.2, 6.2, 10.0]
    assert list(traces["their floor"].y) == [0.8, 1.05, 1.55, 2.5]
