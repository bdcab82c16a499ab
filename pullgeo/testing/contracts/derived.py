"""The contractions that `pullgeo.jacobian.Jacobian` offers beyond the interface, and that kinds override."""

import torch
from torch import Tensor, nn

from pullgeo.jacobian.base import Jacobian
from pullgeo.jacobian.kinds.chain import Chain
from pullgeo.jacobian.kinds.graph import Graph
from pullgeo.jacobian.registry import rule_for, weight_rule_for
from pullgeo.jacobian.weights.weight_graph import WeightGraph
from pullgeo.testing import oracles
from pullgeo.testing.contracts.jacobian import Probes, Second, largest_product
from pullgeo.testing.contracts.judge import Judge
from pullgeo.testing.oracles.samples import rows
from pullgeo.typing import Decoder, Wrt


def check_contractions(judge: Judge, J: Jacobian, probes: Probes) -> None:
    """Grams, diagonals, outer products, columns and the transpose, against the dense Jacobian."""
    T, S, W, V = probes.T, probes.S, probes.W, probes.V
    k = len(T)
    judge.close("columns", J.columns(), probes.truth.permute(2, 0, 1), like=T)
    JT, JS, JW, JV = probes.pushed(T), probes.pushed(S), probes.pulled(W), probes.pulled(V)
    for check, got, expected in (
        ("push_gram(T, S)", J.push_gram(T, S), _gram(JT, JS)),
        ("push_gram(T, T)", J.push_gram(T, T), _gram(JT, JT)),
        ("pull_gram(W, V)", J.pull_gram(W, V), _gram(JW, JV)),
        ("pull_gram(W, W)", J.pull_gram(W, W), _gram(JW, JW)),
        ("push_diag(T, S)", J.push_diag(T, S[:k]), (JT * JS[:k]).sum(0)),
        ("push_diag(T, T)", J.push_diag(T, T), (JT * JT).sum(0)),
        ("pull_diag(W, V)", J.pull_diag(W, V[:k]), (JW * JV[:k]).sum(0)),
        ("pull_diag(W, W)", J.pull_diag(W, W), (JW * JW).sum(0)),
        ("push_outer(T, S)", J.push_outer(T, S[:k]), _outer(JT, JS[:k])),
        ("push_outer(T, T)", J.push_outer(T, T), _outer(JT, JT)),
        ("pull_outer(W, V)", J.pull_outer(W, V[:k]), _outer(JW, JV[:k])),
        ("pull_outer(W, W)", J.pull_outer(W, W), _outer(JW, JW)),
        ("transpose.push", J.T.push(W), JW),
        ("transpose.pull", J.T.pull(T), JT),
        ("transpose.dense", J.T.dense(), probes.truth.mT),
    ):
        judge.close(check, got, expected, like=T)


def check_second_push(
    judge: Judge, J: Jacobian, module: Decoder, x: Tensor, probes: Probes, wrt: Wrt, truth: Second
) -> None:
    """``push_with_second`` and ``second_push``, contracted with cotangents, against second derivatives."""
    form = oracles.second_form if truth == "autograd" else oracles.second_form_fd
    rtol = 0.0 if truth == "autograd" else 1e-6
    T, S, W = probes.T, probes.S[: len(probes.T)], probes.W
    scale = 0.0 if truth == "autograd" else largest_product(probes.pushed(T), W)
    both = torch.cat([T, S])
    mixed, straight = J.second_push(T, S), J.second_push(T, T)
    judge.require(mixed.shape == W.shape, "second_push", f"expected shape {tuple(W.shape)}, got {tuple(mixed.shape)}")
    check_jet(judge, J, T, S)
    for w in W if truth == "autograd" else W[:1]:  # differences are slow
        forms = form(module, x, w, both, wrt)
        k = len(T)
        pushed, second = J.push_with_second(T, w)
        judge.close("push_with_second: J T", pushed, probes.pushed(T), like=T)
        judge.close("push_with_second: second(T, w)", second, forms[:, :k, :k], like=T, rtol=rtol, scale=scale)
        for check, got, expected in (
            ("second_push(T, S)", mixed, forms[:, :k, k:]),
            ("second_push(T, T)", straight, forms[:, :k, :k]),
        ):
            contracted = rows(got * w, 2).sum(-1)
            diagonal = expected.diagonal(dim1=1, dim2=2).T
            size = max(scale, largest_product(got, w.expand_as(got)))
            judge.close(check, contracted, diagonal, like=T, rtol=rtol, scale=size)


