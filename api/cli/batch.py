"""``greenboard batch``: every case of a cohort to the clinician's desk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli import grid_options

if TYPE_CHECKING:
    from agent.workflow.kit import ReviewKit
    from agent.workflow.run import RunResult
    from distill.cohort import Cohort

PARTIAL = ".partial"
EXECUTORS = ("local", "ray")


def batch(
    *,
    bundle: Annotated[Path, typer.Option(help="Bundle that 'greenboard train' wrote.")],
    cohort: Annotated[Path, typer.Option(help="Cohort folder; labels are not looked at.")],
    out: Annotated[Path, typer.Option(help="JSON lines, one a case.")],
    executor: Annotated[str, typer.Option(help="local, or ray (optional package).")] = "local",
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
    budget: Annotated[
        float | None, typer.Option(min=0, help="Carbon for the whole batch, g CO2e.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of policies that draw.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="A summary as JSON.")] = False,
) -> None:
    """Review every case of a cohort up to the point where a clinician has to decide.

    Killed on the way, the same command goes on where it stopped (OUT.partial keeps what is
    finished); OUT itself appears when all cases are in it. Run again, it changes nothing.

    Examples:
      greenboard batch --bundle bundle --cohort cohort --out reviews.jsonl

      greenboard batch --bundle bundle --cohort cohort --policy rule --out rule.jsonl
    """
    import asyncio
    import json

    from agent.workflow.opening import open_kit
    from api.cli.targets import check_out_file
    from api.grid import grid_config
    from carbon.monitor import build_monitor
    from distill.cohort import read_cohort

    _check_executor(executor)
    check_out_file(out)
    grid = grid_config(
        trace, source, zone=zone, basis=basis, region=region, postcode=postcode,
        token_file=token_file,
    )  # fmt: skip
    kit = open_kit(
        bundle,
        monitor=build_monitor(grid),
        policy=policy,
        seed=seed,
        budget_g_co2e_per_day=budget,
    )
    cases = read_cohort(cohort)
    stamp = {
        "bundle_version": kit.identity.version,
        "cohort": cases.name,
        "policy": kit.policies.acting().policy.name,
        "policy_fallback": kit.policies.acting().fallback_reason,
        "synthetic": kit.identity.synthetic or cases.synthetic,
    }
    lines = finished_lines(out, stamp)
    if not out.exists():
        asyncio.run(_review_all(kit, cases, out, stamp, lines))
        lines = _publish(out, cases.case_id)
    summary = _summary(out, lines)
    typer.echo(json.dumps(summary, indent=1) if as_json else _sentence(summary))


def _check_executor(executor: str) -> None:
    from importlib.util import find_spec

    from api.errors import CommandError

    if executor not in EXECUTORS:
        raise CommandError(f"--executor {executor!r}: choose {' or '.join(EXECUTORS)}.")
    if executor == "ray":
        there = find_spec("ray") is not None
        raise CommandError(
            "--executor ray: this version reviews on one machine; use --executor local."
            if there
            else "--executor ray needs the optional package ray, which is not installed; "
            "use --executor local."
        )


def finished_lines(out: Path, stamp: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Cases that an earlier run finished, by id; an unfinished last line is dropped.

    Raises:
        CommandError: if they come from another bundle, cohort or policy.
    """
    import json

    from api.errors import CommandError

    path = out if out.exists() else out.with_name(out.name + PARTIAL)
    if not path.exists():
        return {}
    lines = {}
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if {key: line.get(key) for key in stamp} != dict(stamp):
            raise CommandError(
                f"{path} holds reviews of another bundle, cohort or policy; give another --out, "
                "or delete it."
            )
        lines[line["case_id"]] = line
    return lines


