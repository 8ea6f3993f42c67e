"""Label files and tables of every kind: sizes, and a table's rows by image.

Errors here do not name the file; the caller does (`naming`).
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from edgemtl.errors import UserError, unknown_name
from edgemtl.files.disk import read_bytes
from edgemtl.files.names import nfc
from edgemtl.tasks import FileSpec, Header, TableSpec

__all__ = ["Cells", "check_header", "read_table"]

Cells = Sequence[Sequence[str]]
"""The rows of one image, each with the cells of its label's columns."""

_TABLE_LIMIT_BYTES = 2**26


def check_header(spec: FileSpec, header: Header, size: tuple[int, int], npy: bool) -> None:
    """Whether a label file of this header can belong to an image of `size`; raises `UserError` where it cannot."""
    if (header.height, header.width) != size:
        raise UserError(
            f"is {header.height} x {header.width} pixels, its image {size[0]} x {size[1]}: "
            "a label has its image's size, resize it (nearest) or make it again"
        )
    spec.check_header(header, npy)


def read_table(path: Path, spec: TableSpec) -> dict[str, list[list[str]]]:
    """Rows of a CSV file by the cell that names the image; raises `UserError` for a column that is not there.

    An image that is there again with another label is refused, unless the kind has several rows an image.
    """
    if not path.exists():
        raise UserError("the file is missing")
    try:
        text = read_bytes(path, "table", _TABLE_LIMIT_BYTES).decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""))
        for column in (spec.image, *spec.label_columns):
            if column not in (reader.fieldnames or ()):
                raise unknown_name("column", column, reader.fieldnames or ())
        rows: dict[str, list[list[str]]] = defaultdict(list)
        for row in reader:
            image, *cells = (nfc((row[column] or "").strip()) for column in (spec.image, *spec.label_columns))
            if spec.several or not rows[image]:
                rows[image].append(cells)
            elif rows[image] != [cells]:
                raise UserError(f"line {reader.line_num}: {image!r:.80} is there before with another label: keep one")
        return dict(rows)
    except UnicodeDecodeError as error:
        raise UserError(f"is not UTF-8 text ({error.reason} at byte {error.start}): save it as UTF-8") from error
    except csv.Error as error:
        raise UserError(f"cannot be read as CSV ({error})") from error
