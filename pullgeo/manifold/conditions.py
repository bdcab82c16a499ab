"""Which part of a model is the decoder, and what it takes besides latents."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from pullgeo._torch.plain_memory import outside_inference
from pullgeo.errors import OptionError
from pullgeo.manifold.float64.as_module import as_module
from pullgeo.typing import Decoder


def decoder_of(model: Any) -> Decoder:
    """What a model decodes latents by: its ``decode`` or ``decoder`` if it encodes as well, else itself.

    Raises:
        OptionError: it is a class, or nothing that can be called.

    Example:
        >>> import torch
        >>> class Autoencoder(nn.Module):
        ...     def encode(self, x):
        ...         return x[:, :2]
        ...
        ...     def decode(self, z):
        ...         return torch.cat([z, z], 1)
        ...
        ...     def forward(self, x):
        ...         return self.decode(self.encode(x))
        >>> decoder_of(Autoencoder())(torch.ones(1, 2))
        tensor([[1., 1., 1., 1.]])
    """
    if isinstance(model, type):
        raise OptionError(
            f"PullbackManifold: decoder must be a torch.nn.Module or a function, got the class {model.__name__}. Make "
            f"one of it, {model.__name__}(...), load its weights, and pass that."
        )
    for inverse, name in (("encode", "decode"), ("encoder", "decoder")):
        found = getattr(model, name, None)
        if callable(getattr(model, inverse, None)) and callable(found):
            return found
    if not callable(model):
        raise OptionError(
            f"PullbackManifold: decoder must be a torch.nn.Module or a function, got {type(model).__name__}."
        )
    return model


def conditioned(decoder: Decoder, conditions: Mapping[str, Any] | None) -> Decoder:
    """The decoder with further arguments, the same for all latents.

    Raises:
        OptionError: the arguments are no mapping of names.
    """
    if conditions is None:
        return decoder
    if not isinstance(conditions, Mapping) or not all(isinstance(name, str) for name in conditions):
        raise OptionError(
            "PullbackManifold: conditions must be a dict of the decoder's further arguments by name, such as "
            f"{{'library': torch.tensor([[8.0]])}}, got {type(conditions).__name__}."
        )
    for name, value in conditions.items():
        if isinstance(value, Tensor) and value.ndim and len(value) != 1:
            raise OptionError(
                f"PullbackManifold: conditions[{name!r}] has shape {tuple(value.shape)}; expected one row, (1, ...), "
                "which is repeated for each latent: curves pass through latents that have no rows of their own. Take "
                f"one, such as {name}.mean(0, keepdim=True)."
            )
    return Conditioned(decoder, conditions)


class Conditioned(nn.Module):
    """``z -> decoder(z, **conditions)``; tensors have a row for each latent."""

    def __init__(self, decoder: Decoder, conditions: Mapping[str, Any]) -> None:
        super().__init__()
        self.decoder = as_module(decoder)
        self.constants = {name: value for name, value in conditions.items() if not isinstance(value, Tensor)}
        self.names = [name for name in conditions if name not in self.constants]
        for number, name in enumerate(self.names):
            self.register_buffer(f"condition{number}", outside_inference(conditions[name]), persistent=False)

    def forward(self, z: Tensor) -> Any:
        """The decoder's value."""
        held = {}
        for number, name in enumerate(self.names):
            value = getattr(self, f"condition{number}")
            held[name] = value.expand(len(z), *value.shape[1:]) if value.ndim else value
        return self.decoder(z, **held, **self.constants)
