"""From what a job is asked for to the words of its command line, and the files that it leaves.

Whatever a caller wrote stands behind an equals sign (``--heat-source=...``), so that it can be
nothing but a value. The command works in the job's own folder with links to what it reads: its
reports then name no place of the server.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from agent.workflow.policybook import FOLDER
from api.job_process import Step
from api.kits import Kits
from api.settings import Settings
from api.store import ledger, shadows
from api.store.database import Database
from carbon.ledger import ledger_line

HTML, JSON = "text/html; charset=utf-8", "application/json"
BUNDLE, LEDGER, SHADOWS, OUT = "bundle", "ledger.jsonl", "shadows.jsonl", "out"
COURSE = (
    ("train", 0.02, 0.10),
    ("sessions", 0.10, 0.45),
    ("bounds", 0.45, 0.90),
    ("statistics", 0.90, 0.98),
)
"""Where each stage of a comparison begins and ends, as shares of the whole; roughly."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One command.

    Attributes:
        words: of the command line, without ``greenboard``.
        files: what it leaves: name for callers, path in the folder, media type.
        output: file that takes its standard output; None to drop that.
    """

    words: tuple[str, ...]
    files: tuple[tuple[str, str, str], ...]
    output: str | None = None


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What plans are made from."""

    database: Database
    kits: Kits
    settings: Settings


Planner = Callable[[Sources, Mapping[str, Any], Path], Awaitable[Plan]]


async def comparison(sources: Sources, request: Mapping[str, Any], folder: Path) -> Plan:
    """``greenboard compare`` on the active bundle, with the server's trace if it has one."""
    (folder / BUNDLE).symlink_to(sources.kits.active.folder.resolve())
    names = [_policy(sources, name, folder) for name in request["policies"]]
    words = [
        "compare", f"--bundle={BUNDLE}", f"--out={OUT}", f"--policies={','.join(names)}",
        f"--env={request['env']}", f"--sessions={request['sessions']}",
        f"--seed={request['seed']}", "--progress-lines",
    ]  # fmt: skip
    words += [f"--{name}={request[name]}" for name in ("preset", "budget") if request[name]]
    return Plan(
        words=(*words, *_trace(sources.settings, folder)),
        files=(
            ("report.html", f"{OUT}/report.html", HTML),
            ("report.json", f"{OUT}/report.json", JSON),
        ),
    )


def _policy(sources: Sources, name: str, folder: Path) -> str:
    """A name as the command takes it; the operator's own policy folder comes in as a link."""
    book = sources.kits.active.kit.policies
    if name != book.configured or not name.startswith(FOLDER):
        return name
    link = folder / name.replace(":", "-")
    link.symlink_to(Path(sources.settings.policy).resolve())
    return f"./{link.name}"


def _trace(settings: Settings, folder: Path) -> list[str]:
    if settings.trace is None:
        return []
    link = folder / settings.trace.name
    link.symlink_to(settings.trace.resolve())
    return [f"--trace={link.name}"]


async def account(sources: Sources, request: Mapping[str, Any], folder: Path) -> Plan:
    """``greenboard carbon account`` on the ledger as it is now, with its page."""
    settings = sources.settings
    since, until = _period(request)
    entries = await sources.database.read(
        lambda connection: ledger.entries(connection, since=since, until=until)
    )
    name = Path(LEDGER)
    (folder / name).write_bytes(b"".join(ledger_line(name, entry) for entry in entries))
    words = ["carbon", "account", LEDGER, f"--by={request['by']}", "--json", "--page=account.html"]
    for option in ("heat", "heat_source", "heat_scope", "hardware", "hardware_source"):
        if request[option] is not None:
            words.append(f"--{option.replace('_', '-')}={request[option]}")
    words += [f"--budget={limit}" for limit in settings.limits]
    words.append(f"--timezone={settings.timezone}")
    if request["heat"] is not None:
        words += _trace(settings, folder)
    return Plan(
        words=tuple(words),
        files=(
            ("account.html", "account.html", HTML),
            ("account.json", "account.json", JSON),
            (LEDGER, LEDGER, "application/jsonl"),
        ),
        output="account.json",
    )


async def shadow(sources: Sources, request: Mapping[str, Any], folder: Path) -> Plan:
    """``greenboard shadow`` on what the policies that decide nothing have said so far."""
    since, until = _period(request)
    lines = await sources.database.read(
        lambda connection: shadows.lines(connection, since=since, until=until)
    )
    (folder / SHADOWS).write_bytes(b"".join(lines))
    return Plan(
        words=("shadow", SHADOWS, f"--out={OUT}"),
        files=(
            ("shadow.html", f"{OUT}/shadow.html", HTML),
            ("shadow.json", f"{OUT}/shadow.json", JSON),
        ),
    )


def _period(request: Mapping[str, Any]) -> tuple[datetime | None, datetime | None]:
    since, until = (request[name] for name in ("since", "until"))
    return (
        datetime.fromisoformat(since) if since else None,
        datetime.fromisoformat(until) if until else None,
    )


PLANNERS: dict[str, Planner] = {
    "comparison": comparison,
    "carbon_account": account,
    "shadow": shadow,
}


def share_done(step: Step) -> float:
    """How far the whole is, from one stage's step."""
    name = re.sub(r"^fold \d+: ", "", step.stage).partition(" ")[0]
    for stage, begins, ends in COURSE:
        if stage == name:
            return begins + (ends - begins) * step.share
    return 0.0
