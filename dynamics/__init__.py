"""The decomposition of one step of learning (Proposition 1) for any torch classifier."""

from dynamics.decomposition import StepDecomposition, decompose_step
from dynamics.kernels import empirical_ntk, softmax_jacobian

__all__ = ["StepDecomposition", "decompose_step", "empirical_ntk", "softmax_jacobian"]
