"""Log-likelihoods of a network's output, with their gradients and Gauss-Newton matrices for inputs and weights.

They look at the *log-likelihood*, which grows as the fit improves: gradients point uphill, and `ggn` is that of the
log-likelihood, negative semidefinite. The positive matrices of the loss, and more distributions, are in
`pullgeo.likelihood`.
"""

import operator
from collections.abc import Callable
from typing import Any

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from pullgeo.errors import OptionError, TargetError
from pullgeo.jacobian.base import added_up
from pullgeo.jacobian.contractions import flat
from pullgeo.jacobian.linearize import linearize
from pullgeo.jacobian.recompute import over_chunks
from pullgeo.jacobian.weights.base import as_weight_kind
from pullgeo.jacobian.weights.batch_sum import BatchSum
from pullgeo.jacobian.weights.weight_graph import WeightGraph
from pullgeo.likelihood.base import Likelihood
from pullgeo.likelihood.bernoulli import Bernoulli
from pullgeo.likelihood.categorical import Categorical
from pullgeo.likelihood.gaussian import Gaussian
from pullgeo.metric.implicit import Implicit
from pullgeo.metric.over_batch import sum_diag
from pullgeo.nnj.arguments import checked_wrt
from pullgeo.nnj.weight_blocks import pull_blocks, sum_blocks, weight_layout
from pullgeo.numerics.chunking import WORKING_SET
from pullgeo.typing import Decoder, Parameters, Wrt

_CHOICES = {
    "aggregate_batch": ("return all", "sum", "average"),
    "metric_shape": ("full", "diag"),
    "metric_backprop": ("exact", "approx"),
}


class LogLikelihood(nn.Module):
    """Base of `LogGaussian`, `LogBernoulli` and `LogBinaryBernoulli`, which say what the network's output means.

    Args:
        aggregate_batch: ``"return all"`` keeps one answer for each sample; ``"sum"`` and ``"average"`` are over them.
        metric_shape: whether `ggn` is ``"full"`` or its ``"diag"``.
        metric_backprop: ``"exact"``, or ``"approx"`` to propagate only diagonals from layer to layer, in one backward
            pass; of the diagonal alone.

    Raises:
        OptionError: an option is something else, or ``"approx"`` is asked for with ``"full"``.
    """

    likelihood: Likelihood

    def __init__(
        self, aggregate_batch: str = "return all", metric_shape: str = "diag", metric_backprop: str = "exact"
    ) -> None:
        super().__init__()
        given = {
            "aggregate_batch": aggregate_batch,
            "metric_shape": metric_shape,
            "metric_backprop": metric_backprop,
        }
        for name, value in given.items():
            if value not in _CHOICES[name]:
                raise OptionError(f"{type(self).__name__}: {name} must be one of {_CHOICES[name]}, got {value!r}.")
        if (metric_shape, metric_backprop) == ("full", "approx"):
            raise OptionError(
                f'{type(self).__name__}: metric_backprop="approx" propagates diagonals, so there is no "full" matrix '
                'at the end. Use metric_shape="diag", or metric_backprop="exact".'
            )
        self.aggregate_batch = aggregate_batch
        self.metric_shape = metric_shape
        self.metric_backprop = metric_backprop

    def forward(
        self, x: Shaped[Tensor, "b *x"], model: Decoder, target: Shaped[Tensor, "b *t"] | None = None
    ) -> Float[Tensor, "..."]:
        """``log p(target | model(x))``, ``(b,)`` or aggregated.

        Raises:
            TargetError: there is no target, or it holds values that cannot be.
            ShapeError: its shape does not fit the output.
        """
        val = model(x)
        return self._aggregated(self._log_prob(val, self._target("forward", val, target)))

    def gradient(
        self,
        x: Shaped[Tensor, "b *x"],
        model: Decoder,
        target: Shaped[Tensor, "b *t"] | None = None,
        wrt: str = "weight",
        parameters: Parameters = "all",
    ) -> Float[Tensor, "..."] | None:
        """``∂ log p/∂x`` or ``∂ log p/∂θ``, ``(b, n)`` or aggregated ``(n,)``; None for weights if there are none.

        Raises:
            OptionError: ``wrt`` is neither ``"input"`` nor ``"weight"``.
            TargetError, ShapeError: as `forward`.

        Cost: one forward and one backward pass.
        """
        wrt_ = checked_wrt(f"{type(self).__name__}.gradient", wrt)
        if _without_weights(model, wrt_):
            return None
        val, J = linearize(model, x, wrt_, parameters)
        uphill = -self.likelihood.gradient(val, self._target("gradient", val, target)).unsqueeze(0)
        if isinstance(J, WeightGraph) and self.aggregate_batch != "return all":
            return self._of_sum(_summed_pull(J, uphill), len(x))
        return self._aggregated(flat(J.pull(uphill)).squeeze(0))

    def ggn(
        self,
        x: Shaped[Tensor, "b *x"],
        model: Decoder,
        target: Shaped[Tensor, "b *t"] | None = None,
        wrt: str = "weight",
        parameters: Parameters = "all",
    ) -> Float[Tensor, "..."] | list[Any] | None:
        """``Jᵀ H J`` with ``H`` the Hessian of ``log p`` with respect to the output: negative semidefinite.

        Args:
            x: the points.
            model: any network.
            target: not needed, as the Hessian does not depend on it.
            wrt: ``"input"`` or ``"weight"``.
            parameters: which parameters are the weights, as for `pullgeo.linearize`.

        Returns:
            The diagonal ``(b, n)``, or for ``metric_shape="full"`` ``(b, n, n)``, and with respect to the weights of a
            container the blocks of its layers, nested as `jTmjp` returns them. Aggregated, all without b.

        Raises:
            OptionError: ``wrt`` is neither ``"input"`` nor ``"weight"``.

        Cost: min(n, r) passes, r being the number of outputs; ``"approx"`` costs one.
        """
        wrt_ = checked_wrt(f"{type(self).__name__}.ggn", wrt)
        if _without_weights(model, wrt_):
            return None
        val, J = linearize(model, x, wrt_, parameters)
        fisher = self.likelihood.fisher(val)
        over_batch = BatchSum(J) if isinstance(J, WeightGraph) and self.aggregate_batch != "return all" else None
        if self.metric_backprop == "approx":
            values = fisher.diag().expand(len(x), -1).reshape(1, *val.shape)
            if over_batch is not None:
                return self._of_sum(-over_batch.pull_squared_layerwise(values).squeeze(0), len(x))
            return self._aggregated(-flat(J.pull_squared_layerwise(values)).squeeze(0))
        if self.metric_shape == "diag":
            if over_batch is not None:
                return self._of_sum(-sum_diag(Implicit(J, fisher), over_batch), len(x))
            return self._aggregated(-fisher.pullback(J).diag())
        layout = None
        if isinstance(J, WeightGraph) and isinstance(model, nn.Module):
            layout = weight_layout(model, x.device, J.layout)
        if isinstance(layout, list):
            pulled = Implicit(J, fisher)
            if over_batch is not None:
                return self._of_sum(_mapped(operator.neg, sum_blocks(pulled, layout)), len(x))
            return _mapped(operator.neg, pull_blocks(pulled, layout))
        return self._aggregated(-fisher.pullback(J).dense())

    def _log_prob(self, val: Tensor, target: Tensor) -> Tensor:
        return -self.likelihood.nll(val, target)

    def _target(self, where: str, val: Tensor, target: Tensor | None) -> Tensor:
        if target is None:
            raise TargetError(f"{type(self).__name__}.{where}: there is no target. Only ggn does without one.")
        return target

    def _aggregated(self, answer: Tensor) -> Tensor:
        if self.aggregate_batch == "return all":
            return answer
        return answer.sum(0) if self.aggregate_batch == "sum" else answer.mean(0)

    def _of_sum(self, total: Any, batch: int) -> Any:
        return _mapped(lambda t: t / batch, total) if self.aggregate_batch == "average" else total


