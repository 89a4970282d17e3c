"""Choose k of many blocks by relevance minus redundancy: one problem, many solvers.

See ``distill/selection/README.md``. The solvers that need the optional extra ``quantum`` import it
when they run.
"""
