"""Decide, compare, orchestrate: policies, their comparison, and the review workflow."""
