"""The rules for elementwise activations, linear layers, shapes and chains, and the fallback, against the truth."""

import pytest
import torch
from torch import Tensor, nn

from pullgeo.errors import (
    CoupledSamplesError,
    DtypeError,
    ModuleError,
    OptionError,
    RegistryError,
    ShapeError,
)
from pullgeo.jacobian import Autodiff, Chain, Elementwise, Jacobian, linearize, rule, rule_for, weight_rule
from pullgeo.testing import check_rule

SMOOTH = {
    "CELU": nn.CELU(1.5),
    "ELU": nn.ELU(0.75),
    "GELU": nn.GELU(),
    "GELU tanh": nn.GELU("tanh"),
    "Hardswish": nn.Hardswish(),
    "LogSigmoid": nn.LogSigmoid(),
    "Mish": nn.Mish(),
    "SELU": nn.SELU(),
    "SiLU": nn.SiLU(),
    "Sigmoid": nn.Sigmoid(),
    "Softplus": nn.Softplus(),
    "Softplus with a threshold": nn.Softplus(2.0, 1.0),
    "Softsign": nn.Softsign(),
    "Tanh": nn.Tanh(),
    "Tanhshrink": nn.Tanhshrink(),
}
PIECEWISE_LINEAR = {
    "Hardshrink": nn.Hardshrink(0.3),
    "Hardtanh": nn.Hardtanh(-0.3, 0.6),
    "Identity": nn.Identity(),
    "Dropout": nn.Dropout(0.3).eval(),
    "AlphaDropout": nn.AlphaDropout(0.3).eval(),
    "LeakyReLU": nn.LeakyReLU(0.2),
    "PReLU of one slope": nn.PReLU(init=0.3),
    "PReLU per channel": nn.PReLU(7, init=0.3),
    "RReLU": nn.RReLU(0.1, 0.4).eval(),
    "ReLU": nn.ReLU(),
    "ReLU6": nn.ReLU6(),
    "Softshrink": nn.Softshrink(0.3),
    "Threshold": nn.Threshold(0.1, 0.2),
}
SHAPES = {
    "Flatten": nn.Flatten(),
    "Flatten the last two": nn.Flatten(-2, -1),
    "Unflatten": nn.Unflatten(2, (1, 5)),
}


UNKNOWN = "a chain with an unknown layer"


def weights(name: str) -> nn.Module:
    torch.manual_seed(0)
    shared = nn.Linear(5, 5)
    slope = nn.PReLU(5, init=0.4)
    return {
        "Linear": nn.Linear(5, 7),
        "Linear without bias": nn.Linear(5, 7, bias=False),
        "PReLU of one slope": nn.PReLU(init=0.3),
        "PReLU per channel": nn.PReLU(5, init=0.3),
        "nested chain": nn.Sequential(
            nn.Linear(5, 3),
            nn.Tanh(),
            nn.Sequential(nn.Linear(3, 5), slope, nn.Softplus()),
            nn.Linear(5, 2, bias=False),
        ),
        "a module used twice": nn.Sequential(shared, nn.Tanh(), shared, nn.Sigmoid(), nn.Linear(5, 2)),
        UNKNOWN: nn.Sequential(nn.Linear(5, 4), Cubed(), nn.Linear(4, 3)),
    }[name].double()


