"""Where cases, their steps, decisions, ledger and audit log are kept."""
