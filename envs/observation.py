"""What a policy sees: named, scaled fields in one flat vector, and the way back to units.

The layout is the contract between environments, stored policies and the live workflow: whoever
has the modalities and the transfers has the same fields in the same places. No field carries a
label. Scaling is fixed, so that nothing has to be saved beside a policy.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32, Float64

from distill.transfers import Transfer
from envs.config import LEADS_H
from envs.errors import LayoutError

VERSION = 2
MODALITY_GROUPS = ("present", "quality", "processed")
TRANSFER_GROUPS = ("run", "gain", "energy", "g_co2e", "setup", "sharing")
GROUPS = MODALITY_GROUPS + TRANSFER_GROUPS
Value = int | float | np.generic | np.ndarray


@dataclass(frozen=True, kw_only=True)
class ObservationField:
    """One entry of the vector.

    Attributes:
        name: the field's name.
        unit: unit of the physical value; ``1`` where it is a share, a probability or a flag.
        kind: ``linear``: scaled = value / scale; ``sqrt``: scaled = sqrt(value / scale), for
            energies and emissions, whose sizes differ a thousandfold between pipelines.
        scale: in the field's unit.
        low: lower bound of the scaled value; smaller values are clipped to it.
        high: upper bound of the scaled value; larger values are clipped to it.
    """

    name: str
    unit: str
    kind: Literal["linear", "sqrt"] = "linear"
    scale: float = 1.0
    low: float = 0.0
    high: float = 1.0


def _field(name: str, unit: str, scale: float, low: float, high: float) -> ObservationField:
    return ObservationField(name=name, unit=unit, scale=scale, low=low, high=high)


def _root(name: str, unit: str, scale: float, high: float) -> ObservationField:
    return ObservationField(name=name, unit=unit, kind="sqrt", scale=scale, high=high)


def _case_fields(modalities: Sequence[str], transfers: Sequence[str]) -> list[ObservationField]:
    share = [f"{group}_{m}" for group in MODALITY_GROUPS for m in modalities]
    share += [f"run_{t}" for t in transfers]
    return [
        _field("probability", "1", 1.0, 0.0, 1.0),
        _field("entropy", "bit", 1.0, 0.0, 1.0),
        _field("disagreement", "log-odds", 2.0, 0.0, 8.0),
        _field("logit", "log-odds", 4.0, -8.0, 8.0),
        *(_field(name, "1", 1.0, 0.0, 1.0) for name in share),
        _field("urgency", "1", 1.0, 0.0, 1.0),
        _field("slack_h", "h", 24.0, -8.0, 8.0),
        _field("deferred", "1", 1.0, 0.0, 1.0),
    ]


def _grid_fields() -> list[ObservationField]:
    names = ["intensity_now", *(f"intensity_lead_{h}h" for h in LEADS_H)]
    return [
        *(_field(name, "gCO2e/kWh", 500.0, 0.0, 8.0) for name in names),
        _field("intensity_uncertainty", "1", 0.25, 0.0, 8.0),
    ]


def _session_fields() -> list[ObservationField]:
    return [
        _field("budget_left", "1", 1.0, -8.0, 1.0),
        _root("budget_left_g_co2e", "gCO2e", 10_000.0, 64.0),
        _field("time_left", "h", 24.0, 0.0, 64.0),
        _field("cases_left", "cases", 64.0, 0.0, 2048.0),
        _field("waiting", "cases", 16.0, 0.0, 2048.0),
        _field("to_come", "cases", 64.0, 0.0, 2048.0),
        _field("ahead", "cases", 16.0, 0.0, 2048.0),
        _field("slots_left_now", "slots", 4.0, 0.0, 2048.0),
        _field("slots_left", "slots", 64.0, 0.0, 2048.0),
    ]


def _action_fields(transfers: Sequence[str]) -> list[ObservationField]:
    return [
        *(_field(f"gain_{t}", "AUC", 0.01, -100.0, 100.0) for t in transfers),
        *(_root(f"energy_{t}", "kWh", 1.0, 64.0) for t in transfers),
        *(_root(f"g_co2e_{t}", "gCO2e", 250.0, 256.0) for t in transfers),
        *(_root(f"setup_{t}", "kWh", 1.0, 64.0) for t in transfers),
        *(_field(f"sharing_{t}", "cases", 4.0, 0.0, 2048.0) for t in transfers),
    ]


@dataclass(frozen=True, init=False)
class ObservationLayout:
    """Names, units, scales and positions of the observation's fields.

    Fields, in order: ``probability entropy disagreement logit``, ``present_<m> quality_<m>
    processed_<m>`` for each modality, ``run_<transfer>``; ``urgency slack_h deferred``;
    ``intensity_now intensity_lead_<n>h intensity_uncertainty``; ``budget_left
    budget_left_g_co2e time_left cases_left waiting to_come ahead slots_left_now slots_left``;
    ``gain_<transfer> energy_<transfer> g_co2e_<transfer> setup_<transfer> sharing_<transfer>``.
    A group (``present``, ``gain``, ...) names all its fields at once.

    What competes: ``cases_left`` counts the open cases (this one included), ``waiting`` those of
    them that have arrived (put off or not), ``to_come`` those that are still to arrive, ``ahead``
    the waiting ones whose best transfer is predicted to gain more than this case's (0 where none
    gains). ``slots_left_now`` is the room left in this hour and ``slots_left`` that until this case
    has to be closed: transfers for a worklist, visits (this one included) where one case comes
    after another. ``energy`` is all that a transfer would take now: the bridge, the pipeline if it
    is new, and ``setup``, the start of a run if none is open in this hour; ``sharing`` counts the
    other waiting cases whose best transfer needs the same new pipeline.

    Attributes:
        modalities: inference modalities, clinical first.
        transfers: transfer names, in action order.
    """

    modalities: tuple[str, ...]
    transfers: tuple[str, ...]

    def __init__(self, modalities: Sequence[str], transfers: Sequence[Transfer | str]) -> None:
        """Lay out the fields for these modalities and transfers."""
        names = tuple(t.name if isinstance(t, Transfer) else t for t in transfers)
        object.__setattr__(self, "modalities", tuple(modalities))
        object.__setattr__(self, "transfers", names)

    @cached_property
    def fields(self) -> tuple[ObservationField, ...]:
        """Every field, in the vector's order."""
        return (
            *_case_fields(self.modalities, self.transfers),
            *_grid_fields(),
            *_session_fields(),
            *_action_fields(self.transfers),
        )

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Field names in the vector's order."""
        return tuple(field.name for field in self.fields)

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.names)}

    @property
    def size(self) -> int:
        """Length of the vector."""
        return len(self.fields)

    @property
    def units(self) -> tuple[str, ...]:
        """Unit of each field's physical value."""
        return tuple(field.unit for field in self.fields)

    @cached_property
    def low(self) -> Float32[np.ndarray, " fields"]:
        """Lower bounds of the scaled vector."""
        return np.array([field.low for field in self.fields], dtype=np.float32)

    @cached_property
    def high(self) -> Float32[np.ndarray, " fields"]:
        """Upper bounds of the scaled vector."""
        return np.array([field.high for field in self.fields], dtype=np.float32)

    def index(self, name: str) -> int:
        """Position of a field.

        Raises:
            LayoutError: if there is no such field; the message suggests the nearest.
        """
        if name in self._positions:
            return self._positions[name]
        close = difflib.get_close_matches(name, (*self.names, *GROUPS), n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise LayoutError(f"The observation has no field {name!r}.{hint}")

    def group(self, name: str) -> slice:
        """Positions of all fields of a group, for example ``gain`` (one a transfer).

        Raises:
            LayoutError: if there is no such group.
        """
        if name not in GROUPS:
            raise LayoutError(f"No group {name!r} of fields; groups: {', '.join(GROUPS)}.")
        members = self.modalities if name in MODALITY_GROUPS else self.transfers
        start = self._positions[f"{name}_{members[0]}"] if members else 0
        return slice(start, start + len(members))

    def encode(self, values: Mapping[str, Value]) -> Float32[np.ndarray, "batch fields"]:
        """Scale physical values into observations, clipped to the bounds.

        Args:
            values: every field by name (a number or an array of length ``batch``), or whole
                groups by group name (an array ``[members]`` or ``[batch, members]``).

        Raises:
            LayoutError: if a field is missing, unknown, not finite, or of the wrong shape.
        """
        placed = [self._placed(name, value) for name, value in values.items()]
        batch = max((len(array) for _, _, array in placed), default=1)
        raw = np.full((batch, self.size), np.nan)
        for name, at, array in placed:
            if len(array) not in (1, batch):
                raise LayoutError(f"{name} has {len(array)} values; expected 1 or {batch}.")
            raw[:, at] = array
        if not np.isfinite(raw).all():
            self._complain(values, raw)
        return self.scale(raw)

    def _placed(self, name: str, value: Value) -> tuple[str, slice, np.ndarray]:
        """Where a field or group goes, and its values, one row a case."""
        array = np.asarray(value, dtype=np.float64)
        if name not in GROUPS:
            at = self.index(name)
            return name, slice(at, at + 1), array.reshape(-1, 1)
        at_group = self._groups[name]
        width = at_group.stop - at_group.start
        if array.ndim not in (1, 2) or array.shape[-1] != width:
            raise LayoutError(
                f"Group {name!r} has shape {array.shape}; its last axis must be {width}."
            )
        return name, at_group, array.reshape(-1, width)

    def _complain(
        self, values: Mapping[str, Value], raw: Float64[np.ndarray, "batch fields"]
    ) -> None:
        """Say which field is missing or not finite."""
        given = {m for name in values if name in GROUPS for m in self.names[self._groups[name]]}
        missing = [name for name in self.names if name not in values and name not in given]
        if missing:
            raise LayoutError(f"The observation lacks {len(missing)} fields: {missing[:5]} ...")
        row, column = np.argwhere(~np.isfinite(raw))[0]
        raise LayoutError(f"{self.names[column]} is {raw[row, column]} in row {row}: an "
                          "observation holds finite numbers only.")  # fmt: skip

    @cached_property
    def _groups(self) -> dict[str, slice]:
        return {name: self.group(name) for name in GROUPS}

    def scale(self, raw: Float[np.ndarray, "batch fields"]) -> Float32[np.ndarray, "batch fields"]:
        """Scaled float32 vectors from physical values that are already in order."""
        scaled = raw / self._scales
        roots = self._is_sqrt
        scaled[:, roots] = np.sqrt(np.maximum(scaled[:, roots], 0.0))
        return np.asarray(np.clip(scaled.astype(np.float32), self.low, self.high))

    def scale_field(
        self, name: str, value: Float64[np.ndarray, "..."]
    ) -> Float32[np.ndarray, "..."]:
        """Scaled, clipped float32 values of one field."""
        field = self.fields[self.index(name)]
        scaled = value / field.scale
        if field.kind == "sqrt":
            scaled = np.sqrt(np.maximum(scaled, 0.0))
        return np.asarray(np.clip(scaled.astype(np.float32), field.low, field.high))

    @cached_property
    def _scales(self) -> Float64[np.ndarray, " fields"]:
        return np.array([field.scale for field in self.fields])

    @cached_property
    def _is_sqrt(self) -> np.ndarray:
        return np.array([field.kind == "sqrt" for field in self.fields])

    def physical(
        self, observation: Float32[np.ndarray, "*batch fields"], name: str
    ) -> Float64[np.ndarray, "..."]:
        """Undo the scaling of one field (``[*batch]``) or group (``[*batch, members]``).

        Raises:
            LayoutError: if the name is unknown or the vector has another length.
        """
        if observation.shape[-1] != self.size:
            raise LayoutError(
                f"An observation of {observation.shape[-1]} values does not fit a layout of "
                f"{self.size}; it comes from another bundle."
            )
        at = self.group(name) if name in GROUPS else self.index(name)
        value = observation[..., at].astype(np.float64)
        return np.asarray(np.where(self._is_sqrt[at], value * value, value) * self._scales[at])

    def explain(self, observation: Float32[np.ndarray, " fields"]) -> dict[str, tuple[float, str]]:
        """Turn one vector back into names, physical values and units."""
        return {
            field.name: (float(self.physical(observation, field.name)), field.unit)
            for field in self.fields
        }

    def to_json(self) -> str:
        """The layout as JSON text, to be stored beside a policy."""
        return json.dumps(
            {
                "version": VERSION,
                "modalities": list(self.modalities),
                "transfers": list(self.transfers),
                "fields": [asdict(field) for field in self.fields],
            }
        )

    @classmethod
    def from_json(cls, text: str) -> ObservationLayout:
        """Read :meth:`to_json`.

        Raises:
            LayoutError: if the text is no layout, or its fields or scales are not this version's.
        """
        try:
            stored = json.loads(text)
            layout = cls(stored["modalities"], stored["transfers"])
            fields = stored["fields"]
        except (ValueError, KeyError, TypeError) as error:
            raise LayoutError(f"This is not a stored observation layout: {error}") from error
        if stored.get("version") != VERSION or fields != [asdict(f) for f in layout.fields]:
            raise LayoutError(
                f"The stored layout (version {stored.get('version')!r}) is not the one of this "
                f"version ({VERSION}). Train the policy again."
            )
        return layout
