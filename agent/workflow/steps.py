"""Each step of a review in sentences, from its event alone: for the page, streams and logs.

The first sentence says what happened, those after it why and with which figures. Nothing names a
patient; a person is named only where an action of theirs is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from agent.workflow.changes import change_lines
from agent.workflow.told import AxisTried, class_words

Data = Mapping[str, Any]
KEPT = frozenset(
    {"choice", "transfer", "deferral", "wake", "request", "unreliable", "urgency", "parked"}
)
"""Kinds of steps whose first sentence is kept for the explanation of the result."""


def step_lines(event: Mapping[str, Any], classes: Sequence[str] = ()) -> list[str]:
    """Sentences about one step.

    Args:
        event: its ``kind`` and ``data``, as stored and streamed; data of earlier versions may
            lack fields, and a kind that is not known gives no sentence.
        classes: names of the negative and the positive class, if they have names.
    """
    tell = TELLERS.get(str(event["kind"]))
    if tell is None:
        return []
    return [line for line in tell({"classes": classes, **event["data"]}) if line]


def told_after(events: Iterable[Mapping[str, Any]]) -> list[str]:
    """The first sentences of those of a step's events that are worth keeping."""
    return [line for event in events if event["kind"] in KEPT for line in _first(event)]


def _first(event: Mapping[str, Any]) -> list[str]:
    """The first sentence about a step; what comes after it is not even put together."""
    return list(islice((line for line in TELLERS[event["kind"]](event["data"]) if line), 1))


def _intake(data: Data) -> list[str]:
    lacking = data.get("missing", [])
    due = data.get("deadline")
    return [
        f"The case has {_listed(data.get('present', []))}"
        + (f" and lacks {_listed(lacking)}." if lacking else "; nothing is missing."),
        f"Urgency {data.get('urgency', 0.0):.2g}"
        + (f", due {_minute(due)}; " if due else ", no deadline given; ")
        + f"policy {data.get('policy', 'unknown')} decides.",
        f"Not the policy that was asked for: {data['policy_fallback']}."
        if data.get("policy_fallback")
        else "",
        *(f"Caution: {caution}" for caution in data.get("cautions", [])),
    ]


def _carbon(data: Data) -> list[str]:
    now, ahead = data["now"], data.get("forecast_g_per_kwh", [])
    lines = [
        f"The grid is at {now['g_per_kwh']:.4g} gCO2e/kWh ({now['kind']}; {now['provider']}, zone "
        f"{now['zone']})."
    ]
    if ahead:
        low = min(ahead)
        lines.append(
            f"Forecast for the next {len(ahead)} hours: {low:.4g} to {max(ahead):.4g}, lowest in "
            f"{ahead.index(low) + 1} h ({data.get('forecast_note', '')})."
        )
    elif data.get("forecast_note"):
        lines.append(f"Nothing is known of the hours ahead: {data['forecast_note']}.")
    return lines


def _assessment(data: Data) -> list[str]:
    before, run = data.get("probability_before"), data.get("transfers_run", [])
    moved = "" if before is None else f", {before:.3f} before"
    lines = [
        f"Probability of {class_words(data['classes'], 'positive')} {data['probability']:.3f}"
        f"{moved}, with " + (f"{_listed(run)}." if run else "clinical data alone.")
    ]
    if data.get("conformal_level") is not None:
        left = data.get("conformal_set", [])
        named = " and ".join(left) if left else "neither class"
        verb = "are" if len(left) > 1 else "is"
        lines.append(f"At the {100 * data['conformal_level']:.0f} % level {named} {verb} left.")
    if data.get("charge"):
        lines.append(_cost(data["charge"]))
    return lines


def _cost(charge: Data) -> str:
    if charge.get("energy_kwh") is None:
        return f"Energy not known: {charge.get('reason') or 'no reason given'}."
    return (
        f"It took {charge['energy_kwh']:.4g} kWh ({charge['energy_basis']}), "
        f"{charge['g_co2e']:.4g} gCO2e at {charge['intensity']['g_per_kwh']:.4g} gCO2e/kWh."
    )


def _choice(data: Data) -> Iterator[str]:
    options = {option["action"]: option for option in data.get("options", [])}
    taken = options.get(data["action"], {})
    yield f"Policy {data['policy']} chose {_option({'action': data['action'], **taken})}."
    yield f"Why: {data['reason']}"
    others = [
        _option(option)
        for name, option in options.items()
        if option["allowed"] and name != data["action"]
    ]
    yield f"Also open: {'; '.join(others)}." if others else "Nothing else was open."
    closed = [name for name, option in options.items() if not option["allowed"]]
    yield f"Not open: {', '.join(closed)}." if closed else ""
    if data.get("budget_left_g_co2e") is not None:
        yield (
            f"Of the day's budget {data['budget_left_g_co2e']:,.0f} gCO2e were left; policies were "
            f"trained with a unit of AUC at {data.get('price_g_co2e_per_auc', 0.0):,.0f} gCO2e."
        )
    yield from change_lines([AxisTried.model_validate(axis) for axis in data.get("changes", [])])
    yield from (f"Carbon limit: {note}" for note in data.get("limit_notes", []))


