"""Code systems and value sets of the FHIR elements used here; the library takes any code.

Source: FHIR R4 (4.0.1), the bindings of each resource; HL7 Terminology for the code systems.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

HL7 = "http://terminology.hl7.org/CodeSystem/"
LOINC = "http://loinc.org"
SNOMED = "http://snomed.info/sct"
UCUM = "http://unitsofmeasure.org"
AUDIT_TYPE = HL7 + "audit-event-type"
PARTICIPANT = HL7 + "provenance-participant-type"
SOURCE_TYPE = HL7 + "security-source-type"
ABSENT = HL7 + "data-absent-reason"
CLINICAL_STATUS = HL7 + "condition-clinical"
VERIFICATION = HL7 + "condition-ver-status"
CATEGORY = HL7 + "observation-category"
OBSERVATION_VALUE = HL7 + "v3-ObservationValue"
ACT_REASON = HL7 + "v3-ActReason"
COMPLETION = HL7 + "v3-DocumentCompletion"
OPERATION = HL7 + "v3-DataOperation"


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


STATUS = _set("registered preliminary final amended corrected cancelled entered-in-error unknown")
"""ObservationStatus; RiskAssessment uses it as well."""

BOUND: Mapping[str, Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "Bundle": {
            "type": _set(
                "document message transaction transaction-response batch batch-response history "
                "searchset collection"
            ),
        },
        "Patient": {
            "gender": _set("male female other unknown"),
            "identifier.use": _set("usual official temp secondary old"),
            "name.use": _set("usual official temp nickname anonymous old maiden"),
        },
        "Observation": {
            "status": STATUS,
            "valueQuantity.comparator": _set("< <= >= >"),
            "component.valueQuantity.comparator": _set("< <= >= >"),
        },
        "DiagnosticReport": {
            "status": _set(
                "registered partial preliminary final amended corrected appended cancelled "
                "entered-in-error unknown"
            ),
        },
        "ServiceRequest": {
            "status": _set("draft active on-hold revoked completed entered-in-error unknown"),
            "intent": _set(
                "proposal plan directive order original-order reflex-order filler-order "
                "instance-order option"
            ),
            "priority": _set("routine urgent asap stat"),
        },
        "RiskAssessment": {"status": STATUS},
        "Device": {
            "status": _set("active inactive entered-in-error unknown"),
            "deviceName.type": _set(
                "udi-label-name user-friendly-name patient-reported-name manufacturer-name "
                "model-name other"
            ),
        },
        "Provenance": {"entity.role": _set("derivation revision quotation source removal")},
        "AuditEvent": {
            "action": _set("C R U D E"),
            "outcome": _set("0 4 8 12"),
            "agent.network.type": _set("1 2 3 4 5"),
        },
        "OperationOutcome": {"issue.severity": _set("fatal error warning information")},
    }
)
"""Required bindings of elements of type ``code``, by resource and path."""

COMPLETE: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        CLINICAL_STATUS: _set("active recurrence relapse inactive remission resolved"),
        VERIFICATION: _set(
            "unconfirmed provisional differential confirmed refuted entered-in-error"
        ),
        ABSENT: _set(
            "unknown asked-unknown temp-unknown not-asked asked-declined masked not-applicable "
            "unsupported as-text error not-a-number negative-infinity positive-infinity "
            "not-performed not-permitted"
        ),
        SOURCE_TYPE: _set("1 2 3 4 5 6 7 8 9"),
        PARTICIPANT: _set(
            "enterer performer author verifier legal attester informant custodian assembler "
            "composer"
        ),
    }
)
"""Small code systems in full: a coding of one of these that is not in it is refused anywhere."""

WRITTEN: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        AUDIT_TYPE: _set("rest"),
        OBSERVATION_VALUE: _set("AIAST CLINAST"),
        ACT_REASON: _set("HTEST"),
        COMPLETION: _set("AU"),
        OPERATION: _set("CREATE"),
        CATEGORY: _set("laboratory survey exam"),
        LOINC: _set(
            "69548-6 48018-6 81290-9 48005-3 81258-6 48002-0 53041-0 81247-9 21908-9 21902-2 "
            "21914-7 21899-0 21900-6 21901-4 21905-5 21906-3 21907-1 30525-0 39156-5 72166-2 "
            "89247-1 20152-5 LA9633-4 LA9634-2 LA18198-4 LA11884-6 LA6683-2 LA6684-0"
        ),
    }
)
"""Of large code systems, the codes that this server writes; no other may go out."""
