"""Plan the draws of a run, evaluate them, resume them; progress and cost.

May import smoothing and every lower floor.
"""

from smoothcert.engine.cluster import RayCluster
from smoothcert.engine.cost import Estimate
from smoothcert.engine.job import Job, prepare
from smoothcert.engine.run import certify, encode, predict

__all__ = ["Estimate", "Job", "RayCluster", "certify", "encode", "predict", "prepare"]
