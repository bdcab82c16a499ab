"""What decoders return, read: tensors, tuples, dicts, model outputs and distributions."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch import distributions as td
from torch.nn.parameter import is_lazy

from pullgeo._torch.grad_mode import is_transformed
from pullgeo._torch.guard import Guard
from pullgeo._torch.plain_memory import outside_inference
from pullgeo._torch.unvalidated import unvalidated
from pullgeo.errors import ModuleError, OptionError, PullgeoError, ShapeError
from pullgeo.jacobian.boundary import FAILURES
from pullgeo.jacobian.checks import check_fixed
from pullgeo.jacobian.returned import contents, shape_of
from pullgeo.jacobian.reverse import gradients_on
from pullgeo.likelihood.mixture_layout import MixtureLayout, innermost
from pullgeo.likelihood.mixture_nodes import MonteCarlo
from pullgeo.manifold.ambient.fisher_rao import TRANSFORMS, Chart, chart_of, parameters_of

Output = Callable[[Any], Any] | str | int
"""A function of what a decoder returns; the key, position or attribute of a part of it; or ``"mean+std"``, and
``"mean+logstd"``, ``"mean+var"``, ``"mean+logvar"`` for pairs."""

MAIN = ("sample", "logits", "reconstruction", "recon_x")
"""What libraries call the one output of a decoder among others: diffusers, transformers, pythae."""

_MEANS = ("mean", "mu", "loc")
_SCALES: dict[str, tuple[tuple[str, ...], Callable[[Tensor], Tensor]]] = {
    "mean+std": (("std", "stddev", "sigma", "scale"), lambda s: s),
    "mean+logstd": (("logstd", "log_std", "logsigma", "log_sigma", "log_scale", "logscale"), torch.exp),
    "mean+var": (("var", "variance"), torch.sqrt),
    "mean+logvar": (("logvar", "log_var", "log_variance", "logvariance"), lambda s: (0.5 * s).exp()),
}
_ROWS = 3


@dataclass(frozen=True)
class Pick:
    """The entry of a mapping or a sequence, or the attribute of an object: a tensor or a distribution.

    Args:
        key: a position in tuples and lists; a key of mappings, or the name of an attribute.

    Raises:
        ModuleError: what is given has no such part.

    Example:
        >>> import torch
        >>> Pick("mean")({"mean": torch.zeros(2)}), Pick(1)((None, torch.ones(2)))
        (tensor([0., 0.]), tensor([1., 1.]))
    """

    key: str | int

    def __call__(self, returned: Any) -> Any:
        """The part."""
        value = part_of(returned, self.key)
        if value is None:
            whole = isinstance(returned, Tensor)
            got = f"{shape_of(returned)}, which needs no output=" if whole else f"which holds {_listed(returned)}"
            raise ModuleError(
                f"PullbackManifold: output={self.key!r} names no tensor of what the decoder returns, a "
                f"{type(returned).__name__} {got}."
            )
        lacking = isinstance(value, Tensor) and len(value) > 0 and bool(value.isnan().all())
        # latents where the decoder is not finite have no mean either, and are no reason to refuse the others
        if lacking and isinstance(returned, td.Distribution) and _is_finite(returned):
            raise ModuleError(
                f"PullbackManifold: a {type(returned).__name__} has no {self.key}. Give output='probs', or leave "
                "output out: distributions are then measured by their Fisher-Rao metric."
            )
        return value


def _is_finite(distribution: td.Distribution) -> bool:
    """Whether the parameters of a distribution, and of those that it is made of, are finite numbers."""
    parts = vars(distribution).values()
    return all(
        _is_finite(part) if isinstance(part, td.Distribution) else bool(part.isfinite().all())
        for part in parts
        if isinstance(part, td.Distribution | Tensor)
    )


@dataclass(frozen=True)
class MeanAndScale:
    """``(μ, σ)``, flattened, of a Gaussian decoder: a distribution, a pair, or something with two such names.

    Args:
        kind: ``"mean+std"``, ``"mean+logstd"``, ``"mean+var"`` or ``"mean+logvar"``: what the second one is.

    Raises:
        ModuleError: what is given has no mean and scale.

    Example:
        >>> import torch
        >>> MeanAndScale("mean+logvar")((torch.zeros(1, 2), torch.zeros(1, 2)))
        tensor([[0., 0., 1., 1.]])
    """

    kind: str

    def __call__(self, returned: Any) -> Float[Tensor, "b D"]:
        """``(μ, σ)``."""
        names, std_of = _SCALES[self.kind]
        if isinstance(returned, td.Distribution):
            names = ("stddev",) if self.kind == "mean+std" else ()
        named = not isinstance(returned, tuple | list) or hasattr(returned, "_fields")
        if named:
            mean, scale = (_first(returned, keys) for keys in (_MEANS, names))
        else:
            mean, scale = returned if len(returned) == 2 else (None, None)
        if not isinstance(mean, Tensor) or not isinstance(scale, Tensor):
            wanted = f"one of {', '.join(_MEANS)} and one of {', '.join(names)}" if named and names else "a pair"
            fix = (
                "Write output='mean+std'."
                if isinstance(returned, td.Distribution)
                else "Give output= a function of your own that joins them."
            )
            raise ModuleError(
                f"PullbackManifold: output={self.kind!r} takes {wanted}, or a torch distribution with 'mean+std'; the "
                f"decoder returns a {type(returned).__name__} which holds {_listed(returned)}. {fix}"
            )
        std = std_of(scale)
        try:
            std = std.expand(mean.shape)
        except RuntimeError as error:
            raise ShapeError(
                f"PullbackManifold: output={self.kind!r} met a mean of shape {tuple(mean.shape)} and a scale of shape "
                f"{tuple(std.shape)}. They must be of the same shape."
            ) from error
        return torch.cat([mean.flatten(1), std.flatten(1)], 1)


def part_of(returned: Any, key: str | int) -> Tensor | td.Distribution | None:
    """The tensor or distribution at a key, a position or an attribute, or None."""
    try:
        if isinstance(key, str) and not isinstance(returned, Mapping):
            value = getattr(returned, key)
        else:
            value = None if isinstance(returned, Tensor) else returned[key]
    except (LookupError, TypeError, AttributeError, NotImplementedError):
        return None
    return value if isinstance(value, Tensor | td.Distribution) else None


def as_picker(output: Any) -> Callable[[Any], Any] | None:
    """The function that picks a tensor or a distribution.

    Raises:
        OptionError: it is neither a function nor a key, position or name.
    """
    if isinstance(output, str) and output in _SCALES:
        return MeanAndScale(output)
    if isinstance(output, str | int) and not isinstance(output, bool):
        return Pick(output)
    if output is None or (callable(output) and not isinstance(output, type)):
        return output
    raise OptionError(
        "PullbackManifold: output must be a function of what the decoder returns, such as lambda out: out.mean, or the "
        f"key, position or attribute of the tensor in it, or one of {', '.join(map(repr, _SCALES))}, got {output!r}."
    )


class Reading:
    """What a decoder returns, found out with its first latents and kept.

    A tensor is taken as it is. Of anything else the one part with a row for each latent is taken, or the one that has
    a name in `MAIN`; a distribution, given or so taken, is measured in a `Chart` of its family.

    Args:
        output: what the user says is to be taken.
        draws: what the user says of expectations over mixtures.
    """

    def __init__(self, output: Callable[[Any], Any] | None, draws: MonteCarlo | None = None) -> None:
        self.settled = False
        self.pick: Pick | None = None
        self.chart: Chart | None = None
        self.text = "" if output is None else _text(output)
        self.draws = draws
        self._output = output
        self._said = output is not None

    def __reduce__(self) -> tuple[Any, ...]:
        # a copy finds out for itself: what was seen is no part of a manifold's value
        return Reading, (self._output, self.draws)

    def settle(self, decoder: Callable[[Tensor], Any], z: Float[Tensor, "n d"]) -> None:
        """Call the decoder with a latent and look at what it returns; what fails is left for later calls to report.

        Raises:
            OptionError: it is a distribution that has no Fisher-Rao metric here.
        """
        if self.settled or z.ndim != 2 or not len(z) or not z.is_floating_point() or is_transformed():
            return
        with gradients_on(), Guard():
            probe = outside_inference(z[:1]).detach().clone().repeat(_ROWS, 1).requires_grad_()
            try:
                owner = decoder.__self__ if isinstance(decoder, MethodType) else decoder
                if isinstance(owner, nn.Module):
                    if any(map(is_lazy, owner.parameters())):
                        return
                    check_fixed(owner)
                value = decoder(probe.clone())
            except (*FAILURES, PullgeoError):
                return
            self._read(value, probe)

    def _read(self, value: Any, probe: Tensor) -> None:
        if not isinstance(value, Tensor | td.Distribution) and not self._said:
            key = _sole(value)
            if key is None:
                return
            self.pick, self.text = Pick(key), f", output={key!r}"
            value = self.pick(value)
        if isinstance(value, td.Distribution):
            if tuple(value.batch_shape[:1]) != (_ROWS,):
                raise ModuleError(
                    f"PullbackManifold: the decoder returns a {_family(value)} with batch_shape "
                    f"{tuple(value.batch_shape)} for {_ROWS} latents. Its first axis must be the batch."
                )
            self.chart = chart_of(value, _moves(value, probe), self.draws)
            self.text += f", Fisher-Rao of {_family(value)}"
        elif self.draws is not None:
            raise OptionError(
                f"PullbackManifold: ambient={self.draws} is for decoders of mixtures, and this one returns a "
                f"{type(value).__name__}. Leave ambient out, or let output make a mixture of it."
            )
        self.settled = True

    @property
    def is_plain(self) -> bool:
        """Whether nothing of what a decoder returns is picked or converted."""
        return self.pick is None and self.chart is None

    def stages(self) -> tuple[Callable[[Any], Any] | None, ...]:
        """What follows on the decoder and the user's own choice."""
        return (self.pick, None if self.chart is None else Point(self.chart.point))

    def shown(self) -> tuple[Callable[[Any], Any] | None, ...]:
        """The same, to look at: the mean of a distribution, or probabilities where it has none."""
        return (self.pick, None if self.chart is None else mean_of)


