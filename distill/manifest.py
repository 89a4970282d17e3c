"""``cohort.toml``: what a cohort folder holds, which column is which, and what processing costs."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from distill.cohort_problems import Problem, Problems, suggest
from distill.errors import CohortError
from distill.transfers import BASE_MODALITY, EMPTY_SET

MANIFEST = "cohort.toml"
CASE_ID = "case_id"
TABLE_SUFFIXES = (".csv", ".csv.gz", ".parquet")
Role = Literal["inference", "privileged", "ignored"]
_MODALITY_NAME = re.compile(r"[a-z][a-z0-9_]*")


def _inside_folder(table: str) -> str:
    path = PurePosixPath(table)
    if path.is_absolute() or ".." in path.parts or "\\" in table or not table.strip():
        raise ValueError(
            f"{table!r} leads out of the cohort folder; name a file inside it, such as 'labels.csv'"
        )
    if not table.lower().endswith(TABLE_SUFFIXES):
        raise ValueError(f"{table!r} is not a table; allowed are {', '.join(TABLE_SUFFIXES)}")
    return table


def _as_text(value: object) -> object:
    # A class may be written as 0 or 1 in TOML, but a table's cell is text: compare as text.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


TablePath = Annotated[str, AfterValidator(_inside_folder)]
Name = Annotated[str, Field(min_length=1)]
ClassName = Annotated[str, Field(min_length=1), BeforeValidator(_as_text)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class PipelineSpec(_Section):
    """What it takes to turn one case's raw assay into its row of the table.

    Attributes:
        core_hours: CPU core-hours.
        gpu_hours: GPU-hours.
        memory_gb: memory held while it runs, GB.
        cores: cores that run at the same time; wall time is ``core_hours / cores``.
        note: where the figures come from.
    """

    core_hours: Amount
    gpu_hours: Amount = 0.0
    memory_gb: Amount = 0.0
    cores: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    note: str = ""


class LabelSpec(_Section):
    """Which table and columns hold the label, the hospital, the folds and the temporal context."""

    table: TablePath
    column: Name
    negative: ClassName
    positive: ClassName
    group: Name | None = None
    fold: Name | None = None
    temporal: tuple[Name, ...] = Field(default=(), strict=False)

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that the manifest names, in the order label, group, fold, temporal."""
        named = (self.column, self.group, self.fold, *self.temporal)
        return tuple(name for name in named if name is not None)

    @model_validator(mode="after")
    def _distinct(self) -> LabelSpec:
        if self.negative == self.positive:
            raise ValueError(f"negative and positive are both {self.positive!r}; name two classes")
        columns = (CASE_ID, *self.columns)
        twice = sorted({name for name in columns if columns.count(name) > 1})
        if twice:
            raise ValueError(f"column {twice[0]!r} has two roles; each needs a column of its own")
        return self


class ModalitySpec(_Section):
    """One table of features, whether it may be used at review, and what processing it costs."""

    table: TablePath
    role: Role
    pipeline: PipelineSpec | None = None


class CohortManifest(_Section):
    """The whole of ``cohort.toml``; unknown keys are refused."""

    name: Name
    description: str = ""
    synthetic: bool = False
    label: LabelSpec
    modality: dict[str, ModalitySpec]

    @model_validator(mode="after")
    def _consistent(self) -> CohortManifest:
        for name in self.modality:
            if not _MODALITY_NAME.fullmatch(name) or name == EMPTY_SET:
                raise ValueError(
                    f"modality name {name!r} is not allowed; use small letters, digits and '_', "
                    f"starting with a letter, and not {EMPTY_SET!r}"
                )
        clinical = self.modality.get(BASE_MODALITY)
        if clinical is None or clinical.role != "inference":
            raise ValueError(
                f"no modality {BASE_MODALITY!r} with role 'inference'; it is always processed, "
                f'so add [modality.{BASE_MODALITY}] with role = "inference"'
            )
        tables = [self.label.table, *(spec.table for spec in self.modality.values())]
        twice = sorted({table for table in tables if tables.count(table) > 1})
        if twice:
            raise ValueError(
                f"table {twice[0]!r} is named twice; a label or another modality inside a "
                "feature table would give the answer away, so split the file"
            )
        return self

    def modalities(self, role: Role | None = None) -> tuple[str, ...]:
        """Modalities of a role (all roles when ``None``), clinical first, else in file order."""
        names = [name for name, spec in self.modality.items() if role in (None, spec.role)]
        return tuple(sorted(names, key=lambda name: name != BASE_MODALITY))

    def to_toml(self) -> str:
        """The manifest as TOML text that :func:`read_manifest` reads back equal."""
        return "\n".join(_toml_lines(self)) + "\n"


