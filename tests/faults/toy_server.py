"""A server over a replayed student, in a process that a test may kill.

``python toy_server.py STATE PORT_FILE PAUSE_S``; each assessment takes PAUSE_S, so that a test can
kill the process in the middle of a case.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.policies.registry import make_policy
from agent.workflow.doubles import TableStudent, replay_kit
from agent.workflow.kit import ReviewKit
from api.app import create_app
from api.auth import ApiKey, hash_key
from api.listen import listen
from api.logs import log_config
from api.settings import Settings
from envs.toy import toy_evidence

KEY = "fault-test-key"


@dataclass(frozen=True, kw_only=True)
class SlowStudent(TableStudent):
    """Takes its time."""

    pause_s: float

    def assess(self, case: Any, transfers_run: Any) -> Any:
        time.sleep(self.pause_s)
        return super().assess(case, transfers_run)


def main() -> None:
    from dataclasses import replace

    import uvicorn

    state, port_file, pause_s = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
    evidence = toy_evidence(n_patients=60, seed=3)

    def kit(settings: Settings) -> ReviewKit:
        made = replay_kit(evidence, make_policy=make_policy, policy=settings.policy)
        return replace(made, student=SlowStudent(evidence=evidence, pause_s=pause_s))

    settings = Settings(
        bundle=state, state=state, policy="always-everything", workers=2,
        keys=(ApiKey(name="dr-fault", role="admin", sha256=hash_key(KEY)),),
    )  # fmt: skip
    app = create_app(settings, load=kit)
    with listen("127.0.0.1", 0) as listener:
        port_file.write_text(f"{listener.getsockname()[1]}\n")
        config = uvicorn.Config(app, log_config=log_config(), timeout_graceful_shutdown=2)
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
