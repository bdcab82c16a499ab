"""Weights drawn from the Laplace approximation of a decoder's posterior, from the Gauss-Newton matrix of its fit."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from pullgeo.errors import OptionError, ShapeError
from pullgeo.jacobian.linearize import linearize
from pullgeo.jacobian.weights.parameters import ParameterLayout
from pullgeo.likelihood.base import Likelihood
from pullgeo.likelihood.ggn import ggn_diag
from pullgeo.manifold.float64.convert import with_tensors
from pullgeo.metric.implicit import Implicit
from pullgeo.metric.over_batch import batch_sum, sum_dense

Structure = Literal["diag", "kron", "last_layer"]

MOST_WEIGHTS = 4096
"""Weights of a last layer whose covariance is held as one matrix."""

_ZERO = 1e-12
"""Relative size of entries off the diagonal that are rounding."""


def laplace_samples(
    decoder: nn.Module,
    data: Float[Tensor, "n d"],
    likelihood: Likelihood,
    structure: str,
    samples: int,
    prior_precision: float,
    generator: torch.Generator,
) -> Float[Tensor, "s p"]:
    """Draws of ``N(θ, (H + τ)⁻¹)``, in the order of ``parameters_to_vector``; see `Ensemble.of_laplace`."""
    where = "Ensemble.of_laplace"
    if not isinstance(decoder, nn.Module) or not any(True for _ in decoder.parameters()):
        raise OptionError(f"{where}: decoder must be a module with weights, got {type(decoder).__name__}.")
    if structure not in get_args(Structure):
        raise OptionError(f"{where}: structure must be one of {', '.join(get_args(Structure))}, got {structure!r}.")
    if samples < 1 or not 0 < prior_precision < float("inf"):
        raise OptionError(
            f"{where}: expected samples >= 1 and a positive prior_precision, got {samples} and {prior_precision}."
        )
    if data.ndim != 2 or not len(data):
        raise ShapeError(f"{where}: data must be latents (n, d), at least one, got {tuple(data.shape)}.")
    with torch.no_grad():
        copy = _in_float64(decoder)
        z = data.detach().double()
        layout = ParameterLayout.of(copy)
        theta = layout.vector().detach()
        noise = torch.randn(samples, len(theta), generator=generator, dtype=torch.float64, device=generator.device)
        noise = noise.to(theta.device)
        if structure == "diag":
            moved = noise / (ggn_diag(copy, z, likelihood, reduction="sum") + prior_precision).sqrt()
        elif structure == "kron":
            moved = _kronecker(where, copy, z, likelihood, layout, noise, prior_precision)
        else:
            moved = _last_layer(where, copy, z, likelihood, layout, noise, prior_precision)
        return (theta + moved).to(next(decoder.parameters()).dtype)


@dataclass(frozen=True, eq=False)
class _Layer:
    """A layer as it was called on the data.

    Args:
        name: in the module's names.
        module: the layer.
        inputs: what it was called with.
        calls: how often it was called.
    """

    name: str
    module: nn.Module
    inputs: Tensor
    calls: int

    @property
    def plain(self) -> bool:
        """Whether it is a linear map of vectors, used once."""
        return type(self.module) is nn.Linear and self.calls == 1 and self.inputs.ndim == 2

    @property
    def rows(self) -> Float64[Tensor, "n i"]:
        """The inputs, with a one behind for the bias."""
        bias = self.module.bias is not None
        return torch.cat([self.inputs, torch.ones_like(self.inputs[:, :1])], 1) if bias else self.inputs

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters, the weight before the bias."""
        return tuple(f"{self.name}.{own}".lstrip(".") for own, _ in self.module.named_parameters(recurse=False))


def _in_float64(decoder: nn.Module) -> nn.Module:
    """A copy in float64 with weights that are leaves, so that the decoder's own stay as they are."""
    held = {id(p): nn.Parameter(p.detach().double()) for p in decoder.parameters()}
    buffers = {id(b): b.double() if b.is_floating_point() else b for b in decoder.buffers()}
    return with_tensors(decoder, held | buffers)


def _layers(copy: nn.Module, z: Tensor) -> list[_Layer]:
    """The layers that own parameters, in the order of their first call."""
    seen: dict[str, list[Tensor]] = {}
    hooks = []
    for name, layer in copy.named_modules():
        if next(layer.parameters(recurse=False), None) is not None:

            def note(_: nn.Module, given: tuple[Any, ...], name: str = name) -> None:
                seen.setdefault(name, []).append(given[0])

            hooks.append(layer.register_forward_pre_hook(note))
    copy(z)
    for hook in hooks:
        hook.remove()
    return [_Layer(name, copy.get_submodule(name), calls[0], len(calls)) for name, calls in seen.items()]


@contextmanager
def _with_bias(layer: _Layer) -> Iterator[tuple[str]]:
    """The name of the layer's bias, by which the output moves as by the layer's own output; zero where it has none."""
    module: Any = layer.module
    missing = module.bias is None
    if missing:
        module.bias = nn.Parameter(module.weight.new_zeros(module.out_features))
    try:
        yield (f"{layer.name}.bias".lstrip("."),)
    finally:
        if missing:
            module.bias = None


