"""Every product, flag and argument on every case, against products written out from the oracle's Jacobian."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from pullgeo import nnj
from pullgeo.testing import oracles
from pullgeo.testing.tolerances import tolerance_for
from tests.nnj.cases import CASES, LAYERWISE, arguments, module, oracle, points, random, twin

REPRESENTATIVE = ("linear without bias on rows", "two branches")
SETTINGS = [(torch.float64, 1), (torch.float32, 3), (torch.float32, 1)]
Ask = Callable[[nnj.Module, Tensor, Tensor, torch.dtype, str], tuple[object, object]]
"""``(network, x, J, dtype, wrt) -> (answer, expected)``, with J the oracle's."""


def _vectors(name: str) -> Ask:
    def ask(net: nnj.Module, x: Tensor, J: Tensor, dtype: torch.dtype, wrt: str) -> tuple[object, object]:
        vector = random(len(x), J.shape[2 if name == "jvp" else 1])
        return getattr(net, name)(x, None, vector.to(dtype), wrt=wrt), getattr(oracles, name)(J, vector)

    return ask


def _one_sided(name: str, given: bool) -> Ask:
    def ask(net: nnj.Module, x: Tensor, J: Tensor, dtype: torch.dtype, wrt: str) -> tuple[object, object]:
        shape = (len(x), J.shape[2], 4) if name == "jmp" else (len(x), 4, J.shape[1])
        matrix = random(*shape) if given else None
        answer = getattr(net, name)(x, None, None if matrix is None else matrix.to(dtype), wrt=wrt)
        return answer, getattr(oracles, name)(J, matrix)

    return ask


def _two_sided(name: str, given: str, to_diag: bool, full: bool = False) -> Ask:
    def ask(net: nnj.Module, x: Tensor, J: Tensor, dtype: torch.dtype, wrt: str) -> tuple[object, object]:
        n = J.shape[2 if name == "jmjTp" else 1]
        matrix = {"matrix": random(len(x), n, n), "diagonal": random(len(x), n), "none": None}[given]
        flags = {"from_diag": given == "diagonal", "to_diag": to_diag}
        expected = getattr(oracles, name)(J, matrix, **flags)
        if name == "jTmjp" and wrt == "weight" and not (to_diag or full):
            expected = oracles.blocks_of(expected, oracles.weight_layout(net))
        asked = flags | ({"full": True} if full else {})
        return getattr(net, name)(x, None, None if matrix is None else matrix.to(dtype), wrt=wrt, **asked), expected

    return ask


def _jacobian(net: nnj.Module, x: Tensor, J: Tensor, dtype: torch.dtype, wrt: str) -> tuple[object, object]:
    return net.jacobian(x, wrt=wrt), J


def asks() -> Iterator[tuple[str, Ask]]:
    yield "jacobian", _jacobian
    for name in ("jvp", "vjp"):
        yield name, _vectors(name)
    for name in ("jmp", "mjp"):
        for given in (True, False):
            yield f"{name} {'matrix' if given else 'none'}", _one_sided(name, given)
    for name in ("jmjTp", "jTmjp"):
        for given in ("matrix", "diagonal", "none"):
            for to_diag in (True, False):
                yield f"{name} {given} to {'diagonal' if to_diag else 'matrix'}", _two_sided(name, given, to_diag)
    for given in ("matrix", "diagonal", "none"):
        yield f"jTmjp {given} to full matrix", _two_sided("jTmjp", given, to_diag=False, full=True)


ASKS = list(asks())


def assert_equal(answer: object, expected: object, dtype: torch.dtype, what: str = "", looser: float = 1.0) -> None:
    if isinstance(expected, list):
        assert isinstance(answer, list), what
        for a, e in zip(answer, expected, strict=True):
            assert_equal(a, e, dtype, what, looser)
        return
    assert isinstance(answer, Tensor), what
    assert answer.dtype == dtype, what
    assert answer.shape == expected.shape, what
    tolerance = tolerance_for(dtype)
    error, size = (float(t.abs().max()) for t in (answer.detach().double() - expected, expected))
    assert error <= looser * (tolerance.exact * size + tolerance.floor), f"{what}: off by {error} of {size}"


