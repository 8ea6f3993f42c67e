"""What a person reads: one HTML page about a run or bundle, two of them side by side, predictions as pictures."""

from edgemtl.report._compare import COLUMNS as COMPARISON_COLUMNS
from edgemtl.report._compare import Comparison, ComparisonRow, compare, comparison_cells
from edgemtl.report._overlays import overlay
from edgemtl.report._page import write_report
from edgemtl.report._pictures import Example, animation, contact_sheet, draw_prediction
from edgemtl.report._timeline import draw_schedule

__all__ = [
    "COMPARISON_COLUMNS",
    "Comparison",
    "ComparisonRow",
    "Example",
    "animation",
    "compare",
    "comparison_cells",
    "contact_sheet",
    "draw_prediction",
    "draw_schedule",
    "overlay",
    "write_report",
]
