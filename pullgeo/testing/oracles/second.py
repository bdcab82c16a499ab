"""Second derivatives of a module, one sample at a time: autograd of autograd, or differences of differences."""

import torch
from jaxtyping import Float, Num
from torch import Tensor

from pullgeo.testing.oracles.differences import central_difference
from pullgeo.testing.oracles.samples import Sample, flat_gradient, per_sample, rows, sizes
from pullgeo.typing import Decoder, Wrt


def second_derivative(
    module: Decoder, x: Num[Tensor, "b ..."], w: Float[Tensor, "b ..."], wrt: Wrt = "input"
) -> Float[Tensor, "b n n"]:
    """Σ_o w_o ∂²y_o/∂x_i∂x_j of every sample, by autograd of autograd.

    Args:
        module: a module or callable ``(b, *in) -> (b, *out)`` that treats samples independently.
        x: ``(b, *in)``.
        w: weights of the outputs, ``(b, *out)`` or ``(b, n_out)``.
        wrt: ``"input"`` or ``"weight"``, see `dense_jacobian`.

    Returns:
        Float64 tensor ``(b, n, n)``, symmetric.

    Raises:
        OptionError: ``wrt`` is neither of the two.
        ModuleError: as for `dense_jacobian`.
        DtypeError: as for `dense_jacobian`.

    Cost: n backward passes through a backward pass, per sample.

    Example:
        >>> second_derivative(torch.square, torch.ones(1, 2), torch.tensor([[1.0, 3.0]]))
        tensor([[[2., 0.],
                 [0., 6.]]], dtype=torch.float64)
    """
    n = sizes(module, x, wrt)[1]
    basis = torch.eye(n, dtype=torch.float64)[:, None].expand(n, len(x), n)
    return second_form(module, x, w, basis, wrt)


def second_form(
    module: Decoder,
    x: Num[Tensor, "b ..."],
    w: Float[Tensor, "b ..."],
    T: Float[Tensor, "k b ..."],
    wrt: Wrt = "input",
) -> Float[Tensor, "b k k"]:
    """Σ_o w_o ∂²y_o[T_k, T_l] in k directions, by autograd of autograd.

    Args:
        module: as for `second_derivative`.
        x: ``(b, *in)``.
        w: ``(b, *out)`` or ``(b, n_out)``.
        T: directions, ``(k, b, *in)`` or ``(k, b, P)``.
        wrt: as for `second_derivative`.

    Returns:
        Float64 tensor ``(b, k, k)``.

    Raises:
        OptionError: as for `second_derivative`.
        ModuleError: as for `second_derivative`.
        DtypeError: as for `second_derivative`.

    Cost: k backward passes through a backward pass, per sample.

    Example:
        >>> second_form(torch.square, torch.ones(1, 2), torch.ones(1, 2), torch.ones(1, 1, 2))
        tensor([[[4.]]], dtype=torch.float64)
    """
    forms = []
    for i, sample in enumerate(per_sample(module, x, wrt)):
        y, variables = sample.graph()
        with torch.enable_grad():
            gradient = flat_gradient(torch.dot(y, w[i].double().flatten()), variables, create_graph=True)
            directions = rows(T[:, i].double(), 1)
            turned = [flat_gradient(torch.dot(gradient, t), variables) for t in directions]
        forms.append(directions @ torch.stack(turned).T if turned else directions.new_zeros(0, 0))
    return torch.stack(forms) if forms else torch.zeros(0, len(T), len(T), dtype=torch.float64)


def second_form_fd(
    module: Decoder,
    x: Num[Tensor, "b ..."],
    w: Float[Tensor, "b ..."],
    T: Float[Tensor, "k b ..."],
    wrt: Wrt = "input",
    step: float = 1e-2,
) -> Float[Tensor, "b k k"]:
    """`second_form` by finite differences of values only, for modules without a double backward.

    The Hessian at c = 0 of the function c -> ⟨w, f(x + Σ c_k T_k)⟩ of k numbers, by two nested central differences.

    Args:
        module: as for `second_derivative`.
        x: ``(b, *in)``.
        w: ``(b, *out)`` or ``(b, n_out)``.
        T: directions, ``(k, b, *in)`` or ``(k, b, P)``.
        wrt: as for `second_derivative`.
        step: as for `dense_jacobian_fd`, in units of the directions.

    Returns:
        Float64 tensor ``(b, k, k)``, accurate to about 1e-9 relative for smooth maps of unit scale.

    Raises:
        OptionError: as for `dense_jacobian_fd`.
        ModuleError: as for `second_derivative`.
        DtypeError: as for `second_derivative`.

    Cost: 36 k² forward passes per sample.

    Example:
        >>> form = second_form_fd(torch.square, torch.ones(1, 2), torch.ones(1, 2), torch.ones(1, 1, 2))
        >>> round(form.item(), 8)
        4.0
    """
    forms = []
    for i, sample in enumerate(per_sample(module, x, wrt)):
        form = _hessian(sample, rows(T[:, i].double(), 1), w[i].double().flatten(), step)
        forms.append((form + form.T) / 2)
    return torch.stack(forms) if forms else torch.zeros(0, len(T), len(T), dtype=torch.float64)


def _hessian(sample: Sample, directions: Tensor, weights: Tensor, step: float) -> Tensor:
    start = sample.start()

    def value(c: Tensor) -> Tensor:
        return torch.dot(sample.at(start + c @ directions), weights)[None]

    def slope(c: Tensor) -> Tensor:
        return central_difference(value, c, step)[0]

    return central_difference(slope, start.new_zeros(len(directions)), step)
