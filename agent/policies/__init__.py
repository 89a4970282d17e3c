"""Policies: what to do next for the case on the table, behind one protocol."""
