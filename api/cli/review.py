"""``greenboard review``: one case on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli import grid_options

if TYPE_CHECKING:
    from agent.workflow.kit import ReviewKit
    from agent.workflow.run import RunResult
    from agent.workflow.state import Decision
    from api.schemas import CaseRequest


def review(
    *,
    bundle: Annotated[Path, typer.Option(help="Bundle that 'greenboard train' wrote.")],
    case: Annotated[Path, typer.Option(help="JSON file: feature rows by modality.")],
    policy: Annotated[
        str, typer.Option(help="Who decides: a name or a policy folder.")
    ] = "planner",
    trace: Annotated[
        Path | None, typer.Option(help="Recorded carbon trace instead of the live source.")
    ] = None,
    source: Annotated[
        str,
        typer.Option(
            help="Carbon sources in order, for example neso,synthetic, or electricity-maps with "
            "--zone and --token-file."
        ),
    ] = "",
    zone: grid_options.Zone = None,
    basis: grid_options.Basis = "direct",
    region: grid_options.Region = None,
    postcode: grid_options.Postcode = None,
    token_file: grid_options.TokenFile = None,
    decision: Annotated[
        str | None, typer.Option(help="accept, negative or positive; with --reviewer.")
    ] = None,
    reason: Annotated[
        str, typer.Option(help="Reason code, where the decision differs from the suggestion.")
    ] = "clinical_judgement",
    reviewer: Annotated[str | None, typer.Option(help="Name of the person who decides.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="The bundle's student: fp32 or int8. Default: its choice.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of policies that draw.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False,
) -> None:
    """Review one case with the server's own graph, and leave the decision to a person.

    The file holds what POST /v1/cases takes, or feature rows by modality alone:
    {"clinical": {"age": 67}, "genomics": null}. A modality that is null or left out is missing.
    A bundle trained on a cohort with times takes them too: "temporal": {"days_ct_to_surgery": 21}.

    Examples:
      greenboard review --bundle bundle --case case.json --policy rule

      greenboard review --bundle bundle --case case.json --decision accept --reviewer "reviewer-1"
    """
    import asyncio
    import json
    from datetime import UTC, datetime

    from agent.workflow.opening import open_kit
    from api.cli.casefile import read_case, refuse_past
    from api.grid import grid_config
    from carbon.monitor import build_monitor

    wanted = _decision(decision, reason, reviewer)
    asked = read_case(case)
    refuse_past(asked.deadline, datetime.now(UTC))
    monitor = build_monitor(
        grid_config(
            trace, source, zone=zone, basis=basis, region=region, postcode=postcode,
            token_file=token_file,
        )
    )  # fmt: skip
    kit = open_kit(
        bundle, monitor=monitor, policy=asked.policy or policy, seed=seed, precision=precision
    )
    result = asyncio.run(_review(kit, asked, wanted))
    if as_json:
        typer.echo(json.dumps(_as_json(kit, result), indent=1, ensure_ascii=False))
    else:
        _show(kit, result)


def _decision(decision: str | None, reason: str, reviewer: str | None) -> Decision | None:
    from datetime import UTC, datetime
    from typing import get_args

    from agent.workflow.state import RESULTS, Decision, ReasonCode
    from api.errors import CommandError

    if decision is None:
        return None
    if decision not in ("accept", *RESULTS):
        raise CommandError(f"--decision {decision!r}: choose accept, {' or '.join(RESULTS)}.")
    if reason not in get_args(ReasonCode):
        raise CommandError(f"--reason {reason!r}: choose {', '.join(get_args(ReasonCode))}.")
    if not reviewer:
        raise CommandError("A decision needs the name of the person who takes it: --reviewer NAME.")
    body: dict[str, Any] = {"action": "accept"}
    if decision != "accept":
        body = {"action": "override", "result": decision, "reason_code": reason}
    return Decision(**body, reviewer=reviewer, decided_at=datetime.now(UTC))


async def _review(kit: ReviewKit, asked: CaseRequest, decision: Decision | None) -> RunResult:
    from datetime import UTC, datetime

    from agent.workflow.session import ReviewSession
    from agent.workflow.state import new_case

    session = ReviewSession(kit, clock=lambda: datetime.now(UTC))
    case = new_case(
        "case",
        policy=kit.policies.configured,
        urgency=asked.urgency,
        deadline=asked.deadline,
        seen_in_training=(
            kit.seen_in_training(asked.reference) if asked.reference is not None else None
        ),
    )
    result = await session.review(case, asked.features or {})
    return await session.decide("case", result, decision) if decision else result


def _status(result: RunResult) -> str:
    outcome = result.values.get("outcome")
    return str(outcome["status"]) if outcome else "awaiting_clinician"


def _as_json(kit: ReviewKit, result: RunResult) -> dict[str, Any]:
    return {
        "status": _status(result),
        "bundle_version": kit.identity.version,
        "precision": kit.identity.precision,
        "synthetic": kit.identity.synthetic,
        "classes": {"negative": kit.identity.negative, "positive": kit.identity.positive},
        "explanation": result.values["explanation"],
        "transfers_run": result.values["transfers_run"],
        "outcome": result.values.get("outcome"),
        "charges": [charge.model_dump(mode="json") for charge in result.charges],
        "events": result.events,
    }


def _show(kit: ReviewKit, result: RunResult) -> None:
    from api.cli.casefile import step_lines

    if kit.identity.synthetic:
        typer.echo(f"Model of SYNTHETIC patients ({kit.identity.cohort}); for trying out only.")
    typer.echo("\n".join(step_lines(result.events)))
    typer.echo("")
    for line in result.values["explanation"]["lines"]:
        typer.echo(f"  {line}")
    classes = {"negative": kit.identity.negative, "positive": kit.identity.positive}
    suggestion = result.values["explanation"]["suggestion"]
    typer.echo(f"\nsuggestion: {suggestion} ({classes[suggestion]})")
    outcome = result.values.get("outcome")
    if outcome is None:
        typer.echo("awaiting clinician (decide with --decision and --reviewer)")
        return
    recorded = outcome["result"]
    typer.echo(f"{outcome['status']}: {recorded} ({classes[recorded]}), "
               f"by {outcome['decision']['reviewer']}")  # fmt: skip
