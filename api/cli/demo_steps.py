"""The steps of the demo: commands in processes of their own, and one review over HTTP."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from api.cli.local_server import ReviewClient, greenboard_process, local_server
from api.errors import CommandError

WHAT_IS_NOT_REAL = (
    "synthetic: the patients, and the carbon grid (a seeded synthetic day).",
    "modelled: the energy of pipelines (declared), and of computing where no counter can be read.",
    "simulated: the review sessions of the report, and the clinician's decision on the case.",
    "Research use only; these figures say nothing about real patients.",
)
REVIEWER = "demo-clinician (simulated)"
READY = "awaiting_clinician"
DECISION = {
    "action": "accept",
    "comment": "Simulated decision of the demo; no person looked at this case.",
}


@dataclass(frozen=True, kw_only=True)
class DemoPlan:
    """How large the demo is, and where it writes."""

    out: Path
    seed: int
    patients: int
    held_out_patients: int
    simulated: int
    steps: int
    sessions: int
    policies: str = "never,rule,random,price,planner,always-everything"

    @classmethod
    def full(cls, out: Path, seed: int) -> DemoPlan:
        """A few minutes on two cores."""
        return cls(
            out=out, seed=seed, patients=2000, held_out_patients=100, simulated=50_000,
            steps=300_000, sessions=200,
        )  # fmt: skip

    @classmethod
    def quick(cls, out: Path, seed: int) -> DemoPlan:
        """To see that everything runs."""
        return cls(
            out=out, seed=seed, patients=240, held_out_patients=100, simulated=5_000,
            steps=30_000, sessions=20,
        )  # fmt: skip

    @property
    def cohort(self) -> Path:
        """The synthetic cohort that is trained on."""
        return self.out / "cohort"

    @property
    def held_out(self) -> Path:
        """A synthetic cohort of other patients and hospitals."""
        return self.out / "held_out"

    @property
    def bundle(self) -> Path:
        """The bundle."""
        return self.out / "bundle"

    @property
    def policy(self) -> Path:
        """The learned policy."""
        return self.out / "policies" / "ppo"

    @property
    def report(self) -> Path:
        """The comparison's folder."""
        return self.out / "report"

    @property
    def ledger(self) -> Path:
        """What training and the review used and emitted."""
        return self.out / "ledger.jsonl"

    @property
    def account(self) -> Path:
        """The carbon account of it, as a page."""
        return self.out / "account.html"

    @property
    def case(self) -> Path:
        """The reviewed case."""
        return self.out / "case.json"


@dataclass(kw_only=True)
class StepTime:
    """A step and how long it took."""

    name: str
    seconds: float