def read_manifest(folder: Path) -> CohortManifest:
    """Read and validate ``cohort.toml`` of a cohort folder.

    Raises:
        CohortError: if the folder or the file is missing, is not TOML, or a key is unknown,
            missing or has a value that is not allowed.
    """
    problems = Problems()
    manifest = parse_manifest(folder, problems)
    if manifest is None:
        raise problems.error(folder)
    return manifest


def parse_manifest(folder: Path, problems: Problems) -> CohortManifest | None:
    """Read ``cohort.toml``; every problem is added to ``problems``, and then it is ``None``.

    Raises:
        CohortError: if there is no such folder.
    """
    if not folder.is_dir():
        raise CohortError(f"No cohort folder at {folder}. 'greenboard cohort synth' writes one.")
    try:
        text = (folder / MANIFEST).read_text(encoding="utf-8")
        return CohortManifest.model_validate(tomllib.loads(text))
    except FileNotFoundError:
        message = "no such file, so this is not a cohort folder. Write one that names the label "
        problems.add(Problem(file=MANIFEST, message=message + "table and the modalities."))
    except tomllib.TOMLDecodeError as error:
        message = f"not valid TOML: {error}. Correct that line."
        problems.add(Problem(file=MANIFEST, message=message))
    except ValidationError as error:
        for problem in _explain(error, text):
            problems.add(problem)
    except (OSError, UnicodeDecodeError) as error:
        message = f"cannot be read as UTF-8 text: {error}. Save it as UTF-8."
        problems.add(Problem(file=MANIFEST, message=message))
    return None


def _explain(error: ValidationError, text: str) -> Iterator[Problem]:
    # Unknown keys first: a misspelt key is also a missing one, and its name says why.
    items = sorted(error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden")
    for item in items:
        loc = tuple(str(part) for part in item["loc"])
        key = f"key '{'.'.join(loc)}': " if loc else ""
        message = _message(item["type"], item["msg"], item["input"], loc)
        yield Problem(file=MANIFEST, line=_line_of(text, loc), message=key + message)


def _message(kind: str, message: str, value: object, loc: Sequence[str]) -> str:
    if kind == "extra_forbidden":
        return f"unknown key. {suggest(loc[-1], _allowed_keys(loc))} Correct or remove it."
    if kind == "missing":
        return f"missing. Add {loc[-1]} = ... there."
    message = message.removeprefix("Value error, ")
    if kind == "value_error":
        return f"{message}."
    return f"{value!r} is not allowed: {message[:1].lower()}{message[1:]}. Correct the value."


def _allowed_keys(loc: Sequence[str]) -> list[str]:
    section: type[BaseModel] = CohortManifest
    if loc[0] == "label" and len(loc) > 1:
        section = LabelSpec
    elif loc[0] == "modality" and len(loc) > 2:
        section = PipelineSpec if loc[2] == "pipeline" and len(loc) > 3 else ModalitySpec
    return list(section.model_fields)


def _line_of(text: str, loc: Sequence[str]) -> int | None:
    """The line where a key stands, or its nearest parent; None when it cannot be told."""
    best: int | None = None
    depth = 0
    section: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[([^\[\]]+)\]", line)
        key = re.match(r"\s*([\w\".-]+)\s*=", line)
        if header:
            section = [part.strip(' "') for part in header[1].split(".")]
            path = section
        elif key:
            path = [*section, *(part.strip('"') for part in key[1].split("."))]
        else:
            continue
        if len(path) > depth and list(loc[: len(path)]) == path:
            best, depth = number, len(path)
    return best


def _toml_value(value: object) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{k} = {_toml_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml_value(v) for v in value) + "]"
    return repr(value)


def _toml_lines(manifest: CohortManifest) -> Iterator[str]:
    raw: dict[str, Any] = manifest.model_dump(exclude_none=True)
    label, modality = raw.pop("label"), raw.pop("modality")
    yield from (f"{key} = {_toml_value(value)}" for key, value in raw.items())
    yield from ("", "[label]")
    yield from (f"{key} = {_toml_value(v)}" for key, v in label.items() if v != ())
    for name, spec in modality.items():
        yield from ("", f"[modality.{name}]")
        yield from (f"{key} = {_toml_value(value)}" for key, value in spec.items())
