"""The sections of a comparison report, one module each."""
