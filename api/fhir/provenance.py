"""Who made and who checked what, and the audit log's rows as FHIR has them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC
from typing import Any

from api.audit import AuditEntry
from api.fhir.codes import AUDIT_TYPE, COMPLETION, OPERATION, PARTICIPANT, SOURCE_TYPE
from api.fhir.ids import reference_to, resource_id
from api.fhir.marks import BY_CLINICIAN, BY_MACHINE, coding, concept, meta, tags
from api.fhir.people import CALLER, Cast
from api.fhir.risk import REASON, sayable
from api.schemas import CaseView

ACTION, AUDIT_ACTION = "urn:greenboard:action", "urn:greenboard:audit-action"
CREATED, EXPORTED = "case.created", "case.exported"
ROLES = {"accept": "verifier", "override": "author", "send_back": "verifier"}
"""What a reviewer is to what the opinion speaks of."""
SIGNED = ("accept", "override")


def _synthetic(cast: Cast) -> bool:
    return any(tag["code"] == "synthetic" for tag in cast.device["meta"]["tag"])


def machine_provenance(
    case: CaseView, cast: Cast, said: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """That software made the assessment and its evidence."""
    return {
        "resourceType": "Provenance",
        "id": resource_id(case.id, "provenance", "machine"),
        **meta(BY_MACHINE, synthetic=case.model.synthetic),
        "target": [reference_to(resource) for resource in said],
        "recorded": case.updated_at.isoformat(),
        "activity": concept(OPERATION, "CREATE", "create"),
        "agent": [
            {
                "type": concept(PARTICIPANT, "author", "Author"),
                "who": reference_to(cast.device),
            }
        ],
    }


def opinion_provenance(
    opinion: dict[str, Any], cast: Cast, risk: dict[str, Any], result: dict[str, Any] | None
) -> dict[str, Any]:
    """That a reviewer verified the assessment, decided otherwise, or sent the case back."""
    action = str(opinion["action"])
    signed = [coding(COMPLETION, "AU", "authenticated")] if action in SIGNED else []
    reason = opinion.get("reason_code")
    targets = [risk, *([result] if result is not None and action in SIGNED else [])]
    return {
        "resourceType": "Provenance",
        "id": resource_id(cast.case, "provenance", str(opinion.get("round", 0))),
        **meta(BY_CLINICIAN, synthetic=_synthetic(cast)),
        "target": [reference_to(target) for target in targets],
        "recorded": str(opinion["decided_at"]),
        **({"reason": [concept(REASON, str(reason))]} if reason else {}),
        "activity": {"coding": [*signed, coding(ACTION, action)]},
        "agent": [
            {
                "type": concept(PARTICIPANT, ROLES[action]),
                "who": reference_to(cast.people[str(opinion["reviewer"])]),
            },
            {
                "type": concept(PARTICIPANT, "assembler", "Assembler"),
                "who": reference_to(cast.device),
            },
        ],
        "entity": [{"role": "source", "what": reference_to(risk)}],
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)


def audit_event(entry: AuditEntry, cast: Cast, risk: dict[str, Any]) -> dict[str, Any]:
    """A row of the audit log, with its number and hash so that it can be found there."""
    person = cast.people.get(entry.actor)
    logical = {"identifier": {"system": CALLER, "value": sayable(entry.actor) or "?"}}
    detail = [
        {"type": sayable(str(name)), "valueString": text}
        for name, value in entry.detail.items()
        if value is not None and (text := sayable(_text(value)))
    ]
    return {
        "resourceType": "AuditEvent",
        "id": resource_id(cast.case, "audit", str(entry.seq)),
        **tags(_synthetic(cast)),
        "type": coding(AUDIT_TYPE, "rest", "RESTful Operation"),
        "subtype": [coding(AUDIT_ACTION, entry.action)],
        "action": {CREATED: "C", EXPORTED: "R"}.get(entry.action, "U"),
        "recorded": entry.time.astimezone(UTC).isoformat(),
        "outcome": "0",
        "agent": [
            {"who": reference_to(person) if person is not None else logical, "requestor": True}
        ],
        "source": {
            "observer": reference_to(cast.device),
            "type": [coding(SOURCE_TYPE, "4", "Application Server")],
        },
        "entity": [
            {
                "what": reference_to(risk),
                "detail": [
                    {"type": "audit-seq", "valueString": str(entry.seq)},
                    {"type": "audit-sha256", "valueString": entry.hash},
                    *detail,
                ],
            }
        ],
    }
