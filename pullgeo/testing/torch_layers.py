"""One small instance of every layer class of torch.nn, and the reason why each of its other classes has none."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Num
from torch import Tensor, nn
from torch.nn import functional as F

from pullgeo.errors import OptionError

Call = Callable[..., Tensor]
"""``(layer, x) -> y``: how a layer whose forward is not of one tensor is made a map of one tensor."""


class Called(nn.Module):
    """A layer as a map of one tensor.

    Args:
        layer: any module.
        call: ``(layer, x) -> y``; a function that can be imported by name, so that the module can be pickled.
    """

    def __init__(self, layer: nn.Module, call: Call) -> None:
        super().__init__()
        self.layer = layer
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        """``call(layer, x)``."""
        return self.call(self.layer, x)


@dataclass(frozen=True, eq=False)
class TorchLayer:
    """How to make an instance of a class of torch.nn, and what it maps.

    Attributes:
        name: of the class.
        build: makes the layer.
        shape: of a sample.
        call: how to call it, if not with one tensor.
        rows: samples are indices below this number; 0 where they are floating point numbers.
        positive: samples are positive.
        exact: whether torch's own backward pass is right and can be differentiated, so that it may serve as the truth;
            otherwise that is by differences of values.
    """

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    call: Call | None = None
    rows: int = 0
    positive: bool = False
    exact: bool = True

    def module(self, dtype: torch.dtype = torch.float64) -> nn.Module:
        """A new instance in eval mode, with random parameters and running statistics, the same every time."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            layer = self.build().double().eval()
            for parameter in layer.parameters():
                nn.init.uniform_(parameter, 0.2, 0.9)
                parameter.data *= torch.sign(torch.randn_like(parameter))
            for name, buffer in layer.named_buffers():
                if name.startswith("running_"):
                    nn.init.uniform_(buffer, 0.5, 1.5)
        layer = layer.to(dtype)  # drawn in double precision, so that they are the same in both
        return layer if self.call is None else Called(layer, self.call)

    def points(self, batch: int, dtype: torch.dtype = torch.float64) -> Num[Tensor, "b *shape"]:
        """A batch of random samples, the same every time."""
        generator = torch.Generator().manual_seed(7)
        if self.rows:
            return torch.randint(self.rows, (batch, *self.shape), generator=generator)
        x = 0.7 * torch.randn(batch, *self.shape, dtype=torch.float64, generator=generator)
        return (x.abs() + 0.1 if self.positive else x).to(dtype)


def torch_layers() -> dict[str, TorchLayer]:
    """An instance of every layer class of the installed torch.nn that is known here, by the name of the class.

    Example:
        >>> layer = torch_layers()["Conv2d"]
        >>> layer.module()(layer.points(3)).shape
        torch.Size([3, 3, 3, 2])
    """
    return {name: layer for name, layer in _LAYERS.items() if hasattr(nn, name)}


def why_no_layer(name: str) -> str:
    """Why a class of torch.nn has no instance in `torch_layers`.

    Raises:
        OptionError: it has one, or nothing is known of it.

    Example:
        >>> why_no_layer("ModuleList")
        'a container without a forward'
    """
    if name in _OTHERS:
        return _OTHERS[name]
    if name.endswith(("Loss", "Loss2d")):
        return "a loss: it compares an output with a target"
    if name.startswith("Lazy") and name.removeprefix("Lazy") in _LAYERS:
        return f"becomes {name.removeprefix('Lazy')} when it is first called, and is refused before"
    raise OptionError(f"why_no_layer: expected a class of torch.nn without an instance in torch_layers, got {name!r}.")


_OTHERS = {
    "Container": "a container without a forward",
    "DataParallel": "copies a module to several devices: linearize the module itself",
    "Module": "the base class",
    "ModuleDict": "a container without a forward",
    "ModuleList": "a container without a forward",
    "ParameterDict": "a container without a forward",
    "ParameterList": "a container without a forward",
    "RNNBase": "the base class of RNN, LSTM and GRU",
    "RNNCellBase": "the base class of RNNCell, LSTMCell and GRUCell",
}


