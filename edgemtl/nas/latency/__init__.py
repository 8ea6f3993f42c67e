"""Latency without measuring everything: tables of a space's parts on one device and runtime, and what they predict."""

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
from edgemtl.nas.latency.making import DESIGNS, PASSES, make_table, measure_designs, spread_designs
from edgemtl.nas.latency.parts import Part, design_parts
from edgemtl.nas.latency.regression import kendall_tau
from edgemtl.nas.latency.table import HeldOut, LatencyTable, MeasuredDesign, fit_table

__all__ = [
    "DESIGNS",
    "PASSES",
    "UNFINISHED",
    "HeldOut",
    "LatencyTable",
    "MeasuredDesign",
    "Part",
    "StoredTable",
    "TableKey",
    "design_parts",
    "fit_table",
    "kendall_tau",
    "key_of",
    "make_table",
    "measure_designs",
    "misfits",
    "read_table",
    "spread_designs",
    "table_file",
    "table_files",
    "write_table",
]
