"""What a layer's derivative is: ``linearize(module, x) -> (y, J)`` with ``J`` a structured linear map.

Add a layer by registering a function with `rule`; see `pullgeo.jacobian.rules` for all of ours.
"""

from pullgeo.jacobian import rules
from pullgeo.jacobian.autodiff import Autodiff, AutodiffWeight
from pullgeo.jacobian.base import ChunkSize, Jacobian, LinearKind, Transpose, added_up, all_added_up, chunks
from pullgeo.jacobian.batch_sum import BatchSum
from pullgeo.jacobian.broadcast_weight import BroadcastWeight
from pullgeo.jacobian.chain import Chain, compose
from pullgeo.jacobian.checks import check_fixed
from pullgeo.jacobian.contract import combined, flat, gram, outer
from pullgeo.jacobian.conv_weight import ConvWeight
from pullgeo.jacobian.convolution import Convolution
from pullgeo.jacobian.elementwise import Elementwise
from pullgeo.jacobian.explain import Explanation, Row, explain
from pullgeo.jacobian.glu import GatedLinear
from pullgeo.jacobian.graph import Edge, Graph, Node
from pullgeo.jacobian.index_map import IndexMap
from pullgeo.jacobian.linear_map import LinearMap, Reshape, ones_map, stacked
from pullgeo.jacobian.linear_weight import LinearWeight
from pullgeo.jacobian.linearize import linearize
from pullgeo.jacobian.local_response import LocalResponse
from pullgeo.jacobian.lookup_weight import LookupWeight
from pullgeo.jacobian.normalization import RowNormalization
from pullgeo.jacobian.parameters import ParameterLayout
from pullgeo.jacobian.recompute import over_chunks, recomputed
from pullgeo.jacobian.registry import registered_classes, rule, rule_for, weight_rule, weight_rule_for
from pullgeo.jacobian.sample_gradients import named_sample_gradients, sample_gradient_norms, sample_gradients
from pullgeo.jacobian.separable import Separable
from pullgeo.jacobian.shared_weight import SharedWeight
from pullgeo.jacobian.signature import Signature
from pullgeo.jacobian.softmax import LogSoftmax, Softmax
from pullgeo.jacobian.tangent_kernel import tangent_kernel
from pullgeo.jacobian.tangents import one_thread_at_a_time, tracked
from pullgeo.jacobian.weight_kind import OtherWeight, WeightKind, as_weight_kind
from pullgeo.jacobian.weights import Own, Stage, WeightGraph

__all__ = [
    "Autodiff",
    "AutodiffWeight",
    "BatchSum",
    "BroadcastWeight",
    "Chain",
    "ChunkSize",
    "ConvWeight",
    "Convolution",
    "Edge",
    "Elementwise",
    "Explanation",
    "GatedLinear",
    "Graph",
    "IndexMap",
    "Jacobian",
    "LinearKind",
    "LinearMap",
    "LinearWeight",
    "LocalResponse",
    "LogSoftmax",
    "LookupWeight",
    "Node",
    "OtherWeight",
    "Own",
    "ParameterLayout",
    "Reshape",
    "Row",
    "RowNormalization",
    "Separable",
    "SharedWeight",
    "Signature",
    "Softmax",
    "Stage",
    "Transpose",
    "WeightGraph",
    "WeightKind",
    "added_up",
    "all_added_up",
    "as_weight_kind",
    "check_fixed",
    "chunks",
    "combined",
    "compose",
    "explain",
    "flat",
    "gram",
    "linearize",
    "named_sample_gradients",
    "one_thread_at_a_time",
    "ones_map",
    "outer",
    "over_chunks",
    "recomputed",
    "registered_classes",
    "rule",
    "rule_for",
    "rules",
    "sample_gradient_norms",
    "sample_gradients",
    "stacked",
    "tangent_kernel",
    "tracked",
    "weight_rule",
    "weight_rule_for",
]
