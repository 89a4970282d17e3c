"""Review a case through the API: post it, follow it to the clinician, sign, and read the record.

    greenboard serve --bundle runs/demo/bundle          # in another terminal; prints a key
    python examples/review_client.py http://127.0.0.1:8000 KEY CASE.json

CASE.json holds feature rows by modality, as in the examples of ``/openapi.json``. Research use
only: here the script signs what the model suggests; in earnest a person reads the case and decides.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from api.client import ApiProblemError, Client, StaleError
from api.schemas import CaseView


def ready(client: Client, features: dict[str, dict[str, float] | None], name: str) -> CaseView:
    """Post the case and follow it to the clinician, through no more than one deferral."""
    case = client.review(features, reference=name)
    if case.status == "deferred":
        print(f"it waits for a cleaner hour until {case.wake_at}; waking it")
        case = client.wake(case)
    return case


def show(case: CaseView) -> None:
    """What a clinician would look at first."""
    print(f"{case.id} is {case.status}")
    print(f"P({case.model.positive}) = {case.probability:.2f}, {case.g_co2e or 0:.1f} g CO2e")
    for caution in case.caution:
        print(f"caution: {caution}")


def main(url: str, key: str, path: str) -> int:
    """Review one case; returns the exit status."""
    with Client(url, key) as client:
        try:
            case = ready(client, json.loads(Path(path).read_text()), Path(path).stem)
            show(case)
            # The case carries its version: had somebody acted in between, this would be refused.
            case = client.accept(case, comment="signed by the example script")
        except StaleError:
            print("somebody else did something with the case in between; look at it again")
            return 1
        except ApiProblemError as problem:
            print(f"{problem.title}: {problem.detail}", file=sys.stderr)
            return 1
        for event in client.events(case):
            print("-" if event.seq is None else event.seq, event.kind)
        print(f"{case.status}: {case.result}; {case.notice}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