async def _review_all(
    kit: ReviewKit,
    cohort: Cohort,
    out: Path,
    stamp: Mapping[str, Any],
    finished: Mapping[str, Any],
) -> None:
    import json
    from datetime import UTC, datetime

    from agent.workflow.session import ReviewSession
    from agent.workflow.state import new_case
    from api.cli.progress import stage_bar
    from api.inputs import cohort_features, known_clinical, times_of

    times = times_of(kit.student)
    session = ReviewSession(kit, clock=lambda: datetime.now(UTC))
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + PARTIAL)
    # Written whole again first, so that a line that a kill cut short is gone.
    partial.write_text("".join(json.dumps(line) + "\n" for line in finished.values()))
    skipped = 0
    with partial.open("a", encoding="utf-8") as file, stage_bar("batch") as show:
        for i, case_id in enumerate(cohort.case_id):
            show(i, len(cohort.case_id), "reviewing")
            features = cohort_features(cohort, case_id, kit.layout.modalities, times)
            if case_id in finished or features is None:
                continue
            if not known_clinical(features):
                skipped += 1
                continue
            # The graph knows the case by its place, never by its id.
            seen = kit.seen_in_training(case_id)
            case = new_case(f"{i}", policy=kit.policies.configured, seen_in_training=seen)
            result = await session.review(case, features)
            await session.forget(f"{i}")
            file.write(json.dumps(_line(case_id, seen, result, stamp), allow_nan=False) + "\n")
            file.flush()
    if skipped:
        typer.echo(f"left out: {skipped} cases without any clinical value", err=True)


def _line(case_id: str, seen: bool, result: RunResult, stamp: Mapping[str, Any]) -> dict[str, Any]:
    explanation = result.values["explanation"]
    return {
        "case_id": case_id,
        **stamp,
        "status": "awaiting_clinician",
        "seen_in_training": seen,
        "suggestion": explanation["suggestion"],
        "probability": explanation["probability"],
        "probability_clinical_only": explanation["probability_clinical_only"],
        "transfers_run": result.values["transfers_run"],
        "missing": explanation["missing"],
        "energy_kwh_modelled": explanation["energy_kwh_modelled"],
        "energy_kwh_measured": explanation["energy_kwh_measured"],
        "g_co2e": explanation["g_co2e"],
        "unmeasured": explanation["unmeasured"],
        "explanation": explanation["lines"],
    }


def _publish(out: Path, order: Sequence[str]) -> dict[str, dict[str, Any]]:
    import json
    import os

    partial = out.with_name(out.name + PARTIAL)
    lines = [json.loads(text) for text in partial.read_text(encoding="utf-8").splitlines()]
    place = {case_id: i for i, case_id in enumerate(order)}
    lines.sort(key=lambda line: place[line["case_id"]])
    sorted_copy = out.with_name(f".{out.name}.sorted")
    with sorted_copy.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(line, allow_nan=False) + "\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())
    os.replace(sorted_copy, out)
    partial.unlink()
    return {line["case_id"]: line for line in lines}


def _summary(out: Path, lines: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    every = list(lines.values())
    return {
        "out": str(out),
        "n": len(every),
        "policy": every[0]["policy"] if every else None,
        "policy_fallback": every[0]["policy_fallback"] if every else None,
        "synthetic": every[0]["synthetic"] if every else None,
        "seen_in_training": sum(line["seen_in_training"] for line in every),
        "with_a_transfer": sum(bool(line["transfers_run"]) for line in every),
        "energy_kwh_modelled": sum(line["energy_kwh_modelled"] for line in every),
        "energy_kwh_measured": sum(line["energy_kwh_measured"] for line in every),
        "g_co2e": sum(line["g_co2e"] for line in every),
    }


def _sentence(summary: Mapping[str, Any]) -> str:
    lines = [
        f"{summary['n']} cases wait for a clinician, {summary['with_a_transfer']} of them after a "
        f"transfer; policy {summary['policy']}, {summary['g_co2e']:.4g} gCO2e, "
        f"{summary['energy_kwh_modelled']:.4g} kWh modelled.",
    ]
    if summary["policy_fallback"]:
        lines.append(f"caution: {summary['policy_fallback']}")
    if summary["seen_in_training"]:
        lines.append(
            f"caution: the model saw {summary['seen_in_training']} of these patients in training; "
            "their probabilities are optimistic."
        )
    if summary["synthetic"]:
        lines.append("synthetic: model or patients are made up.")
    return "\n".join([*lines, f"reviews: {summary['out']}"])
