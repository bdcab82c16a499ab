"""The introductory example of older code, as it is written there with layer sizes filled in."""

import torch

from pullgeo import nnj
from pullgeo.testing import oracles


def built_from_layers() -> nnj.Module:
    return nnj.Sequential(
        nnj.Linear(3, 5),
        nnj.Tanh(),
        nnj.Linear(5, 2),
    )


def converted_from_torch() -> nnj.Module:
    from torch import nn

    model = torch.nn.Sequential(
        nn.Linear(3, 5),
        nn.Tanh(),
        nn.Linear(5, 2),
    )

    # convert to nnj
    return nnj.utils.convert_to_nnj(
        model,
    )


def test_gradient_and_gauss_newton_of_a_regression() -> None:
    for build in (built_from_layers, converted_from_torch):
        torch.manual_seed(0)
        model = build()
        x, target = torch.randn(7, 3), torch.randn(7, 2)

        val = model(x)

        # Compute gradient (of the l2 loss) as backward pass of the residual
        residual = val - target
        gradient = model.vjp(x, val, residual, wrt="weight")

        # Compute the Generalized-Gauss Newton (an approximation of the hessian) as a backward pass
        # of the Euclidean metric
        jacobianTranspose_jacobian = model._jTmjp(
            x,
            val,
            None,  # None means identity (i.e. Euclidean metric)
            wrt="weights",  # computes the jacobian wrt weights or inputs
            to_diag=True,  # computes the diagonal elements only
            diag_backprop=True,  # approximates the diagonal elements, which speeds up the computations
        )

        # Average along batch size
        gradient = torch.mean(gradient, dim=0)
        jacobianTranspose_jacobian = torch.mean(jacobianTranspose_jacobian, dim=0)

        loss = (model(x) - target).square().sum() / 2 / len(x)
        expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
        torch.testing.assert_close(gradient, expected)
        plain = torch.nn.Sequential(*model)
        layerwise = oracles.diag_backprop_pull(plain, x, None, "weight").mean(0)
        torch.testing.assert_close(jacobianTranspose_jacobian.double(), layerwise, rtol=1e-4, atol=1e-6)
