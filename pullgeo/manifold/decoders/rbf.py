"""A standard deviation that grows away from the data."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pullgeo._torch.plain_memory import outside_inference
from pullgeo.errors import OptionError, ShapeError
from pullgeo.numerics.progress import advance, stepped, with_progress

LEAST = 1e-3
"""The least error that is believed, in units of the root mean square of all errors."""

ROUNDING = 1e-6
"""The width of a cluster that is none, in units of that of all data: centres come from sums, and maybe in float32."""


class RBFDeviation(nn.Module):
    """``σ(z) = (W φ(z) + ζ)^(-½)`` with radial basis functions ``φ_k = exp(-λ_k ‖z - c_k‖²)``, for each output.

    The precision ``1/σ²`` is large near the centres and falls to ``ζ`` away from them, unlike that of a network, which
    extrapolates anyhow. With `MeanAndDeviation` it makes latent distances grow where there are no data.

    Args:
        centers: ``c_k``, ``(k, d)``.
        rates: ``λ_k``, ``(k,)``, positive, in units of one over the latents' squared.
        weights: ``W``, ``(D, k)``, not negative, in units of one over the outputs' squared.
        floor: ``ζ``, the least precision; the deviation never exceeds ``1/√ζ``.

    Raises:
        ShapeError, OptionError: the tensors do not fit together, or a number is out of its range.

    Source: Arvanitidis, Hansen, Hauberg, *Latent Space Oddity*, ICLR 2018, equations 10 and 11.

    Example:
        >>> import torch
        >>> from pullgeo.manifold import RBFDeviation
        >>> z = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> squared_errors = torch.full((200, 3), 0.01)  # (x - μ(z))²
        >>> sigma = RBFDeviation.fit(z, squared_errors, centers=8, floor=1e-2, generator=torch.Generator())
        >>> sigma(torch.tensor([[0.0, 0.0], [20.0, 0.0]])).amax(1)  # at the data, and far away
        tensor([ 0.1, 10.0], grad_fn=<AmaxBackward0>)
    """

    def __init__(
        self,
        centers: Float[Tensor, "k d"],
        rates: Float[Tensor, " k"],
        weights: Float[Tensor, "D k"],
        floor: float,
    ) -> None:
        super().__init__()
        if centers.ndim != 2 or rates.shape != centers.shape[:1] or weights.shape[1:] != rates.shape:
            raise ShapeError(
                "RBFDeviation: expected centers (k, d), rates (k,) and weights (D, k), got "
                f"{tuple(centers.shape)}, {tuple(rates.shape)} and {tuple(weights.shape)}."
            )
        if not floor > 0 or bool((rates <= 0).any()) or bool((weights < 0).any()):
            raise OptionError("RBFDeviation: floor and rates must be positive and weights not negative.")
        self.centers: Tensor
        self.rates: Tensor
        self.register_buffer("centers", outside_inference(centers))
        self.register_buffer("rates", outside_inference(rates))
        self.weights = nn.Parameter(outside_inference(weights))
        self.floor = floor

    @classmethod
    @with_progress()
    def fit(
        cls,
        latents: Float[Tensor, "n d"],
        squared_errors: Float[Tensor, "n *out"],
        *,
        centers: int = 64,
        floor: float,
        spread: float = 1.0,
        steps: int = 200,
        generator: torch.Generator,
        progress: bool = False,
    ) -> "RBFDeviation":
        """Centres by k-means of latents, rates from the width of clusters, weights by maximum likelihood.

        The weights maximise the likelihood of Gaussian errors ``Σ log β - β e²`` with ``β = W φ + ζ`` over ``W ≥ 0``, a
        concave problem, by multiplicative steps that never lower it; ``λ_k = ½ (spread · mean distance in cluster)⁻²``.

        Args:
            latents: where the data are.
            squared_errors: ``e² = (x - μ(z))²`` of the mean decoder there, for every output; flattened. An error counts
                as no less than a thousandth of the root mean square of all.
            centers: the number of basis functions.
            floor: ``ζ``.
            spread: widens the basis functions.
            steps: multiplicative steps.
            generator: source of the clusters' starts.
            progress: show a progress bar, counting steps.

        Raises:
            ShapeError, OptionError: there are fewer latents than centres, or errors are not one row for each latent; or
                basis functions are so narrow that some vanish at all latents, so that no weight of theirs is likelier
                than another.

        Cost: k-means, and ``steps`` products of ``(n, k)`` with ``(k, D)``.
        """
        errors = squared_errors.flatten(1)
        if latents.ndim != 2 or len(errors) != len(latents):
            raise ShapeError(
                f"RBFDeviation.fit: expected latents (n, d) and squared_errors (n, *out), got {tuple(latents.shape)} "
                f"and {tuple(squared_errors.shape)}."
            )
        if not 1 <= centers <= len(latents) or not spread > 0 or not floor > 0 or not _usable(errors):
            raise OptionError(
                f"RBFDeviation.fit: expected 1 <= centers <= {len(latents)}, spread > 0, floor > 0 and errors that are "
                f"finite, not negative and not all zero, got centers={centers}, spread={spread}, floor={floor}."
            )
        with torch.no_grad():
            z, e = latents.detach().double(), errors.detach().double()
            # an output without errors, such as a pixel that is always black, would have no bound
            e = e.clamp(min=LEAST**2 * float(e.mean()))
            middle, rates = _clusters(z, centers, spread, generator)
            phi = (-rates * torch.cdist(z, middle).square()).exp()
            # less than this is lost in rounding beside any other function, and its weight would be a ratio of zeros
            unseen = phi.amax(0) < torch.finfo(latents.dtype).eps
            if bool(unseen.any()):
                raise _NarrowError(
                    f"RBFDeviation.fit: with centers={centers} and spread={spread}, {int(unseen.sum())} of {centers} "
                    "basis functions vanish at all latents, the width of a cluster being that of its members around "
                    "the centre. Take a larger spread, 1 or 2, or choose it by RBFDeviation.select."
                )
            total_pull = phi.mT @ e
            # e² is 1/β on average: a start of the right size
            weights = (1 / e.mean(0)).unsqueeze(1).expand(-1, centers)
            for _ in range(steps):
                stepped()
                precision = phi @ weights.mT + floor
                weights = weights * ((1 / precision).mT @ phi) / total_pull.mT
        return cls(middle.to(latents), rates.to(latents), weights.to(latents), floor)

    @classmethod
    @with_progress("choice")
    def select(
        cls,
        latents: Float[Tensor, "n d"],
        squared_errors: Float[Tensor, "n *out"],
        *,
        floor: float,
        centers: Sequence[int] = (8, 16, 32, 64, 128),
        spreads: Sequence[float] = (0.5, 1.0, 2.0, 4.0),
        held_out: float = 0.2,
        steps: int = 200,
        generator: torch.Generator,
        progress: bool = False,
    ) -> "RBFDeviation":
        """`fit` with the number of centres and the bandwidth that are most likely for errors it has not seen.

        A share of the data is held out; each choice is fitted to the rest, and that with the largest held-out
        likelihood ``Σ log β - β e²`` is fitted again to all. Choices with more centres than data to fit are left out,
        and those whose basis functions are too narrow to be fitted.

        Args:
            latents: where the data are.
            squared_errors: ``e²`` there, as for `fit`.
            floor: ``ζ``, no choice of the data's: it says how uncertain places without data are.
            centers: numbers of centres to choose from.
            spreads: bandwidths to choose from, as ``spread`` of `fit`.
            held_out: the share that is held out.
            steps: as for `fit`.
            generator: source of the split and of the clusters' starts.
            progress: show a progress bar, counting choices.

        Raises:
            ShapeError, OptionError: as `fit`; or nothing is left to choose from, to fit or to hold
                out; or no choice has a finite likelihood.

        Cost: one `fit` for each choice, and one more.
        """
        n = len(latents)
        count = round(held_out * n)
        usable = [k for k in centers if k <= n - count]
        if not 0 < count < n or not usable or not len(spreads):
            raise OptionError(
                f"RBFDeviation.select: expected a share of {n} latents held out that leaves some on both sides, and at "
                f"least one spread and one number of centres that the rest suffices for, got held_out={held_out}, "
                f"centers={tuple(centers)}, spreads={tuple(spreads)}."
            )
        order = torch.randperm(n, generator=generator, device=generator.device).to(latents.device)
        test, train = order[:count], order[count:]
        errors = squared_errors.detach().flatten(1).double()
        unseen = errors[test].clamp(min=LEAST**2 * float(errors.mean()))
        best, chosen = -float("inf"), (usable[0], spreads[0])
        for k in usable:
            for spread in spreads:
                try:
                    fitted = cls.fit(
                        latents[train],
                        errors[train],
                        centers=k,
                        floor=floor,
                        spread=spread,
                        steps=steps,
                        generator=generator,
                    )
                except _NarrowError:
                    continue
                finally:
                    advance()
                with torch.no_grad():
                    precision = fitted(latents[test]).double() ** -2
                    score = float((precision.log() - precision * unseen).sum())
                if score > best:
                    best, chosen = score, (k, spread)
        if best == -float("inf"):
            raise OptionError(
                "RBFDeviation.select: no choice has a finite held-out likelihood. Take fewer centres or wider spreads."
            )
        k, spread = chosen
        return cls.fit(latents, squared_errors, centers=k, floor=floor, spread=spread, steps=steps, generator=generator)

    def forward(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b D"]:
        """``σ(z)``."""
        away = (z.unsqueeze(1) - self.centers).square().sum(2)
        return (torch.nn.functional.linear((-self.rates * away).exp(), self.weights) + self.floor).rsqrt()


class _NarrowError(OptionError):
    """Basis functions that vanish at all latents."""


def _usable(errors: Tensor) -> bool:
    return bool((errors >= 0).all() & torch.isfinite(errors).all() & (errors > 0).any())


def _clusters(
    z: Float[Tensor, "n d"], count: int, spread: float, generator: torch.Generator
) -> tuple[Float[Tensor, "k d"], Float[Tensor, " k"]]:
    from sklearn.cluster import KMeans  # takes most of a second to import, and only this function needs it

    seed = int(torch.randint(2**31 - 1, (), generator=generator, device=generator.device))
    found: Any = KMeans(count, n_init=1, random_state=seed).fit(z.cpu().numpy())
    middle = torch.as_tensor(found.cluster_centers_, dtype=z.dtype, device=z.device)
    label = torch.as_tensor(found.labels_, dtype=torch.long, device=z.device)
    away = (z - middle[label]).norm(dim=1)
    members = torch.bincount(label, minlength=count).to(z)
    width = torch.zeros_like(members).index_add(0, label, away) / members.clamp(min=1)
    # a cluster of one point has no width of its own, but for rounding: it takes the average
    known = width > ROUNDING * (z - z.mean(0)).norm(dim=1).mean()
    typical = width[known].mean() if bool(known.any()) else _gap(middle)
    return middle, 0.5 / (spread * torch.where(known, width, typical)).square()


def _gap(middle: Float[Tensor, "k d"]) -> Tensor:
    """The mean distance of centres to the nearest other one, or one."""
    apart = torch.cdist(middle, middle)
    nearest = apart.masked_fill(apart == 0, torch.inf).amin(1)
    near = nearest[torch.isfinite(nearest)]
    return near.mean() if len(near) else middle.new_ones(())