def _output_information(copy: nn.Module, z: Tensor, likelihood: Likelihood, layer: _Layer) -> Float64[Tensor, "o o"]:
    """``Σ_b K_bᵀ I K_b`` with K the derivative by the layer's output: the Gauss-Newton matrix of its bias."""
    with _with_bias(layer) as bias:
        return _dense(copy, z, likelihood, bias)


def _dense(copy: nn.Module, z: Tensor, likelihood: Likelihood, names: tuple[str, ...]) -> Float64[Tensor, "p p"]:
    y, J = linearize(copy, z, "weight", names)
    over_batch = batch_sum("Ensemble.of_laplace", J, "sum")
    if over_batch is None:
        raise OptionError("Ensemble.of_laplace: the derivative with respect to weights must be a graph of layers.")
    return sum_dense(Implicit(J, likelihood.fisher(y)), over_batch)


def _kronecker(
    where: str,
    copy: nn.Module,
    z: Tensor,
    likelihood: Likelihood,
    layout: ParameterLayout,
    noise: Float64[Tensor, "s p"],
    prior: float,
) -> Float64[Tensor, "s p"]:
    """Layer by layer ``H ≈ B ⊗ A / n``, with A the sum of squared inputs and B the information at the outputs."""
    layers = _layers(copy, z)
    counted = {id(p) for layer in layers for p in layer.module.parameters(recurse=False)}
    bad = [layer.name or type(layer.module).__name__ for layer in layers if not layer.plain]
    if bad or len(counted) != len(layout.parameters):
        raise OptionError(
            f"{where}: structure='kron' is for torch.nn.Linear layers on vectors that are called once and share no "
            f"weights; not so: {', '.join(bad) or 'parameters that no layer was called with'}. Use structure='diag'."
        )
    moved = torch.zeros_like(noise)
    for layer in layers:
        rows = layer.rows
        alpha, U = torch.linalg.eigh(rows.mT @ rows / len(z))
        beta, V = torch.linalg.eigh(_output_information(copy, z, likelihood, layer))
        precision = beta.clamp(min=0)[:, None] * alpha.clamp(min=0) + prior
        places = _places(layout, layer)
        drawn = noise[:, places] / precision.sqrt()
        moved[:, places] = torch.einsum("or,srj,ij->soi", V, drawn, U)
    return moved


def _last_layer(
    where: str,
    copy: nn.Module,
    z: Tensor,
    likelihood: Likelihood,
    layout: ParameterLayout,
    noise: Float64[Tensor, "s p"],
    prior: float,
) -> Float64[Tensor, "s p"]:
    """The full covariance of the last layer's weights; all others stay."""
    layer = _layers(copy, z)[-1]
    moved = torch.zeros_like(noise)
    size = sum(p.numel() for p in layer.module.parameters(recurse=False))
    if size <= MOST_WEIGHTS:
        # the layout of a selection keeps the module's order, and so do the names
        places = torch.cat([_place(layout, name).flatten() for name in layer.parameters])
        H = _dense(copy, z, likelihood, layer.parameters)
        moved[:, places] = _drawn(H, noise[:, places].mT, prior).mT
        return moved
    if not layer.plain or not _apart(_output_information(copy, z, likelihood, layer)):
        raise OptionError(
            f"{where}: the last layer has {size} weights, more than {MOST_WEIGHTS}, and its Gauss-Newton matrix has no "
            "block for each output. Use structure='kron' or 'diag'."
        )
    with _with_bias(layer) as bias:
        information = ggn_diag(copy, z, likelihood, parameters=bias)
    rows = layer.rows
    blocks = torch.stack([(rows * w[:, None]).mT @ rows for w in information.unbind(1)])
    places = _places(layout, layer)
    moved[:, places] = _drawn(blocks, noise[:, places].movedim(0, -1), prior).movedim(-1, 0)
    return moved


def _apart(information: Float64[Tensor, "o o"]) -> bool:
    """Whether no two outputs have anything to do with each other."""
    own = information.diagonal()
    return float((information - own.diag()).abs().max()) <= _ZERO * float(own.max())


def _drawn(H: Float64[Tensor, "*b p p"], noise: Float64[Tensor, "*b p s"], prior: float) -> Float64[Tensor, "*b p s"]:
    """Draws with covariance ``(H + τ)⁻¹ = L⁻ᵀ L⁻¹``."""
    precision = H + prior * torch.eye(H.shape[-1], dtype=H.dtype, device=H.device)
    factor = torch.linalg.cholesky(precision)
    return torch.linalg.solve_triangular(factor.mT, noise, upper=True)


def _places(layout: ParameterLayout, layer: _Layer) -> Tensor:
    """Where the weights stand in the vector, ``(out, in)``, or ``(out, in + 1)`` with the bias behind."""
    parts = [_place(layout, name) for name in layer.parameters]
    return parts[0] if len(parts) == 1 else torch.cat([parts[0], parts[1].unsqueeze(1)], 1)


def _place(layout: ParameterLayout, name: str) -> Tensor:
    sizes = [p.numel() for p in layout.parameters]
    number = layout.names.index(name)
    p = layout.parameters[number]
    return (sum(sizes[:number]) + torch.arange(p.numel(), device=p.device)).reshape(p.shape)