CASES_WRT = [(case, wrt) for case in CASES for wrt in arguments(case)]


@pytest.mark.parametrize(("case", "wrt"), CASES_WRT)
def test_products_equal_the_oracle(case: str, wrt: str) -> None:
    check(case, wrt, torch.float64, 3, ASKS)


@pytest.mark.full
@pytest.mark.parametrize(("case", "wrt"), CASES_WRT)
def test_every_precision_and_batch_size(case: str, wrt: str, without_type_checks: None) -> None:
    # which the test before has on the same calls, and which cost more than they
    for number, (dtype, batch) in enumerate(SETTINGS):
        check(case, wrt, dtype, batch, ASKS if case in REPRESENTATIVE else ASKS[number :: len(SETTINGS)])


def check(case: str, wrt: str, dtype: torch.dtype, batch: int, asks: list[tuple[str, Ask]]) -> None:
    x, J = points(case, 3, dtype)[:batch], oracle(case, 3, wrt)[:batch]
    for what, ask in asks:
        assert_equal(*ask(twin(case, dtype), x, J, dtype, wrt), dtype, what)


@pytest.mark.parametrize("given", ["diagonal", "none", "matrix"])
@pytest.mark.parametrize(("case", "wrt"), [(case, wrt) for case in LAYERWISE for wrt in arguments(case)])
def test_diag_backprop_propagates_diagonals_from_layer_to_layer(case: str, wrt: str, given: str) -> None:
    for dtype, batch in [(torch.float64, 3)] if case != "shapes" else [(torch.float32, 1), (torch.float32, 5)]:
        net, x, J = twin(case, dtype), points(case, batch, dtype), oracle(case, batch, wrt)
        for product, truth, n in [
            (net.jTmjp, oracles.diag_backprop_pull, J.shape[1]),
            (net.jmjTp, oracles.diag_backprop_push, J.shape[2]),
        ]:
            matrix = {"diagonal": random(batch, n), "none": None, "matrix": random(batch, n, n)}[given]
            diagonal = matrix.diagonal(dim1=1, dim2=2) if given == "matrix" else matrix
            answer = product(x, None, None if matrix is None else matrix.to(dtype), wrt=wrt, diag_backprop=True)
            assert_equal(answer, truth(module(case), x, diagonal, wrt), dtype)


@pytest.mark.parametrize("case", ["linear", "prelu per channel", "elementwise chain"])
def test_diag_backprop_is_exact_for_single_layers_and_elementwise_chains(case: str) -> None:
    net, x, w = twin(case), points(case, 3), random(3, oracle(case, 3, "input").shape[1])
    exact = net.jTmjp(x, None, w, from_diag=True, to_diag=True)
    torch.testing.assert_close(net.jTmjp(x, None, w, diag_backprop=True), exact)


def test_diag_backprop_differs_from_the_exact_diagonal_where_layers_mix() -> None:
    net, x = twin("decoder"), points("decoder", 3)
    exact, approximate = (net.jTmjp(x, to_diag=True, diag_backprop=flag) for flag in (False, True))
    assert (exact - approximate).abs().max() > 1e-2 * exact.abs().max()


@pytest.mark.parametrize("case", ["decoder", "nested", "layer twice", "own parameter", "two branches", "tied weights"])
def test_pushing_nested_blocks_over_weights(case: str) -> None:
    net, x, J = twin(case), points(case, 3), oracle(case, 3, "weight")
    layout = oracles.weight_layout(net)
    blocks = _random_like(oracles.blocks_of(random(3, J.shape[2], J.shape[2]), layout))
    for to_diag in (False, True):
        expected = oracles.jmjTp(J, blocks, to_diag=to_diag, layout=layout)
        assert_equal(net.jmjTp(x, None, blocks, wrt="weight", to_diag=to_diag), expected, torch.float64)
    diagonal = oracles.full_from_blocks(blocks, layout, J.shape[2]).diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(
        net.jmjTp(x, None, blocks, wrt="weight", diag_backprop=True),
        net.jmjTp(x, None, diagonal, wrt="weight", diag_backprop=True),
    )