def _first(layer: Call, x: Tensor) -> Tensor:
    return layer(x)[0]


def _halves(layer: Call, x: Tensor) -> Tensor:
    return layer(*x.chunk(2, -1))


def _two_and_the_rest(layer: Call, x: Tensor) -> Tensor:
    return layer(x[..., :2], x[..., 2:])


def _target_and_memory(layer: Call, x: Tensor) -> Tensor:
    return layer(x[:, :2], x[:, 2:])


def _source_and_target(layer: Call, x: Tensor) -> Tensor:
    return layer(x[:, 2:], x[:, :2])


def _self_attention(layer: Call, x: Tensor) -> Tensor:
    return layer(x, x, x)[0]


def _pooled(pool: Callable[..., tuple[Tensor, Tensor]], layer: Call, x: Tensor) -> Tensor:
    return layer(*pool(x, 2))


def _fractional(axes: int) -> Tensor:
    return torch.tensor([[[0.3, 0.8, 0.5], [0.6, 0.1, 0.9]]], dtype=torch.float64)[..., :axes].expand(5, 2, axes)


def _layer(
    name: str,
    shape: tuple[int, ...],
    *args: object,
    call: Call | None = None,
    rows: int = 0,
    positive: bool = False,
    exact: bool = True,
    **settings: object,
) -> TorchLayer:
    return TorchLayer(name, lambda: getattr(nn, name)(*args, **settings), shape, call, rows, positive, exact)


_ATTENTION: dict[str, Any] = {"dropout": 0.0, "batch_first": True}
_FEED_FORWARD: dict[str, Any] = {**_ATTENTION, "dim_feedforward": 3}

