"""The timeline of a case: its events in a reader's words, each with what it cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from api.web import words
from api.web.case_charts import Look

LIMIT_WORDS = {"finalise": "stop and explain", "defer": "wait for a cleaner hour"}
AXES = {
    "grid": "Grid intensity",
    "budget": "Day's budget left",
    "urgency": "Urgency",
    "deadline": "Time to the deadline",
    "probability": "Probability",
    "price": "Price",
}


@dataclass(frozen=True, kw_only=True)
class OptionLine:
    """One row of the options table."""

    action: str
    gain: str
    energy: str
    carbon: str
    wait: str
    state: str
    note: str


@dataclass(kw_only=True)
class Step:
    """One step of the timeline.

    Attributes:
        seq: number of the event.
        kind: of the event.
        look: how it is marked: "did", "person", "wait", "bad" or "".
        title: what happened.
        lines: sentences below it.
        cost: energy and carbon with their basis.
        options: what was open, for a choice.
        changes: what would have changed the choice.
        quote: a person's comment.
    """

    seq: int
    kind: str
    time: str
    title: str
    look: str = ""
    lines: list[str] = field(default_factory=list)
    cost: str = ""
    basis: str = ""
    options: list[OptionLine] = field(default_factory=list)
    changes: list[tuple[str, str, str]] = field(default_factory=list)
    known: list[tuple[str, str]] = field(default_factory=list)
    quote: str = ""


Data = Mapping[str, Any]


def timeline(events: Sequence[Mapping[str, Any]], classes: Mapping[str, str]) -> list[Step]:
    """Every event as a step, in order.

    Args:
        events: as the store has them.
        classes: names of "negative" and "positive".
    """
    told = []
    for event in events:
        step = Step(
            seq=event["seq"], kind=event["kind"], time=event["time"], title=event["kind"].title()
        )
        tell = TELLERS.get(event["kind"])
        if tell is not None:
            tell(step, event["data"], classes)
        told.append(step)
    return told


def looks_of(events: Sequence[Mapping[str, Any]]) -> list[Look]:
    """The student's view after each piece of evidence; what a transfer cost stands with it."""
    looks: list[Look] = []
    name, cost = "", None
    for event in events:
        data = event["data"]
        if event["kind"] == "transfer":
            name, cost = data["transfer"], data["charge"].get("g_co2e")
        elif event["kind"] == "unreliable":
            name, cost = f"without {data['modality']}", None
        elif event["kind"] == "assessment":
            own = data["charge"].get("g_co2e")
            both = own if cost is None else (own or 0.0) + cost
            looks.append(
                Look(
                    name=name or "clinical alone",
                    probability=data["probability"],
                    g_co2e=both,
                    left=tuple(data.get("conformal_set", ())),
                )
            )
            name, cost = "", None
    return looks


def _charged(step: Step, charge: Mapping[str, Any]) -> None:
    kwh, grams = charge.get("energy_kwh"), charge.get("g_co2e")
    if kwh is None:
        step.cost = "energy unknown"
        step.lines.append(f"No figure: {charge.get('reason') or 'no reason was given'}.")
        return
    step.cost = f"{words.small(kwh)} kWh · {words.small(grams)} gCO2e"
    step.basis = charge["energy_basis"]


def _intake(step: Step, data: Data, classes: Mapping[str, str]) -> None:
    step.title = "Taken in"
    filled = [f"{m} ({words.percent(q)} filled in)" for m, q in data.get("quality", {}).items()]
    step.lines.append("Has " + ", ".join(filled) + "." if filled else "Has no data.")
    if data.get("missing"):
        step.lines.append("Lacks " + ", ".join(data["missing"]) + ".")
    step.lines += [f"Caution: {caution}" for caution in data.get("cautions", ())]


def _carbon(step: Step, data: Data, classes: Mapping[str, str]) -> None:
    now = data["now"]
    step.title = f"Grid at {words.number(now['g_per_kwh'])} gCO2e/kWh"
    step.basis = now["kind"]
    note = f" ({now['note']})" if now.get("note") else ""
    step.lines.append(f"{now['provider']}, zone {now['zone']}{note}.")
    ahead = data.get("forecast_g_per_kwh")
    if ahead:
        step.lines.append(
            f"Forecast for {len(ahead)} h: {words.number(min(ahead))} to "
            f"{words.number(max(ahead))} gCO2e/kWh."
        )
    elif data.get("forecast_note"):
        step.lines.append(f"Forecast: {data['forecast_note']}.")


def _assessment(step: Step, data: Data, classes: Mapping[str, str]) -> None:
    before, after = data.get("probability_before"), data["probability"]
    name = classes["positive"]
    if before is None:
        step.title = f"Probability of {name} {words.chance(after)}"
    else:
        step.title = f"Probability of {name} {words.chance(before)} → {words.chance(after)}"
    if data.get("conformal_level") is not None:
        left = data.get("conformal_set") or ()
        level = words.percent(data["conformal_level"])
        named = " and ".join(left) if left else "none, it is unlike either class"
        step.lines.append(f"Cannot be ruled out at the {level} level: {named}.")
    _charged(step, data["charge"])


