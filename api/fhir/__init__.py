"""FHIR R4: patients' resources in, what the review says out; every code set checked."""