def _random_like(blocks: object) -> list:
    return [_random_like(b) if isinstance(b, list) else random(*b.shape, seed=i) for i, b in enumerate(blocks)]


def test_blocks_that_jTmjp_returns_are_what_jmjTp_takes() -> None:
    net, x, J = twin("nested"), points("nested", 3), oracle("nested", 3, "weight")
    with torch.no_grad():
        blocks = net.jTmjp(x, wrt="weight")
    full = oracles.full_from_blocks(blocks, oracles.weight_layout(net), J.shape[2])
    torch.testing.assert_close(net.jmjTp(x, None, tuple(blocks), wrt="weight"), oracles.jmjTp(J, full))


def test_a_whole_matrix_over_weights_counts_with_its_blocks_between_layers() -> None:
    net, x, J = twin("decoder"), points("decoder", 3), oracle("decoder", 3, "weight")
    M = random(3, J.shape[2], J.shape[2])
    layout = oracles.weight_layout(net)
    block_diagonal = oracles.full_from_blocks(oracles.blocks_of(M, layout), layout, J.shape[2])
    answer = net.jmjTp(x, None, M, wrt="weight")
    assert_equal(answer, oracles.jmjTp(J, M), torch.float64)
    assert (answer - oracles.jmjTp(J, block_diagonal)).abs().max() > 1e-2


@pytest.mark.parametrize("case", ["linear without bias on rows", "tanh", "convolutional", "prelu per channel"])
def test_vectors_and_diagonals_in_the_values_own_shape(case: str) -> None:
    net, x = twin(case), points(case, 3)
    out = net(x).shape
    v, w = random(*x.shape), random(*out)
    torch.testing.assert_close(net.jvp(x, None, v), net.jvp(x, None, v.flatten(1)))
    torch.testing.assert_close(net.vjp(x, None, w), net.vjp(x, None, w.flatten(1)))
    for flags in ({"from_diag": True}, {"diag_backprop": True}):
        torch.testing.assert_close(net.jTmjp(x, None, w, **flags), net.jTmjp(x, None, w.flatten(1), **flags))
        torch.testing.assert_close(net.jmjTp(x, None, v, **flags), net.jmjTp(x, None, v.flatten(1), **flags))


def test_a_module_without_parameters_has_nothing_with_respect_to_weights() -> None:
    x = torch.zeros(3, 2)
    for net in (nnj.Tanh(), nnj.Sequential(nnj.ReLU(), nnj.Flatten())):
        assert net.jacobian(x, wrt="weight") is None
        assert net.jvp(x, None, x, wrt="weights") is None
        assert net.vjp(x, None, x, wrt="weight") is None
        assert net.jmp(x, wrt="weight") is None
        assert net.mjp(x, wrt="weight") is None
        assert net.jmjTp(x, wrt="weight") is None
        assert net.jTmjp(x, wrt="weight") is None
        assert net.jTmjp(x, wrt="weight", to_diag=True, diag_backprop=True) is None


def test_underscored_names_and_weights_in_the_plural_are_the_same() -> None:
    net, x = twin("decoder"), points("decoder", 3)
    v, w = random(3, 2), random(3, 7)
    assert torch.equal(net._jvp(x, None, v), net.jvp(x, None, v))
    assert torch.equal(net._vjp(x, None, w, wrt="weights"), net.vjp(x, None, w, wrt="weight"))
    assert torch.equal(net._jmp(x, None, None), net.jacobian(x))
    assert torch.equal(net._mjp(x, None, None), net._jacobian(x))
    assert torch.equal(net._jmjTp(x, None, None, wrt="weights"), net.jmjTp(x, wrt="weight"))
    assert torch.equal(net._jTmjp(x, None, None, to_diag=True), net.jTmjp(x, to_diag=True))


