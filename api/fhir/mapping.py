"""Which codes are which features: a declarative map, bound to the features of one bundle.

The package has a map for well-known clinical fields and for mutated genes (``default_map.toml``);
a deployment may put a file of its own before it. What no map names travels under this server's own
coding system, one code a feature.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote, unquote

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from api.errors import SettingsError
from api.fhir.columns import Columns

FEATURE = "urn:greenboard:feature:"
FEATURE_SET = "urn:greenboard:feature-set"
MAP_SUFFIX = ".fhir.toml"
Code = tuple[str, str]
Value = str | float
SPACES = re.compile(r"[^!-~]|%|^ | $|(?<= ) ")


def feature_system(modality: str) -> str:
    """The coding system of a modality's features."""
    return FEATURE + quote(modality, safe="")


def modality_of(system: str) -> str | None:
    """The modality that a coding system is for; None if it is not one of ours."""
    return unquote(system.removeprefix(FEATURE)) if system.startswith(FEATURE) else None


def feature_code(name: str) -> str:
    """A feature's name as a code, which may hold single inner spaces alone."""
    return SPACES.sub(lambda m: " " if _inner(m) else quote(m[0], safe=""), name)


def _inner(match: re.Match[str]) -> bool:
    text, at = match.string, match.start()
    return match[0] == " " and 0 < at < len(text) - 1 and text[at - 1] != " "


def feature_name(code: str) -> str:
    """Undo :func:`feature_code`."""
    return unquote(code)


def _code(text: object) -> object:
    if isinstance(text, str) and text.count("|") == 1:
        return tuple(text.split("|"))
    raise ValueError("write a code as SYSTEM|CODE")


CodeText = Annotated[tuple[str, str], BeforeValidator(_code)]


class Part(BaseModel):
    """Base of the map's parts."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Word(Part):
    """One meaning: the codes for it, and how cohorts write it, the exact ones first.

    Attributes:
        codes: what comes in; the first is written.
        say: spellings; none where the codes say that nothing is known.
        write: false where no code says just this.
    """

    codes: tuple[CodeText, ...] = Field(min_length=1)
    say: tuple[str | float, ...] = ()
    write: bool = True


class FeatureRule(Part):
    """Where one feature comes from.

    Attributes:
        modality: its modality.
        names: what cohorts call it; the first that the bundle has counts.
        patient: an element of the Patient.
        condition: an element of a Condition.
        observation: codes of Observations, the preferred first.
        units: of a number, with the factor to the feature's own unit; the first is written.
        words: of a word, the table that its codes stand in.
    """

    modality: str
    names: tuple[str, ...] = Field(min_length=1)
    patient: Literal["age", "gender", "race"] | None = None
    condition: Literal["stage", "site"] | None = None
    observation: tuple[CodeText, ...] = ()
    units: dict[str, float] = {}
    words: str | None = None


class GeneRule(Part):
    """Where mutations go: 1 for a gene with a variant, 0 for one that was tested and has none.

    Attributes:
        modality: whose 0/1 features are genes.
        alias: present symbols, with those that cohorts still use.
        any_of: features that are 1 if any of these genes is mutated.
    """

    modality: str = "genomics"
    alias: dict[str, str] = {}
    any_of: dict[str, tuple[str, ...]] = {}


class MapFile(Part):
    """A file of rules; ``extends = false`` does without the package's own.

    ``tumour`` has the codes of Conditions that the case is about, ICD ones with all below them.
    """

    version: Literal[1]
    extends: bool = True
    tumour: tuple[CodeText, ...] = ()
    systems: dict[str, str] = {}
    urgency: dict[Literal["routine", "urgent", "asap", "stat"], float] = {}
    genes: GeneRule | None = None
    words: dict[str, dict[str, Word]] = {}
    feature: tuple[FeatureRule, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Table:
    """The words of one feature: from a code to the word that this bundle knows, and back.

    A code that says that nothing is known has None. Of the ``coarse`` ones the bundle knows no word
    that says as much.
    """

    word_of: Mapping[Code, Value | None]
    code_of: Mapping[Value, Code]
    coarse: frozenset[Code]


@dataclass(frozen=True, kw_only=True)
class BoundRule:
    """A rule and the feature of this bundle that it is for."""

    rule: FeatureRule
    modality: str
    name: str
    table: Table | None

    def rank(self, code: Code) -> int:
        """How far down the rule's list a code stands."""
        return self.rule.observation.index(code)


@dataclass(frozen=True, kw_only=True)
class BoundMap:
    """A map in the terms of one bundle."""

    columns: Mapping[str, Columns]
    rules: tuple[BoundRule, ...]
    by_code: Mapping[Code, tuple[BoundRule, ...]]
    known_codes: frozenset[Code]
    gene_modality: str
    genes: Mapping[str, str]
    any_of: Mapping[str, tuple[str, ...]]
    urgency: Mapping[str, float]
    tumour: tuple[Code, ...]

    def is_tumour(self, codes: Iterable[Code]) -> bool:
        """Whether a Condition of these codes is what the case is about."""
        return any(
            system == known and (code == start or code.startswith(start + "."))
            for system, code in codes
            for known, start in self.tumour
        )

    def of(self, modality: str, name: str) -> BoundRule | None:
        """The rule of a feature, if one names it."""
        return next((r for r in self.rules if (r.modality, r.name) == (modality, name)), None)