class Cubed(nn.Module):
    """A layer that has no rule and a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([0.5, 1.5]))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale[0] * x**3 + torch.roll(x, 1, dims=-1) * self.scale[1]


def batch(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", list(SMOOTH))
def test_smooth_activations(name: str) -> None:
    check_rule(SMOOTH[name], 2 * batch(3, 5))


@pytest.mark.parametrize("name", list(PIECEWISE_LINEAR))
def test_piecewise_linear_activations(name: str) -> None:
    check_rule(PIECEWISE_LINEAR[name].double(), batch(3, 7))


@pytest.mark.parametrize("name", ["PReLU of one slope", "PReLU per channel"])
def test_prelu_on_images(name: str) -> None:
    check_rule(PIECEWISE_LINEAR[name].double(), batch(3, 7, 2))
    check_rule(PIECEWISE_LINEAR[name].double(), batch(3, 7, 2), wrt="weight")


def test_hardsigmoid() -> None:
    # torch's own backward rounds the slope 1/6 to float32 and has no second derivative: the truth is by differences
    check_rule(nn.Hardsigmoid(), 2 * batch(3, 5), first="finite_difference", second="skip", second_gradients=False)


def test_layers_that_work_in_place_spare_their_argument() -> None:
    x = batch(3, 5)
    for module in (nn.ReLU(inplace=True), nn.Sequential(nn.Identity(), nn.ReLU(inplace=True))):
        before = x.clone()
        y, J = linearize(module, x)
        J.push(torch.ones_like(x).unsqueeze(0))
        assert torch.equal(x, before)
        torch.testing.assert_close(y, torch.relu(x))


@pytest.mark.parametrize("name", list(SHAPES))
def test_shapes(name: str) -> None:
    check_rule(SHAPES[name], batch(3, 2, 5))


@pytest.mark.quick(3)
@pytest.mark.parametrize(
    "name",
    [
        "Linear",
        "Linear without bias",
        "PReLU of one slope",
        "PReLU per channel",
        "nested chain",
        "a module used twice",
        UNKNOWN,
    ],
)
def test_input_and_weight(name: str) -> None:
    check_rule(weights(name), batch(3, 5), second_gradients=name != UNKNOWN)
    check_rule(weights(name), batch(5, 5), wrt="weight", second_gradients=False)


def test_linear_over_further_dimensions() -> None:
    check_rule(weights("Linear"), batch(3, 2, 5))
    check_rule(weights("Linear"), batch(3, 2, 5), wrt="weight")


def test_structure_is_kept() -> None:
    assert isinstance(linearize(nn.Tanh(), batch(3, 5))[1], Elementwise)
    chain = linearize(
        nn.Sequential(nn.Linear(5, 3), nn.Sequential(nn.Tanh(), nn.Dropout())).double().eval(), batch(3, 5)
    )
    assert isinstance(chain[1], Chain)
    assert len(chain[1].stages) == 2
    assert isinstance(linearize(lambda x: x.sin(), batch(3, 5))[1], Elementwise)
    assert isinstance(linearize(lambda x: torch.special.entr(x.sigmoid()), batch(3, 5))[1], Autodiff)


def test_single_precision_slopes_are_not_rounded_in_double() -> None:
    derivative = linearize(nn.LeakyReLU(0.1), -torch.ones(1, 1, dtype=torch.float64))[1].dense()
    assert float(derivative) == 0.1


def test_large_arguments_stay_finite() -> None:
    x = torch.tensor([[-1e4, -300.0, 300.0, 1e4]], dtype=torch.float64).requires_grad_()
    for module in [*SMOOTH.values(), *PIECEWISE_LINEAR.values()]:
        if isinstance(module, nn.PReLU):
            continue
        y, J = linearize(module, x)
        total = y.sum() + J.push(torch.ones(1, 1, 4, dtype=torch.float64)).sum()
        assert bool(torch.isfinite(torch.autograd.grad(total, x)[0]).all()), module


def test_rules_serve_what_runs_their_forward_and_nothing_else() -> None:
    class Renamed(nn.Tanh):
        pass

    class Overridden(nn.Tanh):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    patched, hooked = nn.Tanh(), nn.Tanh()
    patched.forward = lambda x: 2 * torch.tanh(x)  # type: ignore[method-assign]
    hooked.register_forward_hook(lambda module, args, y: 2 * y)
    assert rule_for(Renamed()) is rule_for(nn.Tanh())
    x = batch(3, 5)

    class Called(nn.Tanh):
        def __call__(self, x: Tensor) -> Tensor:
            return 2 * super().__call__(x)

    for module in (Overridden(), patched, hooked, Called()):
        assert rule_for(module) is None
        torch.testing.assert_close(linearize(module, x)[1].dense(), 2 * linearize(nn.Tanh(), x)[1].dense())
    wrapped, plain = (linearize(nn.Sequential(nn.Softsign(), m), x)[1].dense() for m in (Called(), nn.Tanh()))
    torch.testing.assert_close(wrapped, 2 * plain)


class Scaled(nn.Linear):
    def __init__(self) -> None:
        super().__init__(5, 2)
        self.temperature = nn.Parameter(torch.ones(3))
        self.side = nn.Linear(2, 3)


def test_a_subclass_may_bring_parameters_of_its_own() -> None:
    check_rule(Scaled().double(), batch(3, 5), wrt="weight", second_gradients=False)
    check_rule(nn.Sequential(Scaled(), nn.Tanh()).double(), batch(3, 5), wrt="weight", second_gradients=False)


@pytest.mark.usefixtures("without_type_checks")
def test_registering_twice_is_refused() -> None:
    with pytest.raises(RegistryError, match="Tanh has a rule already"):
        rule(nn.Tanh)
    with pytest.raises(RegistryError, match="Linear has a rule already"):
        weight_rule(nn.Linear)
    with pytest.raises(RegistryError, match=r"expected torch.nn.Module classes"):
        rule(nn.Tanh())  # type: ignore[arg-type]


@pytest.mark.usefixtures("without_type_checks")
def test_what_is_no_rule_is_refused() -> None:
    def layer() -> type[nn.Module]:
        return type("Layer", (nn.Module,), {"forward": lambda self, x: x.sin()})

    with pytest.raises(RegistryError, match=r"<lambda>\(x\) is to be called with \(module, x\): too many"):
        rule(layer())(lambda x: (x.sin(), Elementwise(x.cos())))
    x, wrong = batch(3, 5), layer()
    rule(wrong)(lambda module, x: x.sin())
    with pytest.raises(RegistryError, match=r"<lambda> returned Tensor for Layer, expected \(y, J\)"):
        linearize(wrong(), x)
    wrong = layer()
    rule(wrong)(lambda module, x: (Elementwise(x.cos()), x.sin()))
    with pytest.raises(RegistryError, match=r"returned \(Elementwise, Tensor\) for Layer"):
        linearize(nn.Sequential(wrong(), nn.Tanh()), x)
    wrong = type("Weighted", (nn.Linear,), {"forward": lambda self, x: self.weight.sum() * x})
    rule(wrong)(lambda module, x: (module.forward(x), Elementwise(module.weight.sum().expand_as(x))))
    weight_rule(wrong)(lambda module, x: (x, x))
    with pytest.raises(RegistryError, match="returned tuple for Weighted, expected the derivative alone"):
        linearize(wrong(5, 5).double(), x, "weight")
    with pytest.raises(OptionError, match=r"curvature must be a function without arguments, got Tensor"):
        Elementwise(x, x)  # type: ignore[arg-type]
    wrong = layer()
    rule(wrong)(lambda module, x: (x.sin(), Elementwise(x[:, :3].cos())))
    with pytest.raises(
        AssertionError, match=r"signature: Elementwise is for a batch of 3 from \(3,\) to \(3,\), expected"
    ):
        check_rule(wrong(), x)


@pytest.mark.usefixtures("without_type_checks")
def test_named_errors() -> None:
    x = batch(3, 5)
    with pytest.raises(OptionError, match='wrt must be "input" or "weight"'):
        linearize(nn.Tanh(), x, "bias")
    with pytest.raises(DtypeError, match=r"must be a torch\.Tensor"):
        linearize(nn.Tanh(), [1.0])  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="batch dimension"):
        linearize(nn.Tanh(), torch.tensor(1.0))
    with pytest.raises(DtypeError, match="floating point"):
        linearize(nn.Tanh(), torch.ones(3, 5, dtype=torch.long))
    with pytest.raises(DtypeError, match=r"x is torch.float64 and the module's parameters are torch.float32"):
        linearize(nn.Linear(5, 2), x)
    with pytest.raises(CoupledSamplesError, match=r"BatchNorm1d \(0\) normalises over the batch.*eval"):
        linearize(nn.Sequential(nn.BatchNorm1d(5)).double(), x)
    with pytest.raises(CoupledSamplesError, match="random mask"):
        linearize(nn.Dropout(), x)
    with pytest.raises(ModuleError, match="no parameters"):
        linearize(nn.Tanh(), x, "weight")
    with pytest.raises(ModuleError, match="plain function"):
        linearize(torch.tanh, x, "weight")
    with pytest.raises(ModuleError, match="lazy module"):
        linearize(nn.LazyLinear(3), x)
    with pytest.raises(ModuleError, match="returned tuple"):
        linearize(nn.GRU(5, 2).double(), batch(3, 2, 5))
    for wrt in ("input", "weight"):  # torch takes one sample here, whose entries would be taken for a batch
        with pytest.raises(ShapeError, match=r"one more for the batch; got shape \(5,\)"):
            linearize(nn.Linear(5, 5).double(), x[0], wrt)
    with pytest.raises(ModuleError, match="start_dim=1"):
        linearize(nn.Flatten(0), x)


def test_the_callers_grad_mode_is_respected() -> None:
    module = nn.Sequential(nn.Linear(5, 3), nn.Tanh()).double()
    with torch.no_grad():
        y, J = linearize(module, batch(3, 5))
        assert not y.requires_grad
        assert not J.push(batch(2, 3, 5)).requires_grad
    y, J = linearize(module, batch(3, 5))
    assert y.requires_grad
    assert isinstance(J, Jacobian)
    assert J.push(batch(2, 3, 5)).requires_grad
