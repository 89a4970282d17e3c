"""A server with people at it, in a process that a test may kill.

``python board_server.py STATE PORT_FILE OPTIONS``; OPTIONS is JSON: ``pause_s`` of each assessment,
``ahead_h`` of its clock, and settings.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from agent.policies.registry import make_policy
from agent.workflow.doubles import StillMonitor, TableStudent, replay_kit
from agent.workflow.kit import ReviewKit
from api.app import create_app
from api.auth import ApiKey, hash_key
from api.listen import listen
from api.logs import log_config
from api.settings import Settings
from envs.toy import toy_evidence

PEOPLE = {"ada": "reviewer", "ben": "reviewer", "eve": "admin"}
CLEANER_LATER = StillMonitor(g_per_kwh=400.0, ahead=(380.0, 380.0, 40.0, 40.0, 300.0))


@dataclass(frozen=True, kw_only=True)
class SlowStudent(TableStudent):
    """Takes its time."""

    pause_s: float

    def assess(self, case: Any, transfers_run: Any) -> Any:
        time.sleep(self.pause_s)
        return super().assess(case, transfers_run)


def main() -> None:
    import uvicorn

    state, port_file = Path(sys.argv[1]), Path(sys.argv[2])
    options = json.loads(sys.argv[3])
    pause_s, ahead_h = options.pop("pause_s", 0.0), options.pop("ahead_h", 0.0)
    evidence = toy_evidence(n_patients=60, seed=3)

    def kit(settings: Settings) -> ReviewKit:
        made = replay_kit(
            evidence, make_policy=make_policy, policy=settings.policy, monitor=CLEANER_LATER
        )
        return replace(made, student=SlowStudent(evidence=evidence, pause_s=pause_s))

    keys = tuple(
        ApiKey(name=f"dr-{name}", role=role, sha256=hash_key(f"{name}-key"))
        for name, role in PEOPLE.items()
    )
    plain = {"bundle": state, "state": state, "policy": "rule", "workers": 2, "wake_poll_s": 0.05}
    settings = Settings(**plain | {"keys": keys} | options)
    app = create_app(settings, load=kit, clock=lambda: datetime.now(UTC) + timedelta(hours=ahead_h))
    with listen("127.0.0.1", 0) as listener:
        port_file.write_text(f"{listener.getsockname()[1]}\n")
        config = uvicorn.Config(app, log_config=log_config(), timeout_graceful_shutdown=2)
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
