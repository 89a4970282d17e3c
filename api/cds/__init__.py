"""CDS Hooks 2.0: whom to trust, and what to show at a patient's chart."""
