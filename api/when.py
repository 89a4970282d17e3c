"""A moment that a caller writes down: as text, with a time zone, in the calendar."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator

from api.schemas import Moment, written_out

When = Annotated[Moment, BeforeValidator(written_out)]
