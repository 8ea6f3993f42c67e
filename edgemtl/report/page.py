"""The verb `report`: one page that needs nothing but a browser."""

from __future__ import annotations

from pathlib import Path

from edgemtl.files.disk import check_own, write_atomic
from edgemtl.report.drawing.html import Markup, element
from edgemtl.report.load import ReportData, load_report_data
from edgemtl.report.sections.blocks import block_losses_section
from edgemtl.report.sections.experts import experts_section
from edgemtl.report.sections.facts import environment_section, origins_section, parity_section, pictures_section
from edgemtl.report.sections.header import header
from edgemtl.report.sections.latency import operators_section, profile_section
from edgemtl.report.sections.levels import levels_section
from edgemtl.report.sections.limits import limits_section
from edgemtl.report.sections.network import cost_section, design_section
from edgemtl.report.sections.search import front_section, tasks_section
from edgemtl.version import __version__

__all__ = ["write_report"]

REPORT_FILE = "report.html"
_TITLE = ": edgemtl report"
# Nothing is fetched and no script runs, whatever a name or a file contains.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def write_report(path: Path, out: Path | None = None) -> Path:
    """Write one self-contained HTML page about a run folder, a bundle, or a result, manifest or profile file.

    `out` is a file, or a folder that gets `report.html` (none: beside what is reported). The page loads nothing from a
    network, runs no script, and shows every name as text. Raises `UserError` where `path` holds nothing to report, and
    where `out` is a file that is no report. Returns the file.
    """
    data = load_report_data(path)
    position = out or (path if path.is_dir() else path.parent)
    file = position / REPORT_FILE if position.is_dir() else position
    check_own(file, f"{_TITLE}</title>", "report")
    write_atomic(file, render(data))
    return file


def render(data: ReportData) -> str:
    """The page as text."""
    style = Markup((Path(__file__).with_name("style.css")).read_text(encoding="utf-8"))
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", f"{data.name}{_TITLE}"),
        element("style", style),
    )
    sections = (
        limits_section(data),
        front_section(data),
        tasks_section(data),
        design_section(data),
        block_losses_section(data),
        experts_section(data),
        cost_section(data),
        levels_section(data),
        *(profile_section(data, profile) for profile in data.profiles),
        pictures_section(data),
        parity_section(data),
        *(operators_section(data, profile) for profile in data.profiles),
        origins_section(data),
        environment_section(data),
    )
    footer = element("footer", f"edgemtl {__version__}: this page is one file and needs no network")
    body = element("body", element("main", header(data), sections, footer))
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"
