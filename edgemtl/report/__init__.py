"""Reports: one HTML page about a run or bundle, comparisons of two, predictions as pictures."""

from edgemtl.report.comparison import COLUMNS as COMPARISON_COLUMNS
from edgemtl.report.comparison import Comparison, ComparisonRow, compare, comparison_cells
from edgemtl.report.drawing.net import draw_net
from edgemtl.report.drawing.timeline import draw_schedule
from edgemtl.report.page import write_report
from edgemtl.report.pictures.overlays import overlay
from edgemtl.report.pictures.sheets import Example, animation, contact_sheet, draw_prediction

__all__ = [
    "COMPARISON_COLUMNS",
    "Comparison",
    "ComparisonRow",
    "Example",
    "animation",
    "compare",
    "comparison_cells",
    "contact_sheet",
    "draw_net",
    "draw_prediction",
    "draw_schedule",
    "overlay",
    "write_report",
]