_LAYERS = {
    layer.name: layer
    for layer in (
        _layer("AdaptiveAvgPool1d", (2, 5), 3),
        _layer("AdaptiveAvgPool2d", (2, 5, 3), (3, 2)),
        _layer("AdaptiveAvgPool3d", (1, 3, 2, 5), (2, 1, 3)),
        _layer("AdaptiveMaxPool1d", (2, 5), 3),
        _layer("AdaptiveMaxPool2d", (2, 5, 3), (3, 2)),
        _layer("AdaptiveMaxPool3d", (1, 3, 2, 5), (2, 1, 3)),
        _layer("AlphaDropout", (2, 3)),
        _layer("AvgPool1d", (2, 5), 3, 2, 1),
        _layer("AvgPool2d", (2, 3, 5), (3, 2), 1, 1, count_include_pad=False),
        _layer("AvgPool3d", (1, 3, 2, 5), (2, 1, 3), 2, (1, 0, 1)),
        _layer("BatchNorm1d", (3,), 3),
        _layer("BatchNorm2d", (2, 1, 3), 2),
        _layer("BatchNorm3d", (2, 1, 3, 2), 2),
        _layer("Bilinear", (3, 5), 2, 3, 2, call=_two_and_the_rest),
        _layer("CELU", (2, 3), 1.5),
        _layer("ChannelShuffle", (6, 2), 2),
        _layer("CircularPad1d", (2, 3), (3, 1)),
        _layer("CircularPad2d", (2, 3, 2), (2, 1, 0, 3)),
        _layer("CircularPad3d", (1, 2, 3, 2), (1, 0, 0, 2, 1, 1)),
        _layer("ConstantPad1d", (2, 3), (2, -1), 1.5),
        _layer("ConstantPad2d", (2, 3, 2), (2, 1, 0, 3), 1.5),
        _layer("ConstantPad3d", (1, 2, 3, 2), (1, 0, 0, 2, 1, -1), 1.5),
        _layer("Conv1d", (2, 5), 2, 4, 3, 2, 1, groups=2),
        _layer("Conv2d", (2, 3, 3), 2, 3, 2, padding=(1, 0), dilation=(2, 1), padding_mode="circular"),
        _layer("Conv3d", (1, 2, 3, 2), 1, 2, 2, stride=(1, 2, 1), padding=(1, 0, 1), bias=False),
        _layer("ConvTranspose1d", (2, 3), 2, 3, 3, stride=3, padding=1, output_padding=2),
        _layer("ConvTranspose2d", (4, 2, 3), 4, 2, (3, 2), stride=(2, 1), padding=(1, 0), groups=2),
        _layer("ConvTranspose3d", (1, 2, 1, 2), 1, 2, 2, stride=2, padding=(0, 0, 1)),
        _layer("CosineSimilarity", (3, 10), -1, call=_halves),
        _layer("CrossMapLRN2d", (5, 2, 1), 3, alpha=0.7, beta=0.6, k=1.2, exact=False),
        _layer("Dropout", (2, 3)),
        _layer("Dropout1d", (2, 3)),
        _layer("Dropout2d", (2, 1, 3)),
        _layer("Dropout3d", (2, 1, 3, 1)),
        _layer("ELU", (2, 3), 0.7),
        _layer("Embedding", (3,), 5, 2, rows=5),
        _layer("EmbeddingBag", (3,), 5, 2, rows=5, exact=False),
        _layer("FeatureAlphaDropout", (2, 3)),
        _layer("Flatten", (2, 3)),
        _layer("Fold", (6, 8), (3, 4), (2, 3), stride=(1, 2), padding=1),
        _layer("FractionalMaxPool2d", (2, 5, 3), 2, output_size=(3, 2), _random_samples=_fractional(2)),
        _layer("FractionalMaxPool3d", (2, 3, 5, 4), (1, 2, 2), output_size=(2, 3, 2), _random_samples=_fractional(3)),
        _layer("GELU", (2, 3)),
        _layer("GLU", (4, 3), 1),
        _layer("GRU", (3, 2), 2, 3, batch_first=True, call=_first),
        _layer("GRUCell", (2,), 2, 3),
        _layer("GroupNorm", (4, 3), 2, 4),
        _layer("Hardshrink", (2, 3), 0.3),
        _layer("Hardsigmoid", (2, 3), exact=False),
        _layer("Hardswish", (2, 3)),
        _layer("Hardtanh", (2, 3), -0.3, 0.6),
        _layer("Identity", (2, 3)),
        _layer("InstanceNorm1d", (2, 5), 2, affine=True),
        _layer("InstanceNorm2d", (2, 2, 3), 2, affine=True, track_running_stats=True),
        _layer("InstanceNorm3d", (2, 1, 2, 3), 2, affine=True),
        _layer("LPPool1d", (2, 5), 3, 2, positive=True),
        _layer("LPPool2d", (1, 3, 5), 2, 2, ceil_mode=True),
        _layer("LPPool3d", (1, 2, 3, 2), 2, 2),
        _layer("LSTM", (3, 2), 2, 3, batch_first=True, call=_first),
        _layer("LSTMCell", (2,), 2, 3, call=_first),
        _layer("LayerNorm", (2, 5), 5),
        _layer("LeakyReLU", (2, 3), 0.2),
        _layer("Linear", (2, 3), 3, 5),
        _layer("LocalResponseNorm", (5, 2), 3, alpha=0.9, beta=0.6, k=1.3),
        _layer("LogSigmoid", (2, 3)),
        _layer("LogSoftmax", (2, 5), -1),
        _layer("MaxPool1d", (2, 7), 3, 2, 1),
        _layer("MaxPool2d", (2, 3, 5), 3, stride=(1, 2), padding=1),
        _layer("MaxPool3d", (1, 3, 2, 5), (2, 1, 3), stride=1),
        _layer("MaxUnpool1d", (2, 6), 2, call=partial(_pooled, F.max_pool1d_with_indices)),
        _layer("MaxUnpool2d", (2, 4, 2), 2, call=partial(_pooled, F.max_pool2d_with_indices)),
        _layer("MaxUnpool3d", (1, 4, 2, 2), 2, call=partial(_pooled, F.max_pool3d_with_indices)),
        _layer("Mish", (2, 3)),
        _layer("MultiheadAttention", (3, 4), 4, 2, **_ATTENTION, call=_self_attention),
        _layer("PReLU", (3, 2), 3),
        _layer("PairwiseDistance", (3, 10), 3.0, call=_halves),
        _layer("PixelShuffle", (4, 2, 3), 2),
        _layer("PixelUnshuffle", (1, 4, 2), 2),
        _layer("RMSNorm", (2, 5), 5),
        _layer("RNN", (3, 2), 2, 3, batch_first=True, call=_first),
        _layer("RNNCell", (2,), 2, 3),
        _layer("RReLU", (2, 3), 0.1, 0.4),
        _layer("ReLU", (2, 3)),
        _layer("ReLU6", (2, 3)),
        _layer("ReflectionPad1d", (2, 5), (2, 4)),
        _layer("ReflectionPad2d", (1, 2, 3), (1, 2, 0, 1)),
        _layer("ReflectionPad3d", (1, 2, 3, 2), (1, 0, 0, 2, 1, 1)),
        _layer("ReplicationPad1d", (2, 3), (4, 2)),
        _layer("ReplicationPad2d", (2, 3, 2), (2, 1, 0, 3)),
        _layer("ReplicationPad3d", (1, 2, 3, 2), (1, 0, 0, 2, 1, 1)),
        _layer("SELU", (2, 3)),
        TorchLayer("Sequential", lambda: nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)), (3,)),
        _layer("SiLU", (2, 3)),
        _layer("Sigmoid", (2, 3)),
        _layer("Softmax", (2, 5), -1),
        _layer("Softmax2d", (3, 2, 1)),
        _layer("Softmin", (5, 2), 1),
        _layer("Softplus", (2, 3), 2.0, 1.0),
        _layer("Softshrink", (2, 3), 0.3),
        _layer("Softsign", (2, 3)),
        _layer("SyncBatchNorm", (2, 3), 2),
        _layer("Tanh", (2, 3)),
        _layer("Tanhshrink", (2, 3)),
        _layer("Threshold", (2, 3), 0.1, 0.2),
        _layer("Transformer", (3, 2), 2, 2, 1, 1, **_FEED_FORWARD, call=_source_and_target),
        TorchLayer(
            "TransformerDecoder", lambda: nn.TransformerDecoder(_decoder_layer(), 1), (3, 2), _target_and_memory
        ),
        TorchLayer("TransformerDecoderLayer", lambda: _decoder_layer(), (3, 2), _target_and_memory),
        TorchLayer("TransformerEncoder", lambda: nn.TransformerEncoder(_encoder_layer(), 1), (3, 4)),
        TorchLayer("TransformerEncoderLayer", lambda: _encoder_layer(), (3, 4)),
        _layer("Unflatten", (2, 6), 2, (2, 3)),
        _layer("Unfold", (2, 3, 5), (2, 3), dilation=(1, 2), padding=(0, 1), stride=(2, 1)),
        _layer("Upsample", (1, 2, 3), scale_factor=1.7, mode="bicubic"),
        _layer("UpsamplingBilinear2d", (1, 2, 3), size=(5, 4)),
        _layer("UpsamplingNearest2d", (1, 2, 3), scale_factor=2),
        _layer("ZeroPad1d", (2, 3), (2, 1)),
        _layer("ZeroPad2d", (2, 3, 2), (2, 1, 0, -1)),
        _layer("ZeroPad3d", (1, 2, 3, 2), (1, 0, 0, 2, 1, 1)),
    )
}


def _decoder_layer() -> nn.TransformerDecoderLayer:
    return nn.TransformerDecoderLayer(2, 1, activation=F.silu, **_FEED_FORWARD)


def _encoder_layer() -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(4, 2, activation=F.gelu, **_FEED_FORWARD)
