"""What a network's output means: distributions over targets, and the metrics that they put on the output.

A `Likelihood` says what the output ``η`` of a network is a parameter of. Its Fisher information is a metric on the
output; `ggn` pulls it back to latents or to weights.
"""

from pullgeo.likelihood.base import Likelihood
from pullgeo.likelihood.bernoulli import Bernoulli, BernoulliProbability
from pullgeo.likelihood.categorical import Categorical
from pullgeo.likelihood.categorical_fisher import CategoricalFisher
from pullgeo.likelihood.distribution import TorchDistribution
from pullgeo.likelihood.families import fisher_information
from pullgeo.likelihood.gaussian import Gaussian
from pullgeo.likelihood.ggn import ggn, ggn_blocks, ggn_diag
from pullgeo.likelihood.heteroscedastic import HeteroscedasticGaussian
from pullgeo.likelihood.laplace_torch import laplace_backend
from pullgeo.likelihood.mixture_nodes import MonteCarlo
from pullgeo.likelihood.poisson import Poisson
from pullgeo.likelihood.sampled import sampled_fisher, sampled_ggn, sampled_ggn_diag
from pullgeo.likelihood.scales import LogStd, LogVariance, Scale, Std, Variance

__all__ = [
    "Bernoulli",
    "BernoulliProbability",
    "Categorical",
    "CategoricalFisher",
    "Gaussian",
    "HeteroscedasticGaussian",
    "Likelihood",
    "LogStd",
    "LogVariance",
    "MonteCarlo",
    "Poisson",
    "Scale",
    "Std",
    "TorchDistribution",
    "Variance",
    "fisher_information",
    "ggn",
    "ggn_blocks",
    "ggn_diag",
    "laplace_backend",
    "sampled_fisher",
    "sampled_ggn",
    "sampled_ggn_diag",
]
