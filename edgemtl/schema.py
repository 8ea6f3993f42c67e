"""Files with a schema: what is read is what is written there, and what is wrong is told on one line."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from edgemtl.errors import brief

__all__ = ["first_problem", "validated"]

M = TypeVar("M", bound=BaseModel)


def validated(model: type[M], content: Any) -> M:
    """A value that was read from a JSON file as a model, nothing in it taken for something else.

    A text is no number there, a truth value no count. Raises pydantic's `ValidationError`.
    """
    return model.model_validate_json(json.dumps(content), strict=True)


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong, on one line: where, what, and what was given."""
    first = error.errors(include_url=False)[0]
    position = ".".join(str(part)[:60] for part in first["loc"][:10]) or "the whole file"
    given = "" if first["type"] in ("missing", "value_error") else f" (given: {brief(first.get('input'))})"
    return f"{position}: {first['msg']:.300}{given}"
