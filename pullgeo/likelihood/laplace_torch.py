"""Curvature for laplace-torch, from this library's products."""

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pullgeo.errors import OptionError
from pullgeo.jacobian.linearize import linearize
from pullgeo.likelihood.base import Likelihood
from pullgeo.likelihood.categorical import Categorical
from pullgeo.likelihood.gaussian import Gaussian
from pullgeo.likelihood.ggn import ggn, ggn_diag
from pullgeo.likelihood.sampled import sampled_ggn


@functools.cache
def laplace_backend() -> type:
    """The Gauss-Newton backend that laplace-torch takes as ``backend=``.

    It serves whatever this library linearizes: normalisation, attention, recurrent layers, skip connections, weights
    that are used twice. Diagonals are exact and never hold the Jacobian ``(b, C, P)`` that laplace-torch's own diagonal
    is computed from. Structures "diag" and "full" of all weights, of the last layer and of a subnetwork are served,
    exact or with ``stochastic=True``. Kronecker factors are not, as they are no exact products, and "gp" takes
    laplace-torch's own backends alone: leave ``backend`` to the default there. Parameters with ``requires_grad=False``
    do not count, as everywhere in laplace-torch.

    Returns:
        A subclass of ``laplace.curvature.GGNInterface``, the same at every call.

    Raises:
        OptionError: laplace-torch is not installed.

    Cost: as `ggn_diag` for a diagonal, as `ggn` for a full matrix.

    Source: Daxberger et al., *Laplace Redux: Effortless Bayesian Deep Learning*, 2021, section 2.

    Example:
        ::

            from laplace import Laplace
            from pullgeo.likelihood import laplace_backend

            la = Laplace(model, "classification", "all", "diag", backend=laplace_backend())
            la.fit(loader)
    """
    try:
        from laplace.curvature import GGNInterface
    except ImportError as error:
        raise OptionError(
            f'laplace_backend: laplace-torch cannot be imported ({error}). Install it: pip install "pullgeo[laplace]".'
        ) from error
    interface: Any = GGNInterface

    class PullgeoGGN(interface):
        """Generalised Gauss-Newton matrices of a model by `pullgeo.likelihood`."""

        def jacobians(self, x: Any, enable_backprop: bool = False) -> tuple[Tensor, Tensor]:
            """Jacobians ``(b, C, P)`` by the weights, and outputs ``(b, C)``."""
            with torch.set_grad_enabled(enable_backprop):
                f, J = linearize(self.model, _batch(x), "weight", "trainable")
                Js = J.dense().reshape(len(f), f[0].numel(), -1)
            if self.subnetwork_indices is not None:
                Js = Js[:, :, self.subnetwork_indices]
            return (Js, f) if enable_backprop else (Js.detach(), f.detach())

        functorch_jacobians = jacobians

        def gradients(self, x: Any, y: Tensor) -> tuple[Tensor, Tensor]:
            """Gradients of each sample's loss ``(b, P)``, and the sum of the losses."""
            with torch.no_grad():
                f, J = linearize(self.model, _batch(x), "weight", "trainable")
            with torch.enable_grad():
                outputs = f.detach().requires_grad_()
                loss = self.lossfunc(outputs, y)
                (slope,) = torch.autograd.grad(loss, outputs)
            with torch.no_grad():
                Gs = J.pull(slope.unsqueeze(0))[0]
            if self.subnetwork_indices is not None:
                Gs = Gs[:, self.subnetwork_indices]
            return Gs, loss.detach()

        def diag(self, x: Any, y: Tensor, **kwargs: Any) -> tuple[Tensor, Tensor]:
            """The loss, and the diagonal ``(P,)`` summed over the batch."""
            model, inputs, f = self._served(x)
            with torch.no_grad():
                if self.stochastic:
                    H = self._root(model, inputs, f, kwargs).square().sum((0, 2))
                else:
                    H = ggn_diag(model, inputs, self._distribution, reduction="sum", parameters="trainable")
            return self._loss(f, y), H if self.subnetwork_indices is None else H[self.subnetwork_indices]

        def full(self, x: Any, y: Tensor, **kwargs: Any) -> tuple[Tensor, Tensor]:
            """The loss, and the matrix ``(P, P)`` summed over the batch."""
            model, inputs, f = self._served(x)
            with torch.no_grad():
                R = self._root(model, inputs, f, kwargs)
            if self.subnetwork_indices is not None:
                R = R[:, self.subnetwork_indices]
            R = R.transpose(0, 1).flatten(1)
            return self._loss(f, y), R @ R.mT

        def kron(self, x: Any, y: Tensor, N: int, **kwargs: Any) -> Any:
            """Refuse.

            Raises:
                OptionError: always.
            """
            raise OptionError(
                "laplace_backend: Kronecker factors are no exact products of Jacobians, and this backend has none. "
                'Use hessian_structure="diag" or "full", or the default backend.'
            )

        @property
        def _distribution(self) -> Likelihood:
            return Gaussian() if self.likelihood == "regression" else Categorical()

        def _root(self, model: nn.Module, inputs: Tensor, f: Tensor, options: Mapping[str, Any]) -> Tensor:
            """``Jᵀ R (b, P, r)`` with ``R Rᵀ`` the information of the outputs, exact or from sampled targets."""
            if not self.stochastic:
                return ggn(model, inputs, self._distribution, "weight", "trainable").root()
            # laplace-torch draws from torch's own random state
            generator = torch.Generator(f.device).manual_seed(int(torch.randint(2**62, ())))
            draws = options.get("mc_samples", self.num_samples)
            return sampled_ggn(model, inputs, self._distribution, generator, draws, "weight", "trainable").root()

        def _loss(self, f: Tensor, y: Tensor) -> Tensor:
            loss: Tensor = self.factor * self.lossfunc(f, y)
            return loss.detach()

        def _served(self, x: Any) -> tuple[nn.Module, Tensor, Tensor]:
            """The module whose weights count, what it is applied to, and the outputs."""
            with torch.no_grad():
                if not self.last_layer:
                    return self.model, _batch(x), self.model(x)
                f, features = self.model.forward_with_features(x)
                return self.model.last_layer, features, f

    return PullgeoGGN


def _batch(x: Any) -> Tensor:
    if isinstance(x, Mapping):
        raise OptionError(
            "laplace_backend: expected the model's input as one tensor, got a mapping with keys "
            f"{', '.join(map(str, x))}. Wrap the model in a module that takes the tensor and holds the rest."
        )
    batch: Tensor = x
    return batch