def _choice(step: Step, data: Data, classes: Mapping[str, str]) -> None:
    action = data["action"]
    verb = LIMIT_WORDS.get(action)
    step.look = "wait" if action == "defer" else ""
    step.title = f"Chose to {verb}" if verb else f"Chose {action.replace('->', ' → ')}"
    policy, reason = data["policy"], data["reason"]
    step.lines.append(reason if reason.startswith(policy) else f"{policy}: {reason}")
    if data.get("policy_fallback"):
        step.lines.append(f"Not the policy that was asked for: {data['policy_fallback']}.")
    step.lines += [f"Carbon limit: {note}" for note in data.get("limit_notes", ())]
    step.known = [
        ("Day's budget left", f"{words.number(data['budget_left_g_co2e'])} gCO2e"),
        ("Price", f"{words.number(data['price_g_co2e_per_auc'])} gCO2e per unit of AUC"),
    ]
    step.options = [_option(option, action) for option in data["options"]]
    step.changes = changes_told(data.get("changes") or ())


def _option(option: Mapping[str, Any], chosen: str) -> OptionLine:
    gain = option.get("predicted_auc_gain")
    kwh, grams, wait_h = (option.get(name) for name in ("energy_kwh", "g_co2e", "wait_h"))
    state = "open" if option["allowed"] else "closed"
    return OptionLine(
        action=option["action"],
        gain="–" if gain is None else words.signed(gain, 5),
        energy="–" if kwh is None else words.small(kwh),
        carbon="–" if grams is None else words.small(grams),
        wait="–" if wait_h is None else words.span(3600 * wait_h),
        state="chosen" if option["action"] == chosen else state,
        note=option.get("note") or "",
    )


def changes_told(changes: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """What was imagined otherwise: axis, its value then, and where the choice would turn."""
    told = []
    for tried in changes:
        unit = f" {tried['unit']}" if tried.get("unit") else ""
        flips = [
            f"at {words.number(flip['at'])}{unit}: {flip['becomes'].replace('->', ' → ')}"
            for flip in tried.get("flips") or ()
        ]
        low, high = words.number(tried["low"]), words.number(tried["high"])
        stays = f"no other choice from {low} to {high}{unit}"
        axis = AXES.get(tried["axis"], tried["axis"])
        told.append((axis, f"{words.number(tried['now'])}{unit}", "; ".join(flips) or stays))
    return told


def _transfer(step: Step, data: Data, classes: Mapping[str, str]) -> None:
    source, _, target = data["transfer"].partition("->")
    step.look = "did"
    step.title = f"Transferred {source} → {target}"
    if data.get("asked_by"):
        step.lines.append(f"Asked for by {data['asked_by']}.")
    charge = data["charge"]
    if charge.get("energy_kwh") == 0:
        step.lines.append(f"{source.capitalize()} was processed before: no pipeline was run.")
    _charged(step, charge)


def _deferral(step: Step, data: Data, classes: Mapping[str, str]) -> None:
    step.look = "wait"
    step.title = "Deferred"
    step.lines.append(data.get("why") or "Waits for a cleaner hour.")


def _wake(step: Step, data: Data, classes: Mapping[str, str]) -> None:
    step.look = "wait"
    early = ", before its hour" if data.get("early") else ""
    step.title = f"Woken by {'the clock' if data['by'] == 'schedule' else data['by']}{early}"


def _explanation(step: Step, data: Data, classes: Mapping[str, str]) -> None:
    suggested = classes[data["suggestion"]]
    step.look = "did"
    step.title = f"Suggests {suggested} ({words.chance(data['probability'])} {classes['positive']})"
    step.cost = f"{words.small(data['g_co2e'])} gCO2e in all"


def _action(step: Step, data: Data, classes: Mapping[str, str]) -> None:
    """What a person did: an opinion, a decision, a request."""
    step.look = "person"
    said = {"action": "raise_urgency", **data} if step.kind == "urgency" else data
    step.title = f"{said.get('reviewer', 'Somebody')}: {_act_words(said, classes)}"
    if said.get("reason_code"):
        step.lines.append(f"Reason: {words.reason_word(said['reason_code'])}.")
    step.lines += [str(said[name]) for name in ("refused", "note") if said.get(name)]
    if said.get("transfers_dropped"):
        step.lines.append(f"Dropped: {', '.join(said['transfers_dropped'])}.")
    if said.get("agrees") is not None:
        step.lines.append("Agrees with the last opinion." if said["agrees"] else "Differs.")
    step.quote = said.get("comment") or ""


def _act_words(said: Mapping[str, Any], classes: Mapping[str, str]) -> str:
    action = str(said.get("action", ""))
    detail = {
        "override": classes.get(str(said.get("result")), ""),
        "request_transfer": str(said.get("transfer", "")).replace("->", " → "),
        "mark_unreliable": str(said.get("modality", "")),
        "raise_urgency": str(said.get("urgency", "")),
    }.get(action, "")
    return words.action_word(action).lower() + (f" ({detail})" if detail else "")


def _parked(step: Step, data: Data, classes: Mapping[str, str]) -> None:
    step.look = "bad"
    step.title = "Parked: the agent could not go on"
    place = data.get("node")
    reason = data.get("reason") or data.get("error") or "no reason was given"
    step.lines.append(f"{f'At {place}: ' if place else ''}{reason}")


def _record(step: Step, data: Data, classes: Mapping[str, str]) -> None:
    step.look = "person"
    result = data.get("result")
    step.title = f"Recorded: {classes.get(result, result)}" if result else "Closed without a result"


TELLERS: dict[str, Callable[[Step, Data, Mapping[str, str]], None]] = {
    "intake": _intake,
    "carbon": _carbon,
    "assessment": _assessment,
    "choice": _choice,
    "transfer": _transfer,
    "deferral": _deferral,
    "wake": _wake,
    "explanation": _explanation,
    "opinion": _action,
    "request": _action,
    "unreliable": _action,
    "urgency": _action,
    "decision": _action,
    "parked": _parked,
    "record": _record,
}
