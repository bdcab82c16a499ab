"""A module of several arguments as a map of one vector for each sample."""

from typing import Any

import torch
from torch import Tensor, nn

from pullgeo._torch.state import left_alone
from pullgeo.jacobian.tracing.proxy import Recorded


class Packed(nn.Module):
    """Unpacks a vector into the arguments of a module, and picks its output.

    Args:
        module: takes the arguments.
        args: positional arguments; the recorded tensors among them are those that the vector holds.
        kwargs: keyword arguments, likewise.
        inputs: the recorded tensors, in the order of the vector.
    """

    def __init__(self, module: nn.Module, args: Any, kwargs: Any, inputs: list[Recorded]) -> None:
        super().__init__()
        self.module = module
        self.arguments = (args, kwargs)
        self.places = {id(input): i for i, input in enumerate(inputs)}
        self.shapes = [tuple(input.shape[1:]) for input in inputs]

    def forward(self, vector: Tensor) -> Tensor:
        """``(b, n) -> (b, *out)``."""
        sizes = [torch.Size(shape).numel() for shape in self.shapes]
        pieces = zip(vector.split(sizes, 1), self.shapes, strict=True)
        tensors = [piece.reshape(len(vector), *shape) for piece, shape in pieces]
        return output(self.module, self.call(tensors))

    def call(self, tensors: list[Tensor]) -> Any:
        """What the module returns, given tensors in place of the recorded ones."""
        args, kwargs = self._filled(self.arguments, tensors)
        with left_alone(self.module):
            return self.module(*args, **kwargs)

    def _filled(self, arguments: Any, tensors: list[Tensor]) -> Any:
        if isinstance(arguments, Recorded):
            return tensors[self.places[id(arguments)]]
        if isinstance(arguments, tuple | list):
            return type(arguments)(self._filled(argument, tensors) for argument in arguments)
        if isinstance(arguments, dict):
            return {key: self._filled(argument, tensors) for key, argument in arguments.items()}
        return arguments


def output(module: nn.Module, returned: Any) -> Any:
    """What of a module's output is one tensor with a row per sample.

    Of recurrent layers the sequence, without the last states, whose batch is not in front; of an LSTM's cell both
    states side by side.
    """
    if isinstance(module, nn.RNNBase) and isinstance(returned, tuple):
        return returned[0]
    if isinstance(module, nn.LSTMCell) and isinstance(returned, tuple):
        return torch.cat(returned, 1)
    return returned