def check_jet(judge: Judge, J: Jacobian, T: Tensor, S: Tensor) -> None:
    """``push_jet`` of tangents, with second derivatives behind them and without, against ``push`` and `second_push`."""
    k, b = T.shape[:2]
    generator = torch.Generator().manual_seed(0)
    u, w = torch.randn(2, 3, b, k, dtype=torch.float64, generator=generator).to(T)
    U, W = (torch.einsum("kb...,lbk->lb...", T, a) for a in (u, w))
    zero, mixed, straight = J.second_push(U, W).new_zeros(()), J.second_push(U, W), J.second_push(U, U)
    C = torch.cat([S, T, S])[:3]
    for check, X, other, expected in (
        ("push_jet(T, u, w)", T, w, mixed),
        ("push_jet(T, u, u)", T, u, straight),
        ("push_jet((T, C), u, w)", torch.cat([T, C]), w, mixed + J.push(C)),
    ):
        jet = J.push_jet(X, u, other)
        judge.require(len(jet) in (len(X), k + 3), check, f"expected {k + 3} entries, got {len(jet)}")
        judge.close(f"{check}: J T", jet[:k], J.push(T), like=T)
        second = jet[k:] if len(jet) > k else zero.expand_as(expected)
        judge.close(f"{check}: second derivatives", second, expected, like=T)


def check_layerwise(judge: Judge, J: Jacobian, module: nn.Module, x: Tensor, probes: Probes, wrt: Wrt) -> None:
    """``push_squared_layerwise`` and ``pull_squared_layerwise`` of a single layer or of a plain Sequential."""
    T, W = probes.T, probes.W
    layers = oracles.layers_of(module)
    ruled = all(_has_rule(layer, wrt) for layer in layers)
    if len(layers) > 1 and ruled:
        pushed = torch.stack([oracles.diag_backprop_push(module, x, rows(t, 1), wrt) for t in T]).reshape(W.shape)
        pulled = torch.stack([oracles.diag_backprop_pull(module, x, rows(w, 1), wrt) for w in W]).reshape(T.shape)
    elif len(layers) == 1 and (ruled or not isinstance(J, Chain | Graph | WeightGraph)):
        pushed, pulled = probes.pushed(T, squared=True), probes.pulled(W, squared=True)
    else:
        return  # several operations: what counts as a layer among them is not ours to say
    judge.close("push_squared_layerwise", J.push_squared_layerwise(T), pushed, like=T)
    judge.close("pull_squared_layerwise", J.pull_squared_layerwise(W), pulled, like=T)


def _has_rule(layer: nn.Module, wrt: Wrt) -> bool:
    weighted = wrt == "input" or not any(True for _ in layer.parameters()) or weight_rule_for(layer) is not None
    return rule_for(layer) is not None and weighted


def _gram(T: Tensor, S: Tensor) -> Tensor:
    sums = [[rows(t * s, 1).sum(1) for s in S] for t in T]
    return torch.stack([torch.stack(row) for row in sums]).permute(2, 0, 1)


def _outer(T: Tensor, S: Tensor) -> Tensor:
    terms = [rows(t, 1)[:, :, None] * rows(s, 1)[:, None, :] for t, s in zip(T, S, strict=True)]
    return torch.stack(terms).sum(0)
