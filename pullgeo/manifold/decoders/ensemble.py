"""Decoders with uncertainty as maps, whose Euclidean pullback is the expected metric."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from pullgeo.errors import ModuleError, OptionError, ShapeError
from pullgeo.likelihood.base import Likelihood
from pullgeo.manifold.decoders.laplace import laplace_samples
from pullgeo.manifold.float64.as_module import as_module, given
from pullgeo.manifold.float64.convert import with_tensors
from pullgeo.numerics.progress import with_progress
from pullgeo.typing import Decoder

_DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


class Ensemble(nn.Module):
    """Several decoders as one map ``z -> (f_1(z), ..., f_S(z)) / √S``, outputs flattened.

    Its Euclidean pullback metric is the average ``1/S Σ J_sᵀJ_s`` of the members' metrics, the expected metric over
    random decoders. Lengths take the same member at both ends of a segment; members drawn anew at every point would add
    their variance to every segment, and lengths would grow without bound as segments become short.

    Args:
        members: the decoders, each ``(b, d) -> (b, *out)``: retrained networks, samples of weights (`of_weights`) or
            of dropout masks (`of_dropout`).

    Raises:
        OptionError: there are none, or one cannot be called.

    Source: Syrota, Moreno-Muñoz, Hauberg, *Decoder ensembling for learned latent geometries*, 2024.

    Example:
        >>> import torch
        >>> from pullgeo import PullbackManifold
        >>> from pullgeo.manifold import Ensemble
        >>> members = [torch.nn.Linear(2, 5) for _ in range(3)]
        >>> z = torch.zeros(1, 2)
        >>> G = PullbackManifold(Ensemble(members)).metric(z).dense()
        >>> average = sum(PullbackManifold(f).metric(z).dense() for f in members) / 3
        >>> torch.allclose(G, average)
        True
    """

    def __init__(self, members: Sequence[Decoder]) -> None:
        super().__init__()
        if not len(members) or not all(callable(member) for member in members):
            raise OptionError(f"Ensemble: expected at least one decoder, modules or functions; got {members!r}.")
        self.count = len(members)
        for number, member in enumerate(members):
            setattr(self, f"member{number}", as_module(member))

    @classmethod
    def of_weights(cls, module: nn.Module, samples: Float[Tensor, "s p"]) -> "Ensemble":
        """The decoder with each of several weight vectors, such as samples from a Laplace approximation.

        Args:
            module: the decoder; it is not touched.
            samples: weights in the order of ``torch.nn.utils.parameters_to_vector(module.parameters())``. Gradients
                flow back to them.

        Raises:
            ShapeError: the vectors do not have as many entries as the module has weights.
        """
        parameters = list(module.parameters())
        size = parameters_to_vector(parameters).numel() if parameters else 0
        if samples.ndim != 2 or samples.shape[1] != size:
            raise ShapeError(
                f"Ensemble.of_weights: samples must have shape (s, {size}), one vector of the module's weights each, "
                f"got {tuple(samples.shape)}."
            )
        members = []
        for sample in samples:
            pieces = sample.split([p.numel() for p in parameters])
            drawn = {id(p): piece.view_as(p) for p, piece in zip(parameters, pieces, strict=True)}
            shared = {id(b): b for b in module.buffers()}
            members.append(with_tensors(module, drawn | shared))
        return cls(members)

    @classmethod
    def of_dropout(
        cls, module: nn.Module, z: Float[Tensor, "1 d"], samples: int, generator: torch.Generator
    ) -> "Ensemble":
        """The decoder with several dropout masks drawn once and kept: Monte Carlo dropout.

        Args:
            module: a decoder with layers ``Dropout`` or ``Dropout1d`` to ``3d``; it is not touched, and the members
                share its weights.
            z: one latent, to see of which shape the masks have to be.
            samples: the number of members.
            generator: source of the masks.

        Raises:
            OptionError: no dropout layer takes part, or ``samples`` is less than one.
        """
        if samples < 1:
            raise OptionError(f"Ensemble.of_dropout: samples must be at least 1, got {samples}.")
        tensors = {id(t): t for t in (*module.parameters(), *module.buffers())}
        template = with_tensors(module, tensors).eval()
        shapes = _dropout_inputs(template, z)
        if not shapes:
            raise OptionError("Ensemble.of_dropout: the decoder calls no dropout layer, so there is nothing to draw.")
        return cls([_masked(template, tensors, shapes, z, generator) for _ in range(samples)])

    @classmethod
    @with_progress()
    def of_laplace(
        cls,
        decoder: nn.Module,
        data: Float[Tensor, "n d"],
        likelihood: Likelihood,
        structure: str = "diag",
        *,
        samples: int = 10,
        prior_precision: float = 1.0,
        generator: torch.Generator,
        progress: bool = False,
    ) -> "Ensemble":
        """Decoders drawn from the Laplace approximation ``N(θ, (H + τ)⁻¹)`` of the posterior of the weights.

        ``H = Σ_b J_bᵀ I(f(z_b)) J_b`` is the Gauss-Newton matrix of the fit, exact where the structure keeps it.

        Args:
            decoder: a trained module; its weights θ are taken as the posterior's maximum. It is not touched.
            data: the latents at which it was fitted, all of them: the matrix is a sum.
            likelihood: what its output means, such as ``Gaussian(sigma)`` or ``Bernoulli()``.
            structure: ``"diag"``, the exact diagonal of H; ``"kron"``, layer by layer a Kronecker product
                ``B ⊗ A / n`` of squared inputs and of the information at the outputs, for ``Linear`` layers;
                ``"last_layer"``, the full matrix of the last layer, whose weights alone are drawn: of any layer up to
                4096 weights, beyond that of ``Linear`` ones whose outputs are independent.
            samples: the number of members.
            prior_precision: ``τ``, one over the variance of the weights' Gaussian prior.
            generator: source of the draws.
            progress: show a progress bar, counting parts of the products with weights.

        Raises:
            OptionError: an option is none of these, or the structure does not fit the decoder's layers.
            ShapeError: ``data`` is not ``(n, d)``, or the likelihood does not take the output.

        Cost: as many backward passes of the data as the decoder has outputs; for ``"kron"`` once for each layer.

        Source: MacKay, *A Practical Bayesian Framework for Backpropagation Networks*, 1992; Ritter, Botev, Barber, *A
        Scalable Laplace Approximation for Neural Networks*, ICLR 2018; Daxberger et al., *Laplace Redux*, NeurIPS 2021.

        Example:
            >>> from pullgeo.likelihood import Gaussian
            >>> decoder = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Tanh(), torch.nn.Linear(4, 5))
            >>> z = torch.randn(20, 2)
            >>> drawn = Ensemble.of_laplace(decoder, z, Gaussian(0.1), "kron", generator=torch.Generator())
            >>> len(drawn.members)
            10
        """
        drawn = laplace_samples(decoder, data, likelihood, structure, samples, prior_precision, generator)
        return cls.of_weights(decoder, drawn)

    @property
    def members(self) -> tuple[Decoder, ...]:
        """The decoders."""
        return tuple(given(getattr(self, f"member{number}")) for number in range(self.count))

    def forward(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b D"]:
        """The members' flattened outputs, one after the other, divided by ``√S``."""
        return torch.cat(self._outputs(z), 1) / self.count**0.5

    def members_at(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b s D"]:
        """The members' flattened outputs."""
        return torch.stack(self._outputs(z), 1)

    def _outputs(self, z: Tensor) -> list[Tensor]:
        return [getattr(self, f"member{number}")(z).flatten(1) for number in range(self.count)]


class MeanAndDeviation(nn.Module):
    """A Gaussian decoder as one map ``z -> (μ(z), σ(z))``, outputs flattened.

    A random decoder ``μ(z) + σ(z) ε`` has the expected pullback metric ``J_μᵀJ_μ + J_σᵀJ_σ``: the Euclidean one of this
    map.

    Args:
        mean: ``μ``, latents ``(b, d)`` to outputs ``(b, *out)``.
        deviation: ``σ``, latents to standard deviations of the same shape: an `RBFDeviation`, or any network.

    Raises:
        OptionError: one of them cannot be called.

    Source: Arvanitidis, Hansen, Hauberg, *Latent Space Oddity*, ICLR 2018, equation 8; Tosi, Hauberg, Vellido,
    Lawrence, *Metrics for Probabilistic Geometries*, UAI 2014.

    Example:
        >>> import torch
        >>> from pullgeo import PullbackManifold
        >>> from pullgeo.manifold import MeanAndDeviation
        >>> mean = torch.nn.Linear(2, 5)
        >>> deviation = torch.nn.Sequential(torch.nn.Linear(2, 5), torch.nn.Softplus())
        >>> PullbackManifold(MeanAndDeviation(mean, deviation)).decode(torch.zeros(3, 2)).shape
        torch.Size([3, 10])
    """

    def __init__(self, mean: Decoder, deviation: Decoder) -> None:
        super().__init__()
        if not callable(mean) or not callable(deviation):
            raise OptionError(
                "MeanAndDeviation: mean and deviation must be modules or functions, got "
                f"{type(mean).__name__} and {type(deviation).__name__}."
            )
        self.mean = as_module(mean)
        self.deviation = as_module(deviation)

    def forward(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b D"]:
        """``(μ, σ)``, flattened."""
        return torch.cat([self.mean(z).flatten(1), self.deviation(z).flatten(1)], 1)


def mean_and_deviation(distribution: Any) -> Float[Tensor, "b D"]:
    """``(μ, σ)`` of a distribution of torch, flattened: the ``output=`` of decoders that return one.

    Raises:
        ModuleError: it has no mean and standard deviation.

    Example:
        >>> import torch
        >>> from pullgeo import PullbackManifold
        >>> from pullgeo.manifold import mean_and_deviation
        >>> net = torch.nn.Linear(2, 3)
        >>> decoder = lambda z: torch.distributions.Normal(net(z), net(z).exp())
        >>> PullbackManifold(decoder, output=mean_and_deviation).decode(torch.zeros(5, 2)).shape
        torch.Size([5, 6])
    """
    mean, deviation = (getattr(distribution, name, None) for name in ("mean", "stddev"))
    if not isinstance(mean, Tensor) or not isinstance(deviation, Tensor):
        raise ModuleError(
            f"mean_and_deviation: expected a torch.distributions.Distribution, got {type(distribution).__name__}. "
            "Give output= a function of your own that picks the tensor."
        )
    return torch.cat([mean.flatten(1), deviation.flatten(1)], 1)


class _Mask(nn.Module):
    """A dropout layer that has drawn."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.mask: Tensor
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.mask


def _dropout_inputs(module: nn.Module, z: Tensor) -> dict[str, torch.Size]:
    """Shapes of one sample at the input of each dropout layer."""
    shapes: dict[str, torch.Size] = {}

    def noting(name: str) -> Callable[[nn.Module, Any], None]:
        def note(layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            shapes[name] = arguments[0].shape[1:]

        return note

    hooks = [
        layer.register_forward_pre_hook(noting(name))
        for name, layer in module.named_modules()
        if isinstance(layer, _DROPOUT) and layer.p > 0
    ]
    with torch.no_grad():
        module(z)
    for hook in hooks:
        hook.remove()
    return shapes


def _masked(
    template: nn.Module,
    tensors: dict[int, Tensor],
    shapes: dict[str, torch.Size],
    z: Tensor,
    generator: torch.Generator,
) -> nn.Module:
    member = with_tensors(template, tensors)
    for name, shape in shapes.items():
        layer: Any = member.get_submodule(name)
        # layers for images drop whole channels
        whole = shape if isinstance(layer, nn.Dropout) else (*shape[:1], *(1 for _ in shape[1:]))
        keep = torch.rand(whole, generator=generator, device=generator.device) >= layer.p
        mask = _Mask((keep / max(1 - layer.p, torch.finfo(z.dtype).tiny)).to(z))
        if not name:
            return mask
        parent, _, own = name.rpartition(".")
        setattr(member.get_submodule(parent), own, mask)
    return member