def test_functions_take_any_module_as_it_is() -> None:
    net, x = module("decoder"), points("decoder", 3)
    expected = oracles.jTmjp(oracle("decoder", 3, "input"), None)
    torch.testing.assert_close(nnj.products.jTmjp(net, x), expected)
    torch.testing.assert_close(nnj.products.jTmjp(lambda z: net(z), x), expected)


def test_products_are_differentiable() -> None:
    net, x = twin("decoder"), points("decoder", 3).requires_grad_()
    M = random(3, 7, 7).requires_grad_()
    assert torch.autograd.gradcheck(lambda z, m: net.jTmjp(z, None, m), (x, M), fast_mode=True)
    assert torch.autograd.gradcheck(lambda z: net.jTmjp(z, wrt="weight", to_diag=True), (x,), fast_mode=True)
    net.jmjTp(x).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for n, p in net.named_parameters() if n != "2.bias")


@pytest.mark.parametrize("case", ["decoder", "nested", "convolutional", "two branches", "attention"])
def test_an_empty_batch_gives_empty_answers(case: str) -> None:
    net, x = twin(case), points(case, 0)
    n_in, n_out = x[0:0].flatten(1).shape[1], net(points(case, 1)).flatten(1).shape[1]
    assert net.jacobian(x).shape == (0, n_out, n_in)
    assert net.jTmjp(x).shape == (0, n_in, n_in)
    assert net.jmjTp(x, to_diag=True).shape == (0, n_out)
    assert net.jTmjp(x, wrt="weight", to_diag=True).shape == (0, net._n_params)
    assert net.vjp(x, None, net(x), wrt="weight").shape == (0, net._n_params)
    for wrt, n in (("input", n_in), ("weight", net._n_params)):
        for k in (0, 2):
            assert net.jmp(x, None, x.new_zeros(0, n, k), wrt=wrt).shape == (0, n_out, k)
            assert net.mjp(x, None, x.new_zeros(0, k, n_out), wrt=wrt).shape == (0, k, n)


def test_the_answer_does_not_depend_on_val() -> None:
    net, x = twin("decoder"), points("decoder", 3)
    right, stale = net(x), net(x + 1)
    assert torch.equal(net.jTmjp(x, right), net.jTmjp(x, None))
    assert torch.equal(net.jTmjp(x, stale), net.jTmjp(x, None))


def test_a_weight_diagonal_never_holds_outputs_times_weights() -> None:
    net, x = nnj.Sequential(nnj.Linear(1, 400), nnj.Tanh(), nnj.Linear(400, 300)), torch.randn(2, 1)
    limit = 2 * 300 * net._n_params // 4
    sizes: list[int] = []

    class Largest(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            answer = function(*args, **(kwargs or {}))
            if isinstance(answer, Tensor):
                sizes.append(answer.numel())
            return answer

    with Largest(), torch.no_grad():
        exact = net.jTmjp(x, wrt="weight", to_diag=True)
        net.jTmjp(x, None, exact.new_ones(2, 300), wrt="weight", from_diag=True, to_diag=True)
        net.jTmjp(x, wrt="weight", diag_backprop=True)
    assert max(sizes) < limit


def test_a_decoders_metric_pushes_its_latent_tangents_once() -> None:
    columns: list[int] = []
    real = torch.nn.functional.linear
    net = nnj.Sequential(nnj.Linear(2, 50), nnj.Tanh(), nnj.Linear(50, 60), nnj.Tanh(), nnj.Linear(60, 70))
    x = torch.randn(5, 2)

    class Work(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            if function is real:
                columns.append(args[0][..., 0].numel())
            return function(*args, **(kwargs or {}))

    with Work():
        net.jTmjp(x)
    # three layers, each with the batch itself, and with two tangents of it but the first, whose columns they become
    assert sum(columns) == 3 * 5 * (1 + 2) - 5 * 2
