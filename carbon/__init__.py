"""Measure energy, know the grid, account for CO2e."""
