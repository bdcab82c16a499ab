"""Any setting of pools, norms, pads and resampling, for any batch, the empty one included, in any memory layout."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pullgeo.jacobian import linearize
from pullgeo.jacobian.contractions import flat
from pullgeo.testing import oracles
from tests.jacobian.architectures import random
from tests.releases import KNOWN

Draw = Callable[[st.SearchStrategy[Any]], Any]
few = settings(max_examples=15, deadline=None, derandomize=True)
small = st.integers(1, 3)


def class_of(name: str, axes: int) -> Callable[..., nn.Module]:
    return getattr(nn, f"{name}{axes}d")


def each(draw: Draw, axes: int, numbers: st.SearchStrategy[int] = small) -> tuple[int, ...]:
    return tuple(draw(numbers) for _ in range(axes))


def laid_out(draw: Draw, b: int, *shape: int) -> Tensor:
    """A batch, contiguous or not."""
    x = random(b, *shape, seed=b)
    layout = draw(st.sampled_from(["plain", "strided", "transposed"]))
    if layout == "strided":
        return torch.stack([x, x.cos()], -1)[..., 0]
    return x.mT.contiguous().mT if layout == "transposed" and x.ndim > 1 else x


def check(module: nn.Module, x: Tensor, wrt: str = "input") -> None:
    """Value, push, pull and squares, against the oracle."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            expected = module(x)
        except (RuntimeError, ValueError, IndexError, AssertionError):  # no such window, or no empty batches
            expected = None
    assume(expected is not None and expected.numel() <= 200)
    assert expected is not None
    y, J = linearize(module, x, wrt)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    truth, s = oracles.dense_jacobian(module, x, wrt), J.signature
    T, W = random(2, s.batch, *s.in_shape, seed=1), random(2, s.batch, *s.out_shape, seed=2)
    for got, want in (
        (J.push(T), torch.einsum("boi,kbi->kbo", truth, flat(T))),
        (J.pull(W), torch.einsum("boi,kbo->kbi", truth, flat(W))),
        (J.push_squared(T), torch.einsum("boi,kbi->kbo", truth.square(), flat(T))),
        (J.pull_squared(W), torch.einsum("boi,kbo->kbi", truth.square(), flat(W))),
    ):
        torch.testing.assert_close(flat(got), want, rtol=1e-9, atol=1e-9)


def drawn(draw: Draw, axes: int) -> Tensor:
    largest = st.integers(2, {1: 7, 2: 5, 3: 3}[axes])
    return laid_out(draw, draw(st.integers(0, 3)), draw(st.integers(1, 2)), *each(draw, axes, largest))


