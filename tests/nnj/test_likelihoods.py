"""The log-likelihoods of the face, against torch.distributions and written-out products."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch import distributions as td

from pullgeo import nnj
from pullgeo.errors import OptionError, ShapeError, TargetError
from pullgeo.testing import oracles

B = 3


def image_net(channels: int) -> nnj.Module:
    layers = [nnj.Linear(2, 12), nnj.Tanh(), nnj.Unflatten(1, (2, 3, 2)), nnj.Conv2d(2, channels, 3, padding=1)]
    return nnj.Sequential(*layers).double()


def dense_net() -> nnj.Module:
    return nnj.Sequential(nnj.Linear(2, 7), nnj.Sequential(nnj.Tanh(), nnj.Linear(7, 5))).double()


def one_hot(n: int) -> Tensor:
    return nn.functional.one_hot(torch.tensor([n - 1, 0, 2]), n)


def log_normal(y: Tensor, target: Tensor) -> Tensor:
    return td.Normal(y, 1.0).log_prob(target) - td.Normal(y, 1.0).log_prob(y)


def log_categorical(y: Tensor, target: Tensor) -> Tensor:
    return td.OneHotCategorical(logits=y.movedim(1, -1)).log_prob(target.movedim(1, -1).to(y.dtype))


def log_bernoulli(y: Tensor, target: Tensor) -> Tensor:
    return td.Bernoulli(logits=y).log_prob(target)


LogP = Callable[[Tensor, Tensor], Tensor]
Case = tuple[type, nnj.Module, Tensor, LogP]
CASES: dict[str, Case] = {
    "gaussian": (nnj.LogGaussian, dense_net(), torch.randn(B, 5, dtype=torch.float64), log_normal),
    "categorical": (nnj.LogBernoulli, dense_net(), one_hot(5), log_categorical),
    "spatial categorical": (
        nnj.LogBernoulli,
        image_net(5),
        one_hot(5)[:, :, None, None].expand(B, 5, 3, 2).double(),
        log_categorical,
    ),
    "binary": (nnj.LogBinaryBernoulli, image_net(1), torch.ones(B, 1, 3, 2).double(), log_bernoulli),
}
every_case = pytest.mark.parametrize(("likelihood", "model", "target", "log_p"), CASES.values(), ids=CASES)
every_aggregate = pytest.mark.parametrize("aggregate", ["return all", "sum", "average"])


def points() -> Tensor:
    return torch.randn(B, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def aggregated(aggregate: str, rows: Tensor) -> Tensor:
    return {"return all": rows, "sum": rows.sum(0), "average": rows.sum(0) / B}[aggregate]


def expected_ggn(model: nn.Module, x: Tensor, wrt: str, log_p: LogP, target: Tensor) -> Tensor:
    J = oracles.dense_jacobian(model, x, wrt)
    hessians = []
    for y, t in zip(model(x).detach(), target, strict=True):
        H = torch.autograd.functional.hessian(lambda y, t=t: log_p(y[None], t[None]).sum(), y)
        hessians.append(H.reshape(y.numel(), y.numel()))
    return oracles.jTmjp(J, torch.stack(hessians))


@every_case
@every_aggregate
def test_forward(likelihood: type, model: nnj.Module, target: Tensor, log_p: LogP, aggregate: str) -> None:
    x = points()
    expected = aggregated(aggregate, log_p(model(x), target).reshape(B, -1).sum(1))
    torch.testing.assert_close(likelihood(aggregate)(x, model, target), expected)


@every_case
@every_aggregate
@pytest.mark.parametrize("wrt", ["input", "weight", "weights"])
def test_gradient(
    likelihood: type,
    model: nnj.Module,
    target: Tensor,
    log_p: LogP,
    aggregate: str,
    wrt: str,
) -> None:
    x = points()
    rows = []
    for b in range(B):
        z = x[b : b + 1].clone().requires_grad_()
        variables = [z] if wrt == "input" else list(model.parameters())
        slopes = torch.autograd.grad(log_p(model(z), target[b : b + 1]).sum(), variables)
        rows.append(torch.cat([slope.flatten() for slope in slopes]))
    found = likelihood(aggregate).gradient(x, model, target, wrt=wrt)
    torch.testing.assert_close(found, aggregated(aggregate, torch.stack(rows)))


@every_case
@every_aggregate
@pytest.mark.parametrize("wrt", ["input", "weight"])
def test_ggn(
    likelihood: type,
    model: nnj.Module,
    target: Tensor,
    log_p: LogP,
    aggregate: str,
    wrt: str,
) -> None:
    x = points()
    expected = expected_ggn(model, x, wrt, log_p, target)
    diagonal = likelihood(aggregate, "diag").ggn(x, model, target, wrt=wrt)
    torch.testing.assert_close(diagonal, aggregated(aggregate, expected.diagonal(dim1=1, dim2=2)))
    full = likelihood(aggregate, metric_shape="full").ggn(x, model, wrt=wrt)
    if wrt == "input":
        torch.testing.assert_close(full, aggregated(aggregate, expected))
        return
    for found, block in zip(
        leaves(full), leaves(oracles.blocks_of(expected, oracles.weight_layout(model))), strict=True
    ):
        torch.testing.assert_close(found, aggregated(aggregate, block))


def leaves(nested: object) -> list[Tensor]:
    return [leaf for entry in nested for leaf in leaves(entry)] if isinstance(nested, list) else [nested]


def test_blocks_are_nested_as_the_layers_are() -> None:
    blocks = nnj.LogBernoulli("sum", "full").ggn(points(), dense_net())
    assert [block.shape for block in (blocks[0], *blocks[1])] == [(21, 21), (40, 40)]


@every_case
@pytest.mark.parametrize("wrt", ["input", "weight"])
def test_approx_propagates_the_diagonal_of_the_hessian(
    likelihood: type, model: nnj.Module, target: Tensor, log_p: LogP, wrt: str
) -> None:
    x = points()
    n = model(x)[0].numel()
    diagonal = expected_ggn(nn.Identity(), model(x).detach(), "input", log_p, target).diagonal(dim1=1, dim2=2)
    layers = nn.Sequential(*[layer for layer in model.modules() if not list(layer.children())])
    expected = oracles.diag_backprop_pull(layers, x, diagonal.reshape(B, n), wrt=wrt)
    for aggregate in ("return all", "sum", "average"):
        found = likelihood(aggregate, metric_backprop="approx").ggn(x, model, wrt=wrt)
        torch.testing.assert_close(found, aggregated(aggregate, expected))


def test_weights_are_the_default() -> None:
    model, x = dense_net(), points()
    assert nnj.LogGaussian().ggn(x, model).shape == (B, 61)
    assert nnj.LogGaussian().gradient(x, model, torch.zeros(B, 5, dtype=torch.float64)).shape == (B, 61)


def test_classes_may_be_given_by_their_index() -> None:
    model, x = dense_net(), points()
    indices = one_hot(5).argmax(1)
    for ask in (nnj.LogBernoulli(), nnj.LogBernoulli().gradient):
        torch.testing.assert_close(ask(x, model, indices), ask(x, model, one_hot(5)))


def test_plain_modules_and_functions_are_served() -> None:
    x, target = points(), torch.zeros(B, 2, dtype=torch.float64)
    found = nnj.LogGaussian(metric_shape="full").ggn(x, torch.sin, wrt="input")
    torch.testing.assert_close(found, -x.cos().square().diag_embed())
    assert nnj.LogGaussian().ggn(x, nn.Tanh(), wrt="weight") is None
    assert nnj.LogGaussian().gradient(x, nn.Tanh(), target) is None
    layer = nn.Linear(2, 3).double()
    assert nnj.LogGaussian(metric_shape="full").ggn(x, layer).shape == (B, 9, 9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logits_of_any_size(dtype: torch.dtype) -> None:
    x = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4], [0.0, 0.0, 1e4]], dtype=dtype)
    target = torch.eye(3, dtype=dtype)
    model = nnj.Linear(3, 3).to(dtype)
    with torch.no_grad():
        model.weight.copy_(torch.eye(3))
        model.bias.zero_()
    for likelihood in (nnj.LogBernoulli, nnj.LogBinaryBernoulli):
        for wrt in ("input", "weight"):
            answers = [likelihood(metric_shape="full").ggn(x, model, wrt=wrt), likelihood().ggn(x, model, wrt=wrt)]
            answers += [likelihood(metric_backprop="approx").ggn(x, model, wrt=wrt)]
            answers += [likelihood().gradient(x, model, target, wrt=wrt), likelihood()(x, model, target)]
            assert all(answer.dtype == dtype and bool(answer.isfinite().all()) for answer in answers)
    torch.testing.assert_close(
        nnj.LogBernoulli()(x, model, target), torch.tensor([0, 0 - torch.log(torch.tensor(2.0)), 0]).to(dtype)
    )


@pytest.mark.parametrize(
    "options",
    [
        {"aggregate_batch": "mean"},
        {"aggregate_batch": None},
        {"metric_shape": "block"},
        {"metric_backprop": "fast"},
        {"metric_shape": "full", "metric_backprop": "approx"},
    ],
)
def test_other_options_are_refused(options: dict[str, str], without_type_checks: None) -> None:
    with pytest.raises(OptionError, match="LogGaussian: "):
        nnj.LogGaussian(**options)


def test_mistakes_are_named() -> None:
    model, x = dense_net(), points()
    with pytest.raises(OptionError, match="wrt must be"):
        nnj.LogGaussian().ggn(x, model, wrt="bias")
    with pytest.raises(TargetError, match="there is no target"):
        nnj.LogGaussian()(x, model)
    with pytest.raises(ShapeError, match="target must have the shape"):
        nnj.LogGaussian()(x, model, torch.zeros(B, 1, dtype=torch.float64))
