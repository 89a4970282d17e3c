"""What every page of greenboard's reports shares: templates, colours, escaping."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from agent.report.palette import css_variables


def page_environment(filters: Mapping[str, Callable[..., Any]]) -> Environment:
    """Templates that escape what they are given and refuse what they are not.

    Args:
        filters: of this page.
    """
    environment = Environment(
        loader=PackageLoader("agent.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= dict(filters)
    environment.globals |= {
        "light_tones": css_variables(dark=False), "dark_tones": css_variables(dark=True),
    }  # fmt: skip
    return environment