class LogGaussian(LogLikelihood):
    """``-½ ‖model(x) - target‖²``: a Gaussian of unit variance, without the constant that normalises it.

    Example:
        >>> import torch
        >>> from pullgeo import nnj
        >>> LogGaussian()(torch.zeros(1, 2), nnj.Identity(), torch.tensor([[3.0, 4.0]]))
        tensor([-12.5000])
    """

    likelihood = Gaussian()

    def _log_prob(self, val: Tensor, target: Tensor) -> Tensor:
        residual = self.likelihood.gradient(val, target)  # of unit variance
        return -0.5 * residual.square().flatten(1).sum(1) if val.ndim > 1 else -0.5 * residual.square()


class LogBernoulli(LogLikelihood):
    """``log p`` of one class among several; the output holds logits, with the classes along axis 1.

    Targets are one-hot vectors or other probabilities of the output's shape, or class indices.

    Example:
        >>> import torch
        >>> from pullgeo import nnj
        >>> LogBernoulli(metric_shape="full").ggn(torch.zeros(1, 2), nnj.Identity(), wrt="input")
        tensor([[[-0.2500,  0.2500],
                 [ 0.2500, -0.2500]]])
    """

    likelihood = Categorical()

    def _target(self, where: str, val: Tensor, target: Tensor | None) -> Tensor:
        target = super()._target(where, val, target)
        return target.to(val.dtype) if target.shape == val.shape else target


class LogBinaryBernoulli(LogLikelihood):
    """``Σ log p`` of zeros and ones, one logit for each.

    Example:
        >>> import torch
        >>> from pullgeo import nnj
        >>> LogBinaryBernoulli()(torch.tensor([[-1e4, 1e4]]), nnj.Identity(), torch.tensor([[0.0, 1.0]]))
        tensor([0.])
    """

    likelihood = Bernoulli()


def _without_weights(model: Decoder, wrt: Wrt) -> bool:
    return wrt == "weight" and isinstance(model, nn.Module) and not any(True for _ in model.parameters())


def _summed_pull(J: WeightGraph, W: Tensor) -> Float[Tensor, " p"]:
    """``Σ_b J_bᵀ W_b`` for a stack of one, with the weights of some samples of one layer at a time."""
    found: dict[int, Tensor] = {}
    for own, delta in J.sweep(lambda J, w: J.pull(w), W):
        kind = as_weight_kind(own.J)
        parts = WORKING_SET.slices(kind.signature.batch, kind.signature.n_in * W.element_size())
        terms = over_chunks(parts, lambda part, kind=kind, w=delta: kind.at(part).pull(w[:, part]).sum((0, 1)))  # type: ignore[misc]
        total = added_up(terms)
        for p, piece in own.split(W.new_zeros(kind.signature.n_in) if total is None else total):
            found[id(p)] = found[id(p)] + piece if id(p) in found else piece
    return J.in_order(found)


def _mapped(function: Callable[[Tensor], Tensor], nested: Any) -> Any:
    """A function of every tensor in nested lists."""
    return [_mapped(function, entry) for entry in nested] if isinstance(nested, list) else function(nested)
