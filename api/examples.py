"""Examples of requests that the running server takes as they stand.

They name features of the loaded bundle with values that no patient had: training medians and known
words. A case id of the loaded cohort is no example, since the schema is open to everybody.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from agent.workflow.protocols import Features


def case_examples(features: Features, now: datetime) -> list[dict[str, Any]]:
    """Bodies of ``POST /v1/cases``: one with everything, one with the least.

    Args:
        features: feature rows by modality, the one that is always needed first.
        now: the present; the deadline is a day later.
    """
    tomorrow = (now + timedelta(days=1)).replace(minute=0, second=0, microsecond=0)
    rows = {name: None if row is None else dict(row) for name, row in features.items()}
    first = next(iter(rows))
    return [
        {
            "features": rows,
            "reference": "board-12/7",
            "unit": "thoracic oncology",
            "session": "board-12",
            "urgency": 0.3,
            "deadline": tomorrow.isoformat().replace("+00:00", "Z"),
        },
        {"features": {first: rows[first]}, "policy": "rule"},
    ]
