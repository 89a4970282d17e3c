"""The page's templates: everything is escaped, and what is undefined is an error."""

from __future__ import annotations

from collections.abc import Mapping

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from api.schemas import RESEARCH_USE
from api.web import words
from api.web.assets import Asset


def page_environment(assets: Mapping[str, Asset]) -> Environment:
    """The environment that renders every page."""
    environment = Environment(
        loader=PackageLoader("api.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {
        "status_word": words.status_word,
        "reason_word": words.reason_word,
        "action_word": words.action_word,
        "urgency_word": words.urgency_word,
        "chance": words.chance,
        "number": words.number,
        "small": words.small,
        "signed": words.signed,
        "percent": words.percent,
        "arrow": arrow,
    }
    environment.globals |= {
        "asset": {name: f"/static/{kept.path}" for name, kept in assets.items()},
        "research_use": RESEARCH_USE,
        "reasons": words.REASONS,
        "status_words": words.STATUS,
        "status_means": words.STATUS_MEANS,
        "roles": words.ROLES,
    }
    return environment


def arrow(name: str) -> Markup:
    """A transfer's or an action's name with a real arrow that is read out as a word."""
    to = Markup('<span aria-hidden="true"> → </span><span class="sr"> to </span>')
    return to.join(escape(part) for part in name.split("->"))
