"""A log of decisions: what was seen, what was open, what was done, and how likely that was.

One line a decision, in a JSON-lines file (``.jsonl``) or a Parquet table (``.parquet``):

    case         hashed identifier of the case; its lines are one trajectory
    step         0, 1, 2, ... within the case
    observation  the policy's input, as the header's modalities and transfers lay it out
    mask         for each action, whether it was open
    action       what was done: its index
    propensity   how likely the policy in use was to do that, above 0
    reward       what came of this decision; null while it is not known
    propensities optional: how likely each action was; with it, missing overlap is certain
    score, label optional, on a case's last line: its final log-odds, and its class once known

The first line of a JSON-lines file is the header; in Parquet it is the table's metadata.
Identifiers are hashed before they reach a log: see ``distill.bundle.hash_case_id``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64

from agent.errors import OffPolicyError
from envs.catalogue import ActionCatalogue
from envs.observation import ObservationLayout

KIND = "greenboard-decisions"
FORMAT = 1
PARQUET = ".parquet"
REQUIRED = ("case", "step", "observation", "mask", "action", "propensity")
Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class DecisionLog:
    """Decisions in order of cases and steps: N decisions, D fields, A actions.

    Attributes:
        modalities: of the observations, clinical first.
        transfers: of the actions, in order; then finalise, then defer.
        behaviour: name of the policy that was in use.
        reward_unit: what rewards are.
        case: hashed identifier of each decision's case.
        step: its place in the case.
        observation: what was seen.
        mask: what was open.
        action: what was done.
        propensity: how likely that was.
        reward: what came of it; NaN where it is not known.
        propensities: how likely each action was; NaN where that was not logged.
        score: final log-odds, on a case's last line; NaN elsewhere or where not logged.
        label: class of the case, the same way.
    """

    modalities: tuple[str, ...]
    transfers: tuple[str, ...]
    behaviour: str
    reward_unit: str
    case: tuple[str, ...]
    step: Int64[np.ndarray, " decisions"]
    observation: Float32[np.ndarray, "decisions fields"]
    mask: Bool[np.ndarray, "decisions actions"]
    action: Int64[np.ndarray, " decisions"]
    propensity: Float64[np.ndarray, " decisions"]
    reward: Float64[np.ndarray, " decisions"]
    propensities: Float64[np.ndarray, "decisions actions"]
    score: Float64[np.ndarray, " decisions"]
    label: Float64[np.ndarray, " decisions"]

    def __post_init__(self) -> None:
        _check(self)

    @cached_property
    def layout(self) -> ObservationLayout:
        """Names of the observation's fields."""
        return ObservationLayout(self.modalities, self.transfers)

    @cached_property
    def catalogue(self) -> ActionCatalogue:
        """Names of the actions."""
        return ActionCatalogue(self.transfers)

    @cached_property
    def place(self) -> Int64[np.ndarray, "cases steps"]:
        """Row of each case's steps; -1 after its last."""
        first = np.flatnonzero(self.step == 0)
        length = np.diff(np.append(first, len(self.step)))
        step = np.arange(int(length.max()))
        return np.where(step < length[:, None], first[:, None] + step, -1)


def _check(log: DecisionLog) -> None:
    """Refuse what cannot be evaluated, by line.

    Raises:
        OffPolicyError: naming the first line at fault.
    """
    if not len(log.step):
        raise OffPolicyError("The log holds no decision.")
    if log.observation.shape[1] != log.layout.size or log.mask.shape[1] != log.catalogue.n:
        raise OffPolicyError(
            f"The log's observations have {log.observation.shape[1]} fields and its masks "
            f"{log.mask.shape[1]} actions; {log.layout.size} and {log.catalogue.n} go with its "
            "modalities and transfers."
        )
    rows, same = np.arange(len(log.step)), np.append(False, np.array(log.case[1:]) == log.case[:-1])
    expected = np.append(0, log.step[:-1] + 1) * same
    known = (log.action >= 0) & (log.action < log.catalogue.n)
    chosen = np.where(known, log.action, 0)
    stated = log.propensities[rows, chosen]
    problems = {
        "steps that do not count 0, 1, 2 within the case": log.step == expected,
        "an action that is not in the catalogue": known,
        "an action that was not open": log.mask[rows, chosen],
        "a propensity that is not above 0 and at most 1": (log.propensity > 0)
        & (log.propensity <= 1),
        "a propensity other than propensities say": np.isnan(stated)
        | np.isclose(stated, log.propensity, rtol=1e-4),
        "an observation that is not finite": np.isfinite(log.observation).all(axis=1),
    }
    for what, good in problems.items():
        if not good.all():
            at = int(np.flatnonzero(~good)[0])
            raise OffPolicyError(
                f"{int((~good).sum())} decisions have {what}; the first is number {at + 1}, of "
                f"case {log.case[at][:12]}."
            )


def header_of(log: DecisionLog) -> dict[str, Any]:
    """What a file says once."""
    return {
        "log": KIND,
        "format": FORMAT,
        "modalities": list(log.modalities),
        "transfers": list(log.transfers),
        "behaviour": log.behaviour,
        "reward_unit": log.reward_unit,
    }


def write_log(log: DecisionLog, path: Path) -> None:
    """Write a log whole or not at all; the name's ending says how."""
    partial = path.with_name(path.name + ".partial")
    if path.suffix == PARQUET:
        _write_parquet(log, partial)
    else:
        with partial.open("w", encoding="utf-8") as file:
            file.write(json.dumps(header_of(log)) + "\n")
            for row in _rows(log):
                file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
    partial.replace(path)


