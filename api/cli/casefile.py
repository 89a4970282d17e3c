"""Case files of ``greenboard review`` and the table of steps that it prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from api.errors import CommandError

if TYPE_CHECKING:
    from api.schemas import CaseRequest

ADVICE = 'It takes JSON: {"clinical": {"age": 67}, ...}, or what POST /v1/cases takes.'


def read_case(path: Path) -> CaseRequest:
    """Read a case file: the body that ``POST /v1/cases`` takes, or feature rows alone.

    Raises:
        CommandError: if it cannot be read or is neither; no value of the file is repeated.
    """
    from pydantic import ValidationError

    from api.schemas import CaseRequest

    data = _json_of(path)
    if isinstance(data, dict) and not set(data) & set(CaseRequest.model_fields):
        data = {"features": data}
    try:
        case = CaseRequest.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = "/".join(str(part) for part in first["loc"]) or "the file"
        raise CommandError(f"{path}, {where}: {first['msg']}.") from None
    if case.features is None:
        raise CommandError(f"{path} holds a case_id; a case file needs 'features'.")
    return case


def _json_of(path: Path) -> Any:
    """What the file holds; no error repeats any of it, which may be a patient's."""
    import json

    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        why = f"{error.strerror or type(error).__name__}"
    except UnicodeDecodeError as error:
        why = f"byte {error.start + 1} is not UTF-8"
    except json.JSONDecodeError as error:
        why = f"line {error.lineno}, column {error.colno}: {error.msg}"
    except RecursionError:
        why = "it is nested too deeply"
    raise CommandError(f"Cannot read a case from {path}: {why}. {ADVICE}")


def refuse_past(deadline: datetime | None, now: datetime) -> None:
    """Refuse a deadline that has passed, as the server does.

    Raises:
        CommandError: if it has.
    """
    if deadline is not None and deadline <= now:
        raise CommandError("The case's deadline has passed; give a later one, or leave it out.")


def step_lines(events: Sequence[Mapping[str, Any]]) -> list[str]:
    """The steps of a case, one line each: what was done, the probability, energy and carbon."""
    lines = [f"{'step':12} {'what':34} {'p':>6} {'kWh':>10} {'gCO2e':>10}"]
    for event in events:
        data = event["data"]
        charge = data.get("charge") or {}
        what = _WHAT.get(event["kind"], lambda _: "")(data)
        lines.append(
            f"{event['kind']:12} {what[:34]:34} {_figure(data.get('probability'), '6.3f')} "
            f"{_figure(charge.get('energy_kwh'), '10.3g')} {_figure(charge.get('g_co2e'), '10.3g')}"
            + (f" {charge['energy_basis']}" if charge else "")
        )
        if event["kind"] == "choice":
            lines.append(f"{'':12} {data['reason']}")
    return lines


def _figure(value: float | None, form: str) -> str:
    width = int(form.partition(".")[0])
    return " " * width if value is None else format(value, form)


_WHAT: dict[str, Any] = {
    "intake": lambda d: "has " + ", ".join(d["present"]),
    "carbon": lambda d: f"{d['now']['g_per_kwh']:.0f} gCO2e/kWh, {d['now']['provider']}",
    "assessment": lambda d: "with " + ", ".join(d["processed"]),
    "choice": lambda d: f"{d['action']} ({d['policy']})",
    "transfer": lambda d: d["transfer"],
    "deferral": lambda d: f"wait {d['wait_h']:.1f} h",
    "wake": lambda d: f"woken by {d['by']}",
    "explanation": lambda d: f"suggests {d['suggestion']}",
    "decision": lambda d: f"{d['action']} by {d['reviewer']}",
    "record": lambda d: f"{d['status']}: {d['result']}",
}
