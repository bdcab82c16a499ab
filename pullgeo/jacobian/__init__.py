"""What a layer's derivative is: ``linearize(module, x) -> (y, J)`` with ``J`` a structured linear map.

Add a layer by registering a function with `rule`; see `pullgeo.jacobian.rules` for all of ours.
"""

from pullgeo.jacobian import rules
from pullgeo.jacobian.autodiff import Autodiff, AutodiffWeight
from pullgeo.jacobian.base import Jacobian, LinearKind, Transpose, chunks
from pullgeo.jacobian.broadcast_weight import BroadcastWeight
from pullgeo.jacobian.chain import Chain, compose
from pullgeo.jacobian.contract import gram, outer
from pullgeo.jacobian.elementwise import Elementwise
from pullgeo.jacobian.linear_map import LinearMap, Reshape
from pullgeo.jacobian.linear_weight import LinearWeight
from pullgeo.jacobian.linearize import linearize
from pullgeo.jacobian.parameters import ParameterLayout
from pullgeo.jacobian.registry import registered_classes, rule, rule_for, weight_rule, weight_rule_for
from pullgeo.jacobian.signature import Signature
from pullgeo.jacobian.weights import Stage, WeightChain

__all__ = [
    "Autodiff",
    "AutodiffWeight",
    "BroadcastWeight",
    "Chain",
    "Elementwise",
    "Jacobian",
    "LinearKind",
    "LinearMap",
    "LinearWeight",
    "ParameterLayout",
    "Reshape",
    "Signature",
    "Stage",
    "Transpose",
    "WeightChain",
    "chunks",
    "compose",
    "gram",
    "linearize",
    "outer",
    "registered_classes",
    "rule",
    "rule_for",
    "rules",
    "weight_rule",
    "weight_rule_for",
]
