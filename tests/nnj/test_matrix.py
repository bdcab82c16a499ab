"""Every layer class of torch.nn, converted: each product, structure, argument, precision and batch size."""

from functools import cache

import pytest
import torch
from torch import Tensor

from pullgeo import nnj
from pullgeo.jacobian import rule_for
from pullgeo.testing import oracles, torch_layers
from tests.nnj.test_products import ASKS, assert_equal

LAYERS = torch_layers()
CASES = [
    (name, wrt)
    for name, layer in LAYERS.items()
    for wrt in ("input", "weight")
    if (any(True for _ in layer.module().parameters()) if wrt == "weight" else not layer.rows)
]
SETTINGS = [(torch.float64, 3), (torch.float64, 1), (torch.float32, 3), (torch.float32, 1)]


@cache
def truth(name: str, wrt: str) -> Tensor:
    """The oracle's Jacobian at three samples, once for all that is compared with it."""
    layer = LAYERS[name]
    # torch's first derivative of bags is right, its second is not there
    by_autograd = layer.exact or layer.rows > 0
    return (oracles.dense_jacobian if by_autograd else oracles.dense_jacobian_fd)(layer.module(), layer.points(3), wrt)


@pytest.mark.quick(38)
@pytest.mark.parametrize(("name", "wrt"), CASES)
def test_products(name: str, wrt: str, without_type_checks: None) -> None:  # they would take most of the time
    layer = LAYERS[name]
    looser = 1.0 if layer.exact or layer.rows else 100.0  # differences of values
    for number, (dtype, batch) in enumerate(SETTINGS):
        net, x = nnj.convert_to_nnj(layer.module(dtype)), layer.points(3, dtype)[:batch]
        # a network of many operations is slow, and has nothing of its own that depends on precision or batch
        asks = ASKS if number == 0 or rule_for(net) is not None else ASKS[number :: len(SETTINGS)]
        for what, ask in asks:
            assert_equal(*ask(net, x, truth(name, wrt)[:batch], dtype, wrt), dtype, f"{what}, batch {batch}", looser)