@dataclass(frozen=True)
class Point:
    """Coordinates of a distribution in a chart of its family."""

    point: Callable[[Any], Tensor]

    def __call__(self, returned: Any) -> Tensor:
        """The coordinates."""
        if not isinstance(returned, td.Distribution):
            raise ModuleError(
                f"PullbackManifold: the decoder returned a distribution first, and a {type(returned).__name__} now."
            )
        return self.point(innermost(returned))


def mean_of(distribution: td.Distribution) -> Tensor:
    """The mean, or the probabilities of classes; or the image of the base's mean, where torch knows no mean itself."""
    inner = innermost(distribution)
    if isinstance(inner, td.Categorical | td.RelaxedBernoulli | td.RelaxedOneHotCategorical):
        return inner.probs
    if isinstance(inner, td.TransformedDistribution) and type(inner).mean is td.Distribution.mean:
        image = mean_of(inner.base_dist)
        for transform in inner.transforms:
            image = transform(image)
        return image
    return distribution.mean


class Through(nn.Module):
    """A decoder followed by what picks the tensor out of its result, or maps that on."""

    def __init__(self, stages: list[Callable[[Any], Any]]) -> None:
        super().__init__()
        self.count = len(stages)
        for number, stage in enumerate(stages):
            setattr(self, f"stage{number}", stage)

    @property
    def stages(self) -> list[Callable[[Any], Any]]:
        """What is done, one after the other."""
        return [getattr(self, f"stage{number}") for number in range(self.count)]

    def forward(self, z: Tensor) -> Any:
        """The value of the last stage."""
        value: Any = z
        with unvalidated():
            for stage in self.stages:
                value = stage(value)
        return value


