"""Carbon intensity of the grid: one module a provider, all behind one protocol."""
