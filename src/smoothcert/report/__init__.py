"""Pictures of runs: certified-accuracy and cosine curves, image grids, as PNG and SVG. Never torch.

May import analysis, runlog, errors. matplotlib is imported only when something is drawn, on its file-writing
canvases: no window, no pyplot, no state left behind. Radii are L2 on pixels in [0, 1].
"""

from smoothcert.report.cosine import cosine_curve, length_histogram
from smoothcert.report.curves import curve
from smoothcert.report.grids import GridColumn, grid

__all__ = ["GridColumn", "cosine_curve", "curve", "grid", "length_histogram"]