def _rows(log: DecisionLog) -> Iterator[dict[str, Any]]:
    full = np.isfinite(log.propensities).all(axis=1)
    for i, case in enumerate(log.case):
        row: dict[str, Any] = {
            "case": case,
            "step": int(log.step[i]),
            # The shortest text that reads back as the same float32.
            "observation": [float(str(x)) for x in log.observation[i]],
            "mask": [int(x) for x in log.mask[i]],
            "action": int(log.action[i]),
            "propensity": float(log.propensity[i]),
            "reward": None if np.isnan(log.reward[i]) else float(log.reward[i]),
        }
        if full[i]:
            row["propensities"] = [float(x) for x in log.propensities[i]]
        for name, value in (("score", log.score[i]), ("label", log.label[i])):
            if np.isfinite(value):
                row[name] = float(value)
        yield row


def _write_parquet(log: DecisionLog, path: Path) -> None:
    import pyarrow as pa  # noqa: PLC0415  (large; JSON lines need none of it)
    import pyarrow.parquet as pq  # noqa: PLC0415

    columns = {
        "case": list(log.case), "step": log.step, "observation": list(log.observation),
        "mask": list(log.mask), "action": log.action, "propensity": log.propensity,
        "reward": log.reward, "propensities": list(log.propensities), "score": log.score,
        "label": log.label,
    }  # fmt: skip
    table = pa.table(columns).replace_schema_metadata({KIND: json.dumps(header_of(log))})
    pq.write_table(table, path)


def read_log(path: Path) -> DecisionLog:
    """Read and check a log.

    Raises:
        OffPolicyError: if it is no log, lacks propensities, or a line cannot be used.
    """
    try:
        header, rows = _read_parquet(path) if path.suffix == PARQUET else _read_lines(path)
    except (ValueError, TypeError, KeyError) as error:
        raise OffPolicyError(f"{path} is not a log of decisions: {error}") from error
    if header.get("log") != KIND or header.get("format") != FORMAT:
        raise OffPolicyError(
            f"{path} begins with {str(header)[:80]!r}; a log begins with its header, "
            f'{{"log": "{KIND}", "format": {FORMAT}, "modalities": ..., "transfers": ...}}.'
        )
    return log_of(header, rows)


def _read_lines(path: Path) -> tuple[dict[str, Any], list[Row]]:
    with path.open(encoding="utf-8") as file:
        lines = [json.loads(line) for line in file if line.strip()]
    if not lines or not all(isinstance(line, dict) for line in lines):
        raise ValueError("it needs one JSON object a line")
    return lines[0], lines[1:]


def _read_parquet(path: Path) -> tuple[dict[str, Any], list[Row]]:
    import pyarrow.parquet as pq  # noqa: PLC0415

    table = pq.read_table(path)
    header = json.loads((table.schema.metadata or {}).get(KIND.encode(), b"{}"))
    return header, table.to_pylist()


def log_of(header: Mapping[str, Any], rows: list[Row]) -> DecisionLog:
    """A checked log from a header and lines, which may come in any order of cases.

    Raises:
        OffPolicyError: if a field is missing or a line cannot be used.
    """
    for i, row in enumerate(rows):
        lacking = [name for name in REQUIRED if row.get(name) is None]
        if lacking:
            why = (
                " Without the probability with which the policy in use chose the action, a log "
                "says nothing of other policies: log it at the time; it cannot be made up later."
            )
            raise OffPolicyError(
                f"Decision number {i + 1} lacks {', '.join(lacking)}."
                + (why if "propensity" in lacking else "")
            )
    ordered = sorted(rows, key=lambda row: (row["case"], row["step"]))
    try:
        arrays = _arrays(ordered, len(header["transfers"]) + 2)
    except (ValueError, TypeError) as error:
        raise OffPolicyError(f"The log's lines do not fit together: {error}") from error
    return DecisionLog(
        modalities=tuple(header["modalities"]),
        transfers=tuple(header["transfers"]),
        behaviour=str(header.get("behaviour", "unknown")),
        reward_unit=str(header.get("reward_unit", "unknown")),
        case=tuple(str(row["case"]) for row in ordered),
        **arrays,
    )


def _arrays(rows: list[Row], n_actions: int) -> dict[str, Any]:
    nothing = [np.nan] * n_actions

    def column(name: str) -> Float[np.ndarray, " decisions"]:
        values = [row.get(name) for row in rows]
        return np.array([np.nan if v is None else v for v in values], dtype=np.float64)

    width = max((len(row["observation"]) for row in rows), default=0)
    return {
        "step": np.array([row["step"] for row in rows], dtype=np.int64),
        "observation": np.array([row["observation"] for row in rows], dtype=np.float32).reshape(
            len(rows), width
        ),
        "mask": np.array([row["mask"] for row in rows], dtype=np.bool_).reshape(len(rows), -1),
        "action": np.array([row["action"] for row in rows], dtype=np.int64),
        "propensity": column("propensity"),
        "reward": column("reward"),
        "propensities": np.array(
            [nothing if (all_of := row.get("propensities")) is None else all_of for row in rows],
            dtype=np.float64,
        ).reshape(len(rows), n_actions),
        "score": column("score"),
        "label": column("label"),
    }
