"""Latency without measuring everything: tables of a space's parts on one device and runtime, and what they predict.

Of a device that is not reached, what a roofline of its stated rates estimates.
"""

from edgemtl.nas.latency.estimate import (
    FITS,
    Fit,
    LatencyEstimate,
    estimate_for,
    estimate_latency,
    find_fit,
    read_fit,
    write_fit,
)
from edgemtl.nas.latency.file import (
    UNFINISHED,
    StoredTable,
    TableKey,
    key_of,
    misfits,
    read_table,
    table_file,
    table_files,
    write_table,
)
from edgemtl.nas.latency.fitting import fit_efficiencies, judge_efficiencies, measure_roofs
from edgemtl.nas.latency.making import DESIGNS, PASSES, make_table, measure_designs, spread_designs
from edgemtl.nas.latency.parts import Part, design_parts
from edgemtl.nas.latency.regression import kendall_tau
from edgemtl.nas.latency.roofline import UNFITTED, Efficiencies, Roofs, estimate_ms, lacking_roofs, roofs_of
from edgemtl.nas.latency.table import HeldOut, LatencyTable, MeasuredDesign, fit_table

__all__ = [
    "DESIGNS",
    "FITS",
    "PASSES",
    "UNFINISHED",
    "UNFITTED",
    "Efficiencies",
    "Fit",
    "HeldOut",
    "LatencyEstimate",
    "LatencyTable",
    "MeasuredDesign",
    "Part",
    "Roofs",
    "StoredTable",
    "TableKey",
    "design_parts",
    "estimate_for",
    "estimate_latency",
    "estimate_ms",
    "find_fit",
    "fit_efficiencies",
    "fit_table",
    "judge_efficiencies",
    "kendall_tau",
    "key_of",
    "lacking_roofs",
    "make_table",
    "measure_designs",
    "measure_roofs",
    "misfits",
    "read_fit",
    "read_table",
    "roofs_of",
    "spread_designs",
    "table_file",
    "table_files",
    "write_fit",
    "write_table",
]
