"""Orthonormal frames, against the metric itself."""

import pytest
import torch

from pullgeo.errors import SingularMetricError
from pullgeo.manifold.frame import Frame
from pullgeo.metric import Dense, Identity


def test_a_frame_is_orthonormal_and_gives_coordinates(generator: torch.Generator):
    A = torch.randn(5, 3, 7, generator=generator, dtype=torch.float64)
    G = A @ A.mT
    frame = Frame.of(Dense(G), 5)
    torch.testing.assert_close(frame.vectors.mT @ G @ frame.vectors, torch.eye(3).double().expand(5, 3, 3))
    torch.testing.assert_close(frame.vectors @ frame.vectors.mT, G.inverse())
    torch.testing.assert_close(frame.log_volume, torch.stack([g.det().log() / 2 for g in G]))
    v, w = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)
    expected = torch.stack([a @ g @ b for a, g, b in zip(v, G, w, strict=True)])
    torch.testing.assert_close((frame.coordinates(v) * frame.coordinates(w)).sum(1), expected)
    torch.testing.assert_close(frame.tangents(frame.coordinates(v)), v)


def test_a_constant_metric_has_the_same_frame_everywhere():
    frame = Frame.of(Identity(2), 3)
    torch.testing.assert_close(frame.vectors, torch.eye(2).double().expand(3, 2, 2))


def test_a_singular_metric_has_none():
    with pytest.raises(SingularMetricError, match="not positive definite at 1 of 1 points"):
        Frame.of(Dense(torch.zeros(1, 2, 2)), 1)
    with pytest.raises(SingularMetricError, match=r"walk: the metric is singular at \[1.0, 2.0\].* add a floor"):
        Frame.at("walk", Dense(torch.zeros(1, 2, 2)), torch.tensor([1.0, 2.0]))
