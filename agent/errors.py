"""Errors of the agent package: one base, each subclass also the fitting builtin."""

from __future__ import annotations


class AgentError(Exception):
    """Base of every error that ``agent`` raises on purpose."""


class PolicyError(AgentError, ValueError):
    """A policy that is unknown, altered, or made for another catalogue or observation."""


class RlTrainingError(AgentError, ValueError):
    """A policy cannot be trained or resumed as asked."""


class ComparisonError(AgentError, ValueError):
    """A comparison that cannot be run as asked."""


class OffPolicyError(AgentError, ValueError):
    """A log of decisions that cannot say what another policy would have done."""