@cache
def packaged() -> MapFile:
    """The package's own map."""
    text = files("api.fhir").joinpath("default_map.toml").read_text(encoding="utf-8")
    return MapFile.model_validate(_expanded(tomllib.loads(text)))


def read_map(path: Path) -> MapFile:
    """A deployment's map.

    Raises:
        SettingsError: if it cannot be read, or is no map.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        return MapFile.model_validate(_expanded(data))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as problem:
        raise SettingsError(f"The FHIR map {path} cannot be read: {problem}.") from problem
    except ValidationError as problem:
        first = problem.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise SettingsError(f"The FHIR map {path}: {place}: {first['msg']}.") from None


def map_beside(bundle: Path) -> Path:
    """Where a deployment's map lies if no setting names it: beside the bundle's folder."""
    return bundle.parent / (bundle.name + MAP_SUFFIX)


def _expanded(data: dict[str, Any]) -> dict[str, Any]:
    """The same with the short names of systems written out."""
    systems = data.get("systems", {})

    def long(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: long(part) for name, part in value.items()}
        if isinstance(value, list):
            return [long(part) for part in value]
        if isinstance(value, str) and "|" in value:
            system, _, code = value.partition("|")
            return f"{systems.get(system, system)}|{code}"
        return value

    return {name: part if name == "systems" else long(part) for name, part in data.items()}


def bind(columns: Mapping[str, Columns], own: MapFile | None = None) -> BoundMap:
    """The map of a bundle.

    Args:
        columns: the bundle's features.
        own: the deployment's file; its rules come before the package's.
    """
    chain = [part for part in (own, packaged()) if part is not None]
    if own is not None and not own.extends:
        chain = [own]
    words = {name: table for part in reversed(chain) for name, table in part.words.items()}
    rules = _bound_rules(chain, columns, words)
    by_code: dict[Code, tuple[BoundRule, ...]] = {}
    for bound in rules:
        for code in bound.rule.observation:
            by_code[code] = (*by_code.get(code, ()), bound)
    genes = next((part.genes for part in chain if part.genes is not None), GeneRule())
    taken = columns.get(genes.modality)
    flags = taken.flags if taken is not None else frozenset()
    return BoundMap(
        columns=columns,
        rules=rules,
        by_code=by_code,
        known_codes=frozenset(c for part in chain for f in part.feature for c in f.observation),
        gene_modality=genes.modality,
        genes=_symbols(flags - genes.any_of.keys(), genes.alias),
        any_of={name: members for name, members in genes.any_of.items() if name in flags},
        urgency={k: v for part in reversed(chain) for k, v in part.urgency.items()},
        tumour=next((part.tumour for part in chain if part.tumour), ()),
    )


def _bound_rules(
    chain: list[MapFile], columns: Mapping[str, Columns], words: Mapping[str, Mapping[str, Word]]
) -> tuple[BoundRule, ...]:
    found: dict[tuple[str, str], BoundRule] = {}
    for rule in (rule for part in chain for rule in part.feature):
        has = columns.get(rule.modality)
        name = next((n for n in rule.names if has is not None and n in has), None)
        if has is None or name is None or (rule.modality, name) in found:
            continue
        table = None
        if rule.words is not None:
            known = None if name in has.numbers else has.words[name]
            table = _table(words.get(rule.words, {}), known)
        if table is None and name not in has.numbers:
            continue
        bound = BoundRule(rule=rule, modality=rule.modality, name=name, table=table)
        found[rule.modality, name] = bound
    return tuple(found.values())


def _table(words: Mapping[str, Word], known: tuple[str, ...] | None) -> Table | None:
    """Codes to what this bundle says for them; None if the rule's words are of the other kind.

    Args:
        words: the meanings.
        known: words that the bundle knows; None for a number.
    """
    spelled = {_bare(word): word for word in known or ()}
    word_of: dict[Code, Value | None] = {}
    exact: dict[Value, Word] = {}
    coarse: set[Code] = set()
    for word in words.values():
        said = _said(word, None if known is None else spelled)
        if said is None and word.say:
            continue  # its spellings are of the other kind
        word_of |= dict.fromkeys(word.codes, said)
        if said is not None and exact.setdefault(said, word) is not word:
            coarse |= set(word.codes)
    code_of = {said: word.codes[0] for said, word in exact.items() if word.write}
    if not exact:
        return None
    return Table(word_of=word_of, code_of=code_of, coarse=frozenset(coarse))


def _said(word: Word, spelled: Mapping[str, str] | None) -> Value | None:
    """How this bundle says it: as it is spelled there, else as the map has it."""
    if spelled is None:
        return next((float(v) for v in word.say if not isinstance(v, str)), None)
    texts = [v for v in word.say if isinstance(v, str)]
    near = (spelled[_bare(text)] for text in texts if _bare(text) in spelled)
    return next(near, texts[0] if texts else None)


def _bare(word: str) -> str:
    return "".join(c for c in word.casefold() if c.isalnum())


def _symbols(genes: frozenset[str], alias: Mapping[str, str]) -> dict[str, str]:
    """Gene symbols, present and former, to the features that they are."""
    found = {gene: gene for gene in genes}
    for symbol, former in alias.items():
        if former in genes:
            found.setdefault(symbol, former)
        elif symbol in genes:
            found.setdefault(former, symbol)
    return found
