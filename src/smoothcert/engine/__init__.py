"""Plan the draws of a run, evaluate them, resume them; progress and cost.

May import smoothing and every lower floor.
"""

from smoothcert.engine.run import Estimate, Job, certify, predict, prepare

__all__ = ["Estimate", "Job", "certify", "predict", "prepare"]
