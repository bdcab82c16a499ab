"""Weights of a chain of layers that have rules: its stages without recording, which takes longer than small layers."""

from collections.abc import Iterator

from torch import Tensor, nn

from pullgeo._torch.submodules import all_parameters
from pullgeo.jacobian.checks import checked_value
from pullgeo.jacobian.kinds.graph import Edge
from pullgeo.jacobian.registry import InputRule, WeightRule, rule_for, served_class, weight_rule_for
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
    rules = [_rules_of(layer, ids) for layer in layers]
    if None in rules or not rules:
        return None
    stages: list[Stage] = []
    y = x
    for layer, (rule, weight_rule) in zip(layers, filter(None, rules), strict=True):
        check_batch(layer, y)
        own = None if weight_rule is None else own_of(layer, weight_rule(layer, y), layout)
        if not y.is_floating_point():  # indices, and what is behind them does not depend on parameters yet
            if stages:
                return None
            y, edges = checked_value(layer, y), tuple[Edge, ...]()
        else:
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


def _rules_of(layer: nn.Module, ids: frozenset[int]) -> tuple[InputRule, WeightRule | None] | None:
    """The rules that a layer needs, the second only for parameters that count; ``None`` if it lacks one."""
    rule = rule_for(layer)
    if rule is None or vars(layer).get("return_indices") or getattr(type(layer), "return_indices", False):
        return None
    if ids.isdisjoint(map(id, all_parameters(layer))):
        return rule, None
    weight_rule = weight_rule_for(layer)
    return None if weight_rule is None else (rule, weight_rule)
