"""Documents with a schema: values are read strictly, and the first problem is reported in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgemtl.errors import UserError, brief
from edgemtl.files.disk import read_json
from edgemtl.files.json import check_schema

__all__ = ["Name", "Strict", "Text", "first_problem", "parse_document", "read_document", "validated"]

Name = Annotated[str, Field(min_length=1, max_length=500)]
Text = Annotated[str, Field(max_length=2000)]


class Strict(BaseModel):
    """A part of a document: immutable, without unknown keys, NaN or infinities."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


M = TypeVar("M", bound=BaseModel)


def read_document(path: Path, what: str, model: type[M], schema: str, remedy: str) -> M:
    """A JSON file of this schema as a model; `what` names it in errors ("result"), and `remedy` says what to do.

    Raises `UserError`, one line, for a file that cannot be read, of another schema, or with a value that does not fit.
    """
    return parse_document(read_json(path, what), f"{what} {path}", model, schema, remedy)


def parse_document(content: Any, subject: str, model: type[M], schema: str, remedy: str) -> M:
    """The content of a JSON file as a model, as `read_document` gives it; `subject` names the file."""
    check_schema(content, subject, schema, remedy)
    try:
        return validated(model, content)
    except ValidationError as error:
        raise UserError(
            f"{subject} cannot be used: {first_problem(error)}; it was changed by hand or is damaged: {remedy}"
        ) from error


def validated(model: type[M], content: Any) -> M:
    """A value that was read from a JSON file as a model, nothing in it taken for something else.

    A string is no number, a boolean no count. Raises pydantic's `ValidationError`.
    """
    return model.model_validate_json(json.dumps(content), strict=True)


def first_problem(error: ValidationError) -> str:
    """The first problem in one line: where, what, and what was given."""
    first = error.errors(include_url=False)[0]
    position = ".".join(str(part)[:60] for part in first["loc"][:10]) or "the whole file"
    given = "" if first["type"] in ("missing", "value_error") else f" (given: {brief(first.get('input'))})"
    return f"{position}: {first['msg'].removeprefix('Value error, '):.500}{given}"
