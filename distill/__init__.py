"""Cohorts, teachers, bridges and the one student that they teach."""