def through(*stages: Callable[[Any], Any] | None) -> Callable[[Any], Any]:
    """One function of several, of which those that are None do nothing."""
    given = [stage for stage in stages if stage is not None]
    return given[0] if len(given) == 1 else Through(given)


def _sole(value: Any) -> str | int | None:
    """The key of the one part that has a row for each latent, or of the one among several that has a known name."""
    parts = [key for key, _, part in contents(value) if _has_rows(part)]
    if len(parts) > 1:
        parts = [key for key in parts if key in MAIN]
    return parts[0] if len(parts) == 1 else None


def _has_rows(part: Tensor | td.Distribution) -> bool:
    if isinstance(part, td.Distribution):
        return tuple(part.batch_shape[:1]) == (_ROWS,)
    return part.ndim > 0 and len(part) == _ROWS and part.is_floating_point()


def _moves(distribution: td.Distribution, probe: Tensor) -> frozenset[str]:
    """The parameters through which a distribution depends on the latent."""
    inner = innermost(distribution)
    if isinstance(inner, td.MixtureSameFamily):
        return frozenset()
    if type(inner) is td.TransformedDistribution:
        numbers = [value for transform in inner.transforms for value in _numbers(transform)]
        found = [TRANSFORMS] if any(_depends(value, probe) for value in numbers) else []
        return _moves(inner.base_dist, probe).union(found)
    names = parameters_of(inner)
    return frozenset(name for name in names if _depends(getattr(inner, name), probe)) or frozenset(names)


def _depends(value: Any, probe: Tensor) -> bool:
    if not isinstance(value, Tensor) or not value.requires_grad:
        return False
    return torch.autograd.grad(value.sum(), probe, retain_graph=True, allow_unused=True)[0] is not None


def _numbers(transform: td.Transform) -> Iterator[Any]:
    """What a transform holds, and what those hold that it consists of."""
    for value in vars(transform).values():
        for part in value if isinstance(value, list | tuple) else [value]:
            yield from _numbers(part) if isinstance(part, td.Transform) else (part,)


def _family(distribution: td.Distribution) -> str:
    inner = innermost(distribution)
    name = str(MixtureLayout.of(inner)) if isinstance(inner, td.MixtureSameFamily) else type(inner).__name__
    return name if inner is distribution else f"independent {name}"


def _first(returned: Any, keys: tuple[str, ...]) -> Any:
    return next((part for key in keys if (part := part_of(returned, key)) is not None), None)


def _listed(returned: Any) -> str:
    return ", ".join(f"{key!r} {shape_of(part)}" for key, _, part in contents(returned)) or "none"


def _text(output: Callable[[Any], Any]) -> str:
    if isinstance(output, Pick):
        return f", output={output.key!r}"
    if isinstance(output, MeanAndScale):
        return f", output={output.kind!r}"
    return f", output={getattr(output, '__name__', type(output).__name__)}"