@dataclass
class DemoRun:
    """Runs the steps, keeps the time, and stops whatever was started."""

    plan: DemoPlan
    tell: Callable[[str], None]
    times: list[StepTime] = field(default_factory=list)
    reviewed: dict[str, Any] = field(default_factory=dict)
    _now: str = "demo"

    def step(self, name: str, work: Callable[[], Any]) -> None:
        """Run one step and say how long it took."""
        self._now = name
        self.tell(f"{name} ...")
        began_s = time.monotonic()
        work()
        seconds = time.monotonic() - began_s
        self.times.append(StepTime(name=name, seconds=seconds))
        self.tell(f"{name}: {seconds:.1f} s")

    def command(self, *arguments: str) -> None:
        """Run a greenboard command as a user would; its output goes to ``OUT/logs``.

        Raises:
            CommandError: if it fails; with the end of what it said.
        """
        log = self._log(self._now)
        # Progress bars are on standard error: a person who watches sees them, a log does not.
        errors = None if sys.stderr.isatty() else subprocess.STDOUT
        with (
            log.open("wb") as file,
            greenboard_process(arguments, file, errors=errors) as process,
        ):
            code = process.wait()
        if code != 0:
            tail = log.read_text(errors="replace").strip().splitlines()[-5:]
            raise CommandError(f"greenboard {' '.join(arguments)} ended with {code}: "
                               f"{' / '.join(tail)} (all of it: {log})")  # fmt: skip

    def _log(self, name: str) -> Path:
        folder = self.plan.out / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{name}.log"

    def review(self) -> None:
        """Post a held-out case to a real server, follow it, decide, and read it back."""
        from api.cli.atomic import write_json

        acting = self._best_policy()
        self.tell(f"  acting policy: {acting}, the one with the highest reward in the report")
        serve = (
            "--bundle", str(self.plan.bundle), "--policy", acting,
            "--state", str(self.plan.out / "state"), "--source", "synthetic",
        )  # fmt: skip
        with local_server(serve, self._log("serve"), reviewer=REVIEWER) as (url, key):
            client = ReviewClient(url, key)
            features = _held_out_features(self.plan)
            case_id = client.post("/v1/cases", {"features": features, "urgency": 0.2})["id"]
            for step in client.follow(case_id, until=READY, wake=True):
                self.tell(f"  {step['kind']}")
            client.post(f"/v1/cases/{case_id}/decision", DECISION)
            case = client.get(f"/v1/cases/{case_id}")
            ledger = client.get(f"/v1/carbon/ledger?case={case_id}")
            events = client.follow(case_id, until="recorded")
            self._book(client.text("/v1/carbon/ledger.jsonl"))
        self.reviewed = {"case": case, "ledger": ledger["totals"], "events": events}
        write_json(self.plan.case, {"synthetic": True, "simulated_decision": True, **self.reviewed})

    def begin_books(self) -> None:
        """Put an earlier demo's ledger away: this one's account is of this run alone."""
        from carbon.ledger_index import index_path

        for path in (self.plan.ledger, index_path(self.plan.ledger)):
            path.unlink(missing_ok=True)

    def _book(self, lines: str) -> None:
        """Add what the server booked to the training's ledger."""
        from carbon.entries import parse_line
        from carbon.ledger import Ledger

        with Ledger(self.plan.ledger) as ledger:
            for number, line in enumerate(lines.splitlines(), start=1):
                ledger.append(parse_line(self.plan.ledger, number, line.encode()))

    def _best_policy(self) -> str:
        """Who should decide: what the comparison supports, learned or not."""
        report = json.loads((self.plan.report / "report.json").read_text(encoding="utf-8"))
        rewards = {name: card["reward"]["value"] for name, card in report["policies"].items()}
        best = max(rewards, key=lambda name: float(rewards[name]))
        return f"{self.plan.policy}/" if best == self.plan.policy.name else best

    def facts(self) -> dict[str, Any]:
        """What ``demo.json`` holds."""
        metrics = json.loads((self.plan.bundle / "metrics.json").read_text(encoding="utf-8"))
        truth = json.loads((self.plan.cohort / "truth.json").read_text(encoding="utf-8"))
        case = self.reviewed["case"]
        explanation = case["explanation"]
        return {
            "synthetic": True,
            "seed": self.plan.seed,
            "seconds": sum(step.seconds for step in self.times),
            "steps": [{"name": step.name, "seconds": step.seconds} for step in self.times],
            "full_auc": metrics["full"]["auc"],
            "best_possible_auc": truth["evidence"]["full"]["auc_here"],
            "late_fusion_auc": metrics["baselines"]["late_fusion"]["auc"],
            "case": {
                "status": case["status"],
                "result": case["result"],
                "probability": case["probability"],
                "transfers_run": case["transfers_run"],
                "policy": case["policy"],
                # Null: ids of synthetic cohorts coincide, so the features are posted without one.
                "seen_in_training": case["seen_in_training"],
                "from": f"{self.plan.held_out}, drawn with a seed of its own",
                "energy_kwh_modelled": explanation["energy_kwh_modelled"],
                "energy_kwh_measured": explanation["energy_kwh_measured"],
                "g_co2e": explanation["g_co2e"],
                "unmeasured": explanation["unmeasured"],
            },
            "not_real": list(WHAT_IS_NOT_REAL),
            "paths": {
                "report": str(self.plan.report / "report.html"),
                "bundle": str(self.plan.bundle),
                "policy": str(self.plan.policy),
                "reviewed case": str(self.plan.case),
                "ledger": str(self.plan.ledger),
                "carbon account": str(self.plan.account),
            },
        }


def _held_out_features(plan: DemoPlan) -> dict[str, Any]:
    """Features of the first held-out patient who has every modality of the bundle."""
    from api.inputs import cohort_features
    from distill.cohort import read_cohort

    cohort = read_cohort(plan.held_out)
    modalities = cohort.modalities("inference")
    whole = [c for c in cohort.case_id if all(c in cohort.tables[m].index for m in modalities)]
    if not whole:
        raise CommandError("No held-out patient has every modality; take another --seed.")
    times = cohort.manifest.label.temporal
    features = cohort_features(cohort, whole[0], modalities, times)
    return features or {}
