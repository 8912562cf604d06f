"""Reading runs: certified accuracy tables, curves, paired comparisons, published tables as data. Never torch.

Input is ``runlog.Results``, from a run file or an imported log. May import runlog, bounds, errors. A share is
always a count of images out of a count of images; radii are L2 on pixels in [0, 1].
"""

from smoothcert.analysis import published
from smoothcert.analysis.accuracy import CertifiedAccuracy, certified_accuracy
from smoothcert.analysis.average_radius import acr
from smoothcert.analysis.beside import Beside
from smoothcert.analysis.best import BestAccuracy
from smoothcert.analysis.cosine import (
    CertifiedCosines,
    CosineTable,
    certified_cosines,
    cosine_table,
)
from smoothcert.analysis.curves import Curve, curve
from smoothcert.analysis.draws import DrawAccuracy, draw_accuracy, draw_table
from smoothcert.analysis.effort import (
    Decisions,
    Effort,
    decision_table,
    decisions,
    effort,
    effort_table,
)
from smoothcert.analysis.paired import PairedComparison, compare
from smoothcert.analysis.proportion import Proportion
from smoothcert.analysis.whole import WholeSet, whole_set, whole_table

__all__ = [
    "Beside",
    "BestAccuracy",
    "CertifiedAccuracy",
    "CertifiedCosines",
    "CosineTable",
    "Curve",
    "Decisions",
    "DrawAccuracy",
    "Effort",
    "PairedComparison",
    "Proportion",
    "WholeSet",
    "acr",
    "certified_accuracy",
    "certified_cosines",
    "compare",
    "cosine_table",
    "curve",
    "decision_table",
    "decisions",
    "draw_accuracy",
    "draw_table",
    "effort",
    "effort_table",
    "published",
    "whole_set",
    "whole_table",
]
