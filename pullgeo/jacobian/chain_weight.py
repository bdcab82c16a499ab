"""Weights of a chain of layers that have rules: its stages without recording, which takes longer than small layers."""

from collections.abc import Iterator

from torch import Tensor, nn

from pullgeo.jacobian.checks import checked_value
from pullgeo.jacobian.kinds.graph import Edge
from pullgeo.jacobian.registry import rule_for, served_class, weight_rule_for
from pullgeo.jacobian.tracing.layers import check_batch
from pullgeo.jacobian.weights.parameters import ParameterLayout
from pullgeo.jacobian.weights.weight_graph import Stage, own_of


def chain_stages(module: nn.Module, x: Tensor, layout: ParameterLayout) -> tuple[Tensor, list[Stage]] | None:
    """The value of a chain and the stages of its derivative with respect to the weights.

    Args:
        module: a module.
        x: the batch.
        layout: the parameters that count.

    Returns:
        None, unless the module is a Sequential, nested at will, all of whose layers have the rules that they need.

    Raises:
        CoupledSamplesError: a layer would take the batch for channels.
    """
    if served_class(module) is not nn.Sequential:
        return None
    layers = list(_layers(module))
    ids = layout.ids
    if not all(_is_served(layer, ids) for layer in layers) or not layers:
        return None
    stages: list[Stage] = []
    y = x
    for layer in layers:
        check_batch(layer, y)
        weight_rule = weight_rule_for(layer)
        own = None
        if weight_rule is not None and _has(layer, ids):
            own = own_of(layer, weight_rule(layer, y), layout)
        if not y.is_floating_point():  # indices, and what is behind them does not depend on parameters yet
            if stages:
                return None
            y, edges = checked_value(layer, y), tuple[Edge, ...]()
        else:
            rule = rule_for(layer)
            if rule is None:
                return None
            y, J = rule(layer, y)
            edges = (Edge(len(stages) - 1, J),) if stages else ()
        if stages or own is not None:
            stages.append(Stage(own, edges))
    return (y, stages) if stages else None


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    for child in module._modules.values():  # children() would leave out those that come twice
        if child is None:
            continue
        if served_class(child) is nn.Sequential:
            yield from _layers(child)
        else:
            yield child


def _has(layer: nn.Module, ids: frozenset[int]) -> bool:
    return any(id(p) in ids for p in layer.parameters())


def _is_served(layer: nn.Module, ids: frozenset[int]) -> bool:
    if rule_for(layer) is None or getattr(layer, "return_indices", False):
        return False
    return weight_rule_for(layer) is not None or not _has(layer, ids)