def _option(option: Data) -> str:
    """An action with what is known of it."""
    facts = []
    if option.get("predicted_auc_gain") is not None:
        gain = round(option["predicted_auc_gain"], 5) + 0.0
        facts.append(f"predicted gain {gain:+.5f} session AUC")
    if option.get("energy_kwh") is not None:
        facts.append(f"{option['energy_kwh']:.3g} kWh")
    if option.get("g_co2e") is not None:
        facts.append(f"{option['g_co2e']:.3g} gCO2e")
    if option.get("wait_h") is not None:
        facts.append(f"wait of {option['wait_h']:.3g} h")
    return f"{option['action']} ({', '.join(facts)})" if facts else str(option["action"])


def _transfer(data: Data) -> list[str]:
    return [f"Ran {data['transfer']}. {_cost(data['charge'])}"]


def _deferral(data: Data) -> list[str]:
    why = "because of a carbon limit" if data.get("by_limit") else "for cleaner electricity"
    return [
        f"Put off {why}, until {_minute(data['wake_at'])}: "
        f"{data['intensity_expected_g_per_kwh']:.4g} gCO2e/kWh are expected then, "
        f"{data['intensity_now_g_per_kwh']:.4g} are met now.",
        str(data.get("why", "")),
    ]


def _wake(data: Data) -> list[str]:
    early = ", earlier than planned" if data.get("early") else ""
    return [f"Looked at again{early}: {_who(data)}."]


def _who(data: Data) -> str:
    by = str(data.get("by", "unknown"))
    return "the planned hour has come" if by == "schedule" else f"woken by {by}"


def _explanation(data: Data) -> list[str]:
    bits = data.get("uncertainty_bits")
    unsure = "" if bits is None else f", uncertainty {bits:.2f} bit"
    classes = data["classes"]
    return [
        f"Suggests {class_words(classes, data['suggestion'])}: probability of "
        f"{class_words(classes, 'positive')} {data['probability']:.3f}{unsure}. A clinician "
        "decides.",
        *data.get("lines", []),
    ]


def _coded(data: Data) -> str:
    code = data.get("reason_code")
    return f" ({str(code).replace('_', ' ')})" if code else ""


def _by(data: Data) -> str:
    return f" by {data['reviewer']}" if data.get("reviewer") else ""


def request_line(data: Data) -> str:
    """One action of a clinician that changed the evidence or the urgency, and whose it was."""
    if data.get("transfer"):
        what = f"{data['transfer']} was asked for"
    elif data.get("modality"):
        what = f"{data['modality']} was marked as unreliable and left out"
    else:
        what = f"Urgency was raised to {float(data.get('urgency', 0.0)):.2g}"
    return f"{what}{_by(data)}{_coded(data)}."


def _requested(data: Data) -> list[str]:
    if data.get("action") == "retry":
        head = f"Tried again at step {data.get('node', 'that failed')}{_by(data)}."
    elif data.get("refused"):
        what = str(data.get("action", "A request")).replace("_", " ").capitalize()
        return [f"{what}{_by(data)} was refused: {data['refused']}"]
    else:
        head = request_line(data)
    facts = ""
    if data.get("g_co2e") is not None:
        facts = f"It takes {data['energy_kwh']:.4g} kWh, {data['g_co2e']:.4g} gCO2e now."
    dropped = data.get("transfers_dropped")
    return [
        head,
        facts,
        f"Dropped with it: {_listed(dropped)}." if dropped else "",
        f"Carbon limit: {data['note']}" if data.get("note") else "",
        f"Comment: {data['comment']}" if data.get("comment") else "",
    ]


def _parked(data: Data) -> list[str]:
    return [f"Parked: a person has to look. {data.get('reason') or 'No reason was given.'}"]


def _decision(data: Data) -> list[str]:
    action = {"accept": "Accepted", "override": "Overridden", "send_back": "Sent back"}
    result = f" with {data['result']}" if data.get("result") else ""
    head = action.get(str(data.get("action")), str(data.get("action", "Decided")))
    comment = f"Comment: {data['comment']}" if data.get("comment") else ""
    return [f"{head}{result}{_by(data)}{_coded(data)}.", comment]


def _opinion(data: Data) -> list[str]:
    said = data.get("result") or data.get("action", "")
    standing = {True: "as the reviewer before", False: "unlike the opinion before"}
    agrees = standing.get(data.get("agrees"), "another reviewer has to agree")  # type: ignore[arg-type]
    return [
        f"Opinion{_by(data)}: {said}{_coded(data)}; {agrees}.",
        f"Comment: {data['comment']}" if data.get("comment") else "",
    ]


def _record(data: Data) -> list[str]:
    if data.get("status") == "sent_back":
        return ["Closed without a result: the case went back to whoever posted it."]
    return [f"Recorded as {data.get('result')}. Research use only."]


def _minute(iso: str) -> str:
    return f"{str(iso)[:16].replace('T', ' ')} UTC"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "nothing"


TELLERS: dict[str, Callable[[Data], Iterable[str]]] = {
    "intake": _intake,
    "carbon": _carbon,
    "assessment": _assessment,
    "choice": _choice,
    "transfer": _transfer,
    "deferral": _deferral,
    "wake": _wake,
    "explanation": _explanation,
    "opinion": _opinion,
    "request": _requested,
    "unreliable": _requested,
    "urgency": _requested,
    "parked": _parked,
    "decision": _decision,
    "record": _record,
}
