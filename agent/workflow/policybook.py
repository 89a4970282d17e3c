"""Which policy decides a case: the one that was asked for, or the rule and the reason why."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.errors import AgentError
from agent.policies.protocol import Policy
from agent.workflow.errors import WorkflowError
from distill.errors import DistillError
from envs.errors import EnvsError

FALLBACK = "rule"
FOLDER = "folder:"


@dataclass(frozen=True, kw_only=True)
class ActingPolicy:
    """The policy that decides, and why it is not the one that was asked for (None if it is)."""

    policy: Policy
    asked: str
    fallback_reason: str | None


class PolicyBook:
    """Loads each policy once, by name or directory, and falls back to the rule out loud."""

    def __init__(
        self,
        make: Callable[[str], Policy],
        *,
        configured: str,
        names: Sequence[str],
        seed: int = 0,
    ) -> None:
        """Remember how to make a policy; nothing is loaded yet.

        Args:
            make: builds a policy from a name or a policy directory.
            configured: what decides where a case names none; a name or a directory.
            names: names that a case may ask for; directories are for the operator alone.
            seed: of policies that draw.
        """
        self._make = make
        self.seed = seed
        self._loaded: dict[str, ActingPolicy] = {}
        # Callers see a folder's last name, not where it lies on the server.
        folder = "/" in configured
        self.configured = f"{FOLDER}{Path(configured).name}" if folder else configured
        self._source = {self.configured: configured}
        self.names = tuple(dict.fromkeys((self.configured, *names)))

    def check(self, asked: str) -> str:
        """Return the name if a case may ask for it.

        Raises:
            WorkflowError: if it is not offered.
        """
        if asked not in self.names:
            raise WorkflowError(
                f"Unknown policy {asked!r}; this server offers {', '.join(self.names)}."
            )
        return asked

    def acting(self, asked: str | None = None) -> ActingPolicy:
        """The policy for ``asked`` (the configured one for None); the rule if it cannot load."""
        name = asked if asked in self.names else self.configured
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    async def ready(self, asked: str | None = None) -> ActingPolicy:
        """Like :meth:`acting`; what takes long to load does not keep the event loop."""
        name = asked if asked in self.names else self.configured
        if name not in self._loaded:
            self._loaded.setdefault(name, await asyncio.to_thread(self._load, name))
        return self._loaded[name]

    def _load(self, name: str) -> ActingPolicy:
        try:
            policy, reason = self._make(self._source.get(name, name)), None
        except (AgentError, EnvsError, DistillError, OSError) as error:
            policy = self._make(FALLBACK)
            reason = f"policy {name!r} cannot load ({error}); the {FALLBACK} decides"
        policy.reset(1, self.seed)
        return ActingPolicy(policy=policy, asked=name, fallback_reason=reason)
