"""``greenboard rl log`` and ``greenboard rl ope``: policies judged on a log of decisions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli.rl_options import BundleFolder, EnvId, SessionPreset, Traces

if TYPE_CHECKING:
    from agent.ope import OffPolicyReport

WORDS = {
    "logged": "reward a case, as logged",
    "snips": "self-normalised weights",
    "snips_per_decision": "the same, decision by decision",
    "doubly_robust": "doubly robust",
    "auc": "AUC of the final scores",
    "auc_gain": "AUC gain over clinical data",
}


def log(
    *,
    bundle: BundleFolder,
    out: Annotated[Path, typer.Option(help="The log: .jsonl, or .parquet for a large one.")],
    policy: Annotated[
        str, typer.Option(help="Name or directory of the policy that is followed.")
    ] = "feedback",
    explore: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Share of decisions drawn among all open actions."),
    ] = 0.3,
    env: EnvId = "greenboard/CaseReviewSequential-v1",
    preset: SessionPreset = None,
    fold: Annotated[
        int | None, typer.Option(help="Fold whose patients are reviewed; default: the last.")
    ] = None,
    sessions: Annotated[int, typer.Option(min=1, help="Sessions to review.")] = 50,
    trace: Traces = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same log.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False,
) -> None:
    """Review a bundle's patients in replay and log every decision with its propensity.

    To try 'rl ope' on, and as a pattern for a hospital's own log: one line a decision, with what
    was seen, what was open, what was done and how likely that was. A log only tells of policies
    that do what was tried now and then, hence --explore.

    Examples:
      greenboard rl log --bundle bundle --out decisions.jsonl

      greenboard rl log --bundle bundle --out decisions.parquet --policy policies/mine
        --explore 0.2 --sessions 500
    """
    import json

    import numpy as np

    from agent.ope_log import write_log
    from agent.ope_replay import Exploring, log_sessions
    from agent.policies.registry import make_policy
    from agent.sessions import SessionSource

    opened = SessionSource.open(bundle, trace=trace, env_id=env, preset=preset)
    held_out = opened.folds[-1] if fold is None else fold
    setup = opened.fitted((held_out,)).evaluation(held_out)
    followed = make_policy(policy, setup.layout, setup.catalogue, seed=seed)
    behaviour = Exploring(policy=followed, catalogue=setup.catalogue, share=explore)
    seeds = range(seed * sessions, (seed + 1) * sessions)
    written = log_sessions(behaviour, setup, seeds, np.random.default_rng(seed))
    write_log(written, out)
    facts = {"log": str(out), "behaviour": behaviour.name, "cases": len(written.place),
             "decisions": len(written.action), "fold": held_out}  # fmt: skip
    if as_json:
        typer.echo(json.dumps(facts, indent=1))
        return
    typer.echo(f"{facts['decisions']} decisions on {facts['cases']} cases: {out}")
    typer.echo(f"evaluate a policy on it: greenboard rl ope --log {out} --policy price")


def ope(
    *,
    log: Annotated[Path, typer.Option(help="Log of decisions, .jsonl or .parquet.")],
    policy: Annotated[str, typer.Option(help="Name or directory of the policy to evaluate.")],
    explore: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Evaluate it with this share of exploration."),
    ] = 0.0,
    redraws: Annotated[int, typer.Option(min=1, help="Bootstrap redraws of cases.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Seeds folds and redraws.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False,
) -> None:
    """Estimate what a policy would have made of the cases in a log, without running it.

    The log needs the probability with which each action was chosen: without it nothing can be
    said, and it cannot be made up later. Weights must average 1; where the policy does what was
    never tried, or too few cases agree with it, the command says so instead of a number.

    A case's own decisions are weighed. What other cases' decisions change for it, such as the
    budget left, stays as it was when the log was written.

    Examples:
      greenboard rl ope --log decisions.jsonl --policy price

      greenboard rl ope --log decisions.parquet --policy policies/mine --json
    """
    import json

    from agent.ope import OffPolicyConfig, evaluate_offline
    from agent.ope_log import read_log
    from agent.ope_replay import Exploring
    from agent.policies.registry import make_policy

    decisions = read_log(log)
    target = make_policy(policy, decisions.layout, decisions.catalogue, seed=seed)
    chosen = (
        Exploring(policy=target, catalogue=decisions.catalogue, share=explore)
        if explore
        else target
    )
    report = evaluate_offline(decisions, chosen, OffPolicyConfig(redraws=redraws, seed=seed))
    if as_json:
        typer.echo(json.dumps(report.to_json(), indent=1))
        return
    for line in _lines(report):
        typer.echo(line)


def _lines(report: OffPolicyReport) -> list[str]:
    """The report in words."""
    first = (
        f"{report.target}, from {report.n_decisions} decisions on {report.n_cases} cases by "
        f"{report.behaviour}"
    )
    unit = f"reward: {report.reward_unit}, a case"
    figures = [
        f"  {WORDS[name]:34s} {e.value:+.5f}  [{e.low:+.5f}, {e.high:+.5f}]"
        for name, e in report.estimates.items()
    ]
    trust = (
        f"  the weighted cases are worth {report.effective_cases:.0f}; mean weight "
        f"{report.weight.value:.3f} [{report.weight.low:.3f}, {report.weight.high:.3f}], "
        "about 1 if propensities are right"
    )
    unknown = f"  {report.n_unknown} cases without a known reward were left out of the rewards"
    return [first, unit, *figures, trust, *([unknown] if report.n_unknown else [])]
