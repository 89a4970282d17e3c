"""Decide, compare, orchestrate: policies, their training and comparison, and the review workflow."""
