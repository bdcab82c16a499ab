"""Peak memory of weight diagonals, in bytes of tensors alive at once, beside the arrays that are avoided."""

import torch
from torch import nn

from pullgeo import nnj
from tests.benchmarks.side_by_side import show
from tests.nnj.memory import Meter


def peak(batch: int, n_out: int, reduction: str) -> tuple[int, int]:
    """Bytes at the peak, and number of weights."""
    net = nnj.Sequential(nn.Linear(100, 500), nn.Tanh(), nn.Linear(500, n_out))
    with torch.no_grad(), Meter() as meter:
        net.jTmjp(torch.randn(batch, 100), wrt="weight", to_diag=True, reduction=reduction)
    return meter.peak, net._n_params


def test_weight_diagonal() -> None:
    rows: list[dict[str, object]] = []
    for reduction in ("none", "sum"):
        for batch, n_out in ((8, 10), (8, 100), (8, 1000), (128, 10), (128, 100)):
            found, size = peak(batch, n_out, reduction)
            rows.append(
                {
                    "reduction": reduction,
                    "batch": batch,
                    "outputs": n_out,
                    "peak, MB": found / 1e6,
                    "peak / (batch x weights)": found / (4 * batch * size),
                    "peak / (outputs x batch x weights)": found / (4 * batch * size * n_out),
                }
            )
    note = "Bytes of tensors alive at once, over those of arrays that need not be formed."
    show("peak memory of an exact weight diagonal, 100-500-n", rows, "weight-diagonal-memory", note=note)
    for row in rows:
        if row["reduction"] == "none":  # the answer is one array of the batch times the weights
            assert row["peak / (batch x weights)"] < 8
        assert row["peak / (outputs x batch x weights)"] < 1
