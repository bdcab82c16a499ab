"""A module in float64, sample by sample, as a function of its input or of its weights."""

import copy
from dataclasses import dataclass

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from pullgeo.errors import DtypeError, ModuleError, OptionError
from pullgeo.typing import Decoder, Wrt


@dataclass(frozen=True, eq=False)
class Sample:
    """One sample as a batch of one, and the float64 module that it goes through.

    Attributes:
        module: a copy of the caller's module.
        point: ``(1, *in)``.
        wrt: what the derivative is taken with respect to.
    """

    module: Decoder
    point: Num[Tensor, "1 ..."]
    wrt: Wrt

    def graph(self) -> tuple[Float[Tensor, " n_out"], list[Tensor]]:
        """The flat output, and the leaves of its graph with respect to which it may be differentiated."""
        point = self.point.detach().clone()
        variables: list[Tensor] = [*_parameters(self.module)] if self.wrt == "weight" else [point.requires_grad_(True)]
        # Fused attention has no second derivative.
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            return self._output(point), variables

    def start(self) -> Float[Tensor, " n"]:
        """The sample, or the weights, as one vector."""
        if self.wrt == "input":
            return self.point.flatten()
        return nn.utils.parameters_to_vector(_parameters(self.module)).detach().clone()

    def at(self, vector: Float[Tensor, " n"]) -> Float[Tensor, " n_out"]:
        """The flat output where the sample, or the weights, are ``vector``; no graph."""
        with torch.no_grad():
            if self.wrt == "input":
                return self._output(vector.reshape(self.point.shape))
            # The module is our own copy, so its weights may be overwritten and put back.
            kept = self.start()
            nn.utils.vector_to_parameters(vector, _parameters(self.module))
            y = self._output(self.point)
            nn.utils.vector_to_parameters(kept, _parameters(self.module))
            return y

    def _output(self, point: Tensor) -> Tensor:
        y = self.module(point)
        if not isinstance(y, Tensor):
            raise ModuleError(f"oracles: the module must return a tensor, got {type(y).__name__}. Wrap it to pick one.")
        return y.double().flatten()


def per_sample(module: Decoder, x: Num[Tensor, "b ..."], wrt: Wrt) -> list[Sample]:
    """The samples of a batch, all through one float64 copy of the module."""
    if wrt not in ("input", "weight"):
        raise OptionError(f'oracles: wrt must be "input" or "weight", got {wrt!r}.')
    if wrt == "input" and not x.is_floating_point():
        raise DtypeError(f'oracles: a derivative with respect to {x.dtype} input does not exist; use wrt="weight".')
    x = x.detach().double() if x.is_floating_point() else x
    if isinstance(module, nn.Module):
        module = copy.deepcopy(module).double().requires_grad_(True)
    return [Sample(module, x[i : i + 1], wrt) for i in range(len(x))]


def sizes(module: Decoder, x: Num[Tensor, "b ..."], wrt: Wrt) -> tuple[int, int]:
    """n_out and n for a batch that may be empty."""
    probe = torch.zeros((1, *x.shape[1:]), dtype=x.dtype, device=x.device)
    sample = per_sample(module, probe, wrt)[0]
    return sample.graph()[0].numel(), sample.start().numel()


def flat_gradient(value: Float[Tensor, ""], variables: list[Tensor], create_graph: bool = False) -> Float[Tensor, " n"]:
    """The gradient of a scalar, with zeros for whatever it does not depend on."""
    gradients: tuple[Tensor | None, ...] = (None,) * len(variables)
    if value.requires_grad:
        gradients = torch.autograd.grad(
            value, variables, retain_graph=True, create_graph=create_graph, allow_unused=True
        )
    filled = [torch.zeros_like(v) if g is None else g for g, v in zip(gradients, variables, strict=True)]
    return torch.cat([gradient.flatten() for gradient in filled])


def _parameters(module: Decoder) -> list[nn.Parameter]:
    parameters = list(module.parameters()) if isinstance(module, nn.Module) else []
    if not parameters:
        raise ModuleError('oracles: wrt="weight" needs a module with parameters; this one has none. Use wrt="input".')
    return parameters


def rows(T: Tensor, leading: int) -> Tensor:
    """One dimension behind the leading ones, of size one where there is none."""
    return T.reshape(*T.shape[:leading], T.shape[leading:].numel())