@few
@given(data=st.data(), axes=small, ceil=st.booleans(), counted=st.booleans())
def test_average_pools(data: st.DataObject, axes: int, ceil: bool, counted: bool) -> None:
    kernel = each(data.draw, axes)
    padding = tuple(data.draw(st.integers(0, k // 2)) for k in kernel)
    more: dict[str, Any] = {} if axes == 1 else {"divisor_override": data.draw(st.sampled_from([None, 2, 5]))}
    module = class_of("AvgPool", axes)(
        kernel, each(data.draw, axes), padding, ceil_mode=ceil, count_include_pad=counted, **more
    )
    check(module, drawn(data.draw, axes))


@few
@given(data=st.data(), axes=small, ceil=st.booleans())
def test_maximum_pools(data: st.DataObject, axes: int, ceil: bool) -> None:
    kernel = each(data.draw, axes)
    padding = tuple(data.draw(st.integers(0, k // 2)) for k in kernel)
    module = class_of("MaxPool", axes)(
        kernel, each(data.draw, axes), padding, each(data.draw, axes, st.integers(1, 2)), ceil_mode=ceil
    )
    check(module, drawn(data.draw, axes))


@few
@given(data=st.data(), axes=small, name=st.sampled_from(["AdaptiveAvgPool", "AdaptiveMaxPool"]))
def test_adaptive_pools(data: st.DataObject, axes: int, name: str) -> None:
    sizes = each(data.draw, axes, st.integers(1, 4))
    check(class_of(name, axes)(sizes if axes > 1 else sizes[0]), drawn(data.draw, axes))


@few
@given(data=st.data(), axes=small, ceil=st.booleans(), power=st.sampled_from([1, 2, 3, 1.5, *[math.inf] * KNOWN]))
def test_power_pools(data: st.DataObject, axes: int, ceil: bool, power: float) -> None:
    window = each(data.draw, axes) if axes > 1 else data.draw(small)
    x = drawn(data.draw, axes).abs() + 0.1
    check(class_of("LPPool", axes)(power, window, data.draw(small), ceil_mode=ceil), x)


@few
@given(
    data=st.data(), axes=small, name=st.sampled_from(["ReflectionPad", "ReplicationPad", "CircularPad", "ConstantPad"])
)
def test_pads(data: st.DataObject, axes: int, name: str) -> None:
    crops = st.integers(-1 if name in ("ConstantPad", "CircularPad") else 0, 2)
    amounts = each(data.draw, 2 * axes, crops)
    check(class_of(name, axes)(amounts, *[0.5] * (name == "ConstantPad")), drawn(data.draw, axes))


@few
@given(data=st.data(), axes=small, mode=st.sampled_from(["nearest", "nearest-exact", "area", "smooth", "cubic"]))
def test_resampling(data: st.DataObject, axes: int, mode: str) -> None:
    smooth = {1: "linear", 2: "bilinear", 3: "trilinear"}[axes]
    mode = {"smooth": smooth, "cubic": "bicubic" if axes == 2 else smooth}.get(mode, mode)
    corners = data.draw(st.booleans()) if mode in (smooth, "bicubic") else None
    sized = data.draw(st.booleans())
    size = each(data.draw, axes, st.integers(1, 5)) if sized else None
    scale = None if sized else tuple(data.draw(st.sampled_from([0.5, 1.0, 1.7, 2.0])) for _ in range(axes))
    x = drawn(data.draw, axes)
    assume(len(x) > 0)  # torch resamples no empty batches
    check(nn.Upsample(size, scale, mode, corners), x)


@few
@given(data=st.data(), axes=st.integers(0, 3), groups=small, wrt=st.sampled_from(["input", "weight"]))
def test_group_norms(data: st.DataObject, axes: int, groups: int, wrt: str) -> None:
    channels = groups * data.draw(st.integers(1, 2))
    x = laid_out(data.draw, data.draw(st.integers(0, 3)), channels, *each(data.draw, axes, st.integers(2, 3)))
    assume(x.shape[1:].numel() > groups)  # one number alone is its own mean
    check(_random(nn.GroupNorm(groups, channels, eps=data.draw(st.sampled_from([1e-5, 0.1])))), x, wrt)


@few
@given(
    data=st.data(), axes=small, name=st.sampled_from(["LayerNorm", "RMSNorm"]), wrt=st.sampled_from(["input", "weight"])
)
def test_norms_of_trailing_dimensions(data: st.DataObject, axes: int, name: str, wrt: str) -> None:
    x = drawn(data.draw, axes)
    shape = x.shape[data.draw(st.integers(1, axes + 1)) :]
    more = {"bias": data.draw(st.booleans())} if name == "LayerNorm" else {}
    check(_random(getattr(nn, name)(shape, eps=data.draw(st.sampled_from([1e-5, 0.1])), **more)), x, wrt)


@few
@given(
    data=st.data(),
    axes=small,
    name=st.sampled_from(["BatchNorm", "InstanceNorm"]),
    tracked=st.booleans(),
    affine=st.booleans(),
)
def test_norms_of_channels(data: st.DataObject, axes: int, name: str, tracked: bool, affine: bool) -> None:
    tracked = tracked or name == "BatchNorm"
    x = drawn(data.draw, axes)
    module = class_of(name, axes)(x.shape[1], affine=affine, track_running_stats=tracked).eval()
    check(_random(module), x, data.draw(st.sampled_from(["input", "weight"])) if affine else "input")


def _random(module: nn.Module) -> nn.Module:
    """With parameters and running statistics that are neither zero nor one."""
    module = module.double()
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            tensor.data = 0.5 + random(*tensor.shape, seed=3).sigmoid()
    return module
