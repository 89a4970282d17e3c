"""The server's settings. The one place that reads the environment, and only when called."""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit
from zoneinfo import available_timezones

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)

from agent.workflow.limits import SpendLimits
from api.auth import ApiKey
from api.errors import SettingsError
from carbon.budget import Budget, parse_budget
from carbon.errors import IntensityError
from carbon.intensity.build import ELECTRICITY_MAPS_URL, WATTTIME_URL, ProviderAccess
from carbon.intensity.secret import Secret

PREFIX = "GREENBOARD_"
DEFAULT_POLICY = "planner"
OPTION_NAMES = {
    "BUDGET": "budget_g_co2e_per_day",
    "LIMIT": "limits",
    "REGION": "neso_region",
    "POSTCODE": "neso_postcode",
}
"""Options of ``greenboard serve`` that are called otherwise than the field that they set."""
NOT_FIELDS = (
    "KEYS", "KEYS_FILE", "ELECTRICITY_MAPS_TOKEN", "ELECTRICITY_MAPS_URL", "WATTTIME_USER",
    "WATTTIME_PASSWORD", "WATTTIME_URL", "REPHRASE_KEY",
)  # fmt: skip
"""Variables that :func:`read_settings` and :func:`read_access` read by themselves."""
KUBERNETES = re.compile(
    r"GREENBOARD_(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)"
)
"""Set in every container beside a Kubernetes Service whose name begins with greenboard."""


def split_limits(value: object) -> object:
    """Limits as one text or several; each is read once, so that a wrong one stops the start."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        return value
    kept = tuple(text.strip() for text in parts if isinstance(text, str) and text.strip())
    SpendLimits(parse_budget(text) for text in kept)
    return kept


def split_names(value: object) -> object:
    """Names as one text with commas, or several."""
    if not isinstance(value, str):
        return value
    return tuple(name.strip() for name in value.split(",") if name.strip())


def known_timezone(name: str) -> str:
    """An IANA time zone that this machine knows."""
    if name != "UTC" and name not in available_timezones():
        raise ValueError(f"{name!r} is no time zone; write for example Europe/London")
    return name


def own_address(address: str | None) -> str | None:
    """An absolute address without anything after the path, and without a slash at its end."""
    if address is None:
        return None
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        raise ValueError("write an address such as https://greenboard.example.org")
    if parts.query or parts.fragment:
        raise ValueError("write an address without '?' and '#'")
    return address.rstrip("/")


class Settings(BaseModel):
    """Everything that the server can be told.

    Attributes:
        bundle: folder that ``greenboard train`` wrote.
        precision: which of its students is served; by default the one that its training chose.
        state: folder of the databases; made if it is not there.
        policy: decides where a case names none: a name or a policy folder.
        cohort: cohort folder whose cases may be reviewed by their id.
        trace: recorded trace of carbon intensity, used instead of the live source.
        source: sources of carbon intensity in order, commas between; chosen by what is given
            where empty (trace, else NESO, then a synthetic day).
        zone: zone of Electricity Maps, region of WattTime, or name of the trace's grid.
        basis: direct or life-cycle intensities.
        neso_region: of NESO, a region (1 to 17) instead of the nation.
        neso_postcode: of NESO, a postcode instead of the nation.
        token_file: file with the credentials of Electricity Maps or WattTime.
        database_url: SQLAlchemy URL of the case store; a SQLite file in ``state`` by default.
        keys: who may call.
        budget_g_co2e_per_day: carbon for the day's reviews; the session's rule by default.
        limits: PERIOD:SOFT:HARD[:SOFT_ACTION:HARD_ACTION] in g CO2e, commas between; see
            :func:`carbon.budget.parse_budget`.
        timezone: where the limits' days and months begin.
        host: address that ``greenboard serve`` listens on.
        port: its port; 0 takes a free one.
        port_file: where it writes the port once that is taken.
        queue_limit: cases that may wait to be reviewed before new ones are refused.
        workers: cases that are under way at once.
        max_body_bytes: largest request body.
        wake_poll_s: how often deferred cases are looked at.
        lease_s: how long a case belongs to one worker before another may take it over.
        ping_s: pause between signs of life on an event stream.
        watchers: event streams that may be open at once.
        public_url: this server's address as browsers and other systems reach it, for links and
            for the audience of CDS clients' tokens.
        cds_trust: TOML file of the CDS clients that are trusted; see :mod:`api.cds.trust`.
        cds_open: answer every CDS client, for tries on this machine only.
        fhir_map: TOML that says which FHIR codes are which features, see
            :mod:`api.fhir.mapping`; by default BUNDLE.fhir.toml beside the bundle, if it is there.
        bundles: folder of bundles that may be activated beside the one that is served.
        shadow: policies that decide silently beside the acting one, commas between.
        second_review_above: entropy of the probability, bits, above which two reviewers have to
            agree; nobody has to by default.
        rephrase_url: an OpenAI-compatible endpoint that may put explanations in other words, for
            example ``https://host/v1``; none by default. Its key, if it asks for one, is read from
            GREENBOARD_REPHRASE_KEY.
        rephrase_model: the model's name there.
        require_if_match: refuse clinicians' actions that do not say which version they saw.
        jobs_queue: background jobs that may wait before new ones are refused.
        job_limit_s: how long one may take.
        jobs_kept: jobs whose files are kept; those of older ones are removed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    STORE: ClassVar[str] = "cases.sqlite"

    bundle: Path
    precision: Literal["fp32", "int8"] | None = None
    state: Path = Path("runs/serve")
    policy: str = DEFAULT_POLICY
    cohort: Path | None = None
    trace: Path | None = None
    source: str = ""
    zone: str | None = None
    basis: Literal["direct", "life"] = "direct"
    neso_region: int | None = None
    neso_postcode: str | None = None
    token_file: Path | None = None
    database_url: str | None = None
    keys: tuple[ApiKey, ...] = ()
    budget_g_co2e_per_day: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    limits: Annotated[tuple[str, ...], BeforeValidator(split_limits)] = ()
    timezone: Annotated[str, AfterValidator(known_timezone)] = "UTC"
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    port_file: Path | None = None
    queue_limit: int = Field(default=256, ge=1)
    workers: int = Field(default=16, ge=1, le=64)
    max_body_bytes: int = Field(default=1_048_576, ge=1024)
    wake_poll_s: float = Field(default=1.0, gt=0)
    lease_s: float = Field(default=60.0, gt=0)
    ping_s: float = Field(default=15.0, gt=0)
    watchers: int = Field(default=256, ge=1)
    public_url: Annotated[str | None, AfterValidator(own_address)] = None
    cds_trust: Path | None = None
    cds_open: bool = False
    fhir_map: Path | None = None
    bundles: Path | None = None
    shadow: Annotated[tuple[str, ...], BeforeValidator(split_names)] = ()
    second_review_above: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    rephrase_url: str | None = None
    rephrase_model: str | None = None
    require_if_match: bool = False
    jobs_queue: int = Field(default=8, ge=1, le=1000)
    job_limit_s: float = Field(default=3600.0, gt=0, allow_inf_nan=False)
    jobs_kept: int = Field(default=50, ge=1)

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """The limits, read."""
        return tuple(parse_budget(text) for text in self.limits)

    @property
    def store_url(self) -> str:
        """Where the cases are kept."""
        return self.database_url or f"sqlite:///{(self.state / self.STORE).resolve()}"


def parse_keys(text: str) -> tuple[ApiKey, ...]:
    """Read ``name:role:sha256`` entries, separated by commas.

    Raises:
        SettingsError: if an entry is not of that form (the entry itself is not repeated).
    """
    keys = []
    for i, entry in enumerate(part for part in text.split(",") if part.strip()):
        fields = entry.strip().split(":")
        if len(fields) != 3:
            raise SettingsError(
                f"Key entry {i + 1} has {len(fields)} parts; write name:role:sha256, entries "
                "separated by commas."
            )
        keys.append(_key({"name": fields[0], "role": fields[1], "sha256": fields[2]}, i))
    return _distinct(keys)


def read_keys(path: Path) -> tuple[ApiKey, ...]:
    """Read a TOML file with one ``[[key]]`` table (name, role, sha256) a key.

    Raises:
        SettingsError: if the file cannot be read or an entry is not of that form.
    """
    try:
        data = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"Cannot read keys from {path}: {error}.") from error
    entries = data.get("key")
    if set(data) != {"key"} or not isinstance(entries, list) or not entries:
        raise SettingsError(
            f"{path} must hold one or more [[key]] tables with name, role and sha256."
        )
    return _distinct([_key(entry, i) for i, entry in enumerate(entries)])


def _key(entry: object, index: int) -> ApiKey:
    try:
        return ApiKey.model_validate(entry)
    except ValidationError as error:
        where = ", ".join(str(problem["loc"][0]) for problem in error.errors() if problem["loc"])
        raise SettingsError(
            f"Key entry {index + 1} is not valid ({where or 'not a table'}): it takes a name, a "
            "role (viewer, reviewer, admin) and the key's SHA-256 (printf %s KEY | sha256sum)."
        ) from None


def _distinct(keys: list[ApiKey]) -> tuple[ApiKey, ...]:
    if len({key.name for key in keys}) != len(keys) or len({k.sha256 for k in keys}) != len(keys):
        raise SettingsError("Two key entries share a name or a sum; give each person one of each.")
    return tuple(keys)


def read_settings(options: Mapping[str, Any], *, keys_file: Path | None = None) -> Settings:
    """Settings from the command's options, then the environment, then the defaults.

    Environment: ``GREENBOARD_<FIELD>`` for each field, for example ``GREENBOARD_BUNDLE`` or
    ``GREENBOARD_DATABASE_URL``, and the names of ``OPTION_NAMES``; ``GREENBOARD_KEYS`` holds
    ``name:role:sha256`` entries, ``GREENBOARD_KEYS_FILE`` the path of a key file.

    Raises:
        SettingsError: if a value is missing or not of its kind, or a variable is unknown.
    """
    variables = _field_variables()
    environment = {field: os.environ[name] for field, name in variables.items()}
    given = {name: value for name, value in options.items() if value is not None}
    file = keys_file or os.environ.get(PREFIX + "KEYS_FILE")
    inline = os.environ.get(PREFIX + "KEYS", "")
    keys = read_keys(Path(file)) if file else parse_keys(inline)
    try:
        return Settings.model_validate({**environment, "keys": keys, **given})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        variable = variables.get(field, f"{PREFIX}{field.upper()}")
        raise SettingsError(
            f"Setting {field!r}: {first['msg']}. Give it on the command line or as {variable}."
        ) from None


def _is_link(value: str) -> bool:
    """Whether it is what Kubernetes sets as ``<SERVICE>_PORT``; never an option of ours."""
    return value.startswith(("tcp://", "udp://", "sctp://"))


def _field_variables() -> dict[str, str]:
    """The environment's variable of each field that has one; empty ones count as not set.

    A variable that means nothing is refused: mistyped, it would change nothing and say nothing.
    """
    known = {PREFIX + name.upper(): name for name in Settings.model_fields if name != "keys"}
    known |= {PREFIX + name: field for name, field in OPTION_NAMES.items()}
    others = {PREFIX + name for name in NOT_FIELDS}
    found: dict[str, str] = {}
    for name in sorted(os.environ):
        if not name.startswith(PREFIX) or name in others or not os.environ[name]:
            continue
        if KUBERNETES.fullmatch(name) or _is_link(os.environ[name]):
            continue
        if name not in known:
            near = get_close_matches(name, [*known, *others], n=3)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            raise SettingsError(
                f"Unknown setting {name} in the environment.{hint} Unset it; api/README.md says "
                "what there is."
            )
        if known[name] in found:
            raise SettingsError(f"{found[known[name]]} and {name} are the same; set one of them.")
        found[known[name]] = name
    return found


def read_access(token_file: Path | None, source: str) -> ProviderAccess:
    """Credentials and addresses of the providers among the sources that need them.

    From the file: the token of ``electricity-maps`` on its only line, or user name and password of
    ``watttime`` on two lines. Else from ``GREENBOARD_ELECTRICITY_MAPS_TOKEN``,
    ``GREENBOARD_WATTTIME_USER`` and ``GREENBOARD_WATTTIME_PASSWORD``. What is missing stays
    missing; the source says so when it is built. ``GREENBOARD_ELECTRICITY_MAPS_URL`` and
    ``GREENBOARD_WATTTIME_URL`` name other addresses that speak the same.

    Args:
        token_file: the file; ``GREENBOARD_TOKEN_FILE`` where not given.
        source: sources in order, commas between.

    Raises:
        SettingsError: if a file was given that cannot be read or does not fit; no secret is
            repeated.
    """
    named = {name.strip() for name in source.split(",")}
    wanted = [name for name in ("electricity-maps", "watttime") if name in named]
    if not wanted:
        if token_file is not None:
            raise SettingsError(
                "--token-file is for the source electricity-maps or watttime; name one of them "
                "with --source."
            )
        return ProviderAccess()
    file = token_file or _environment_path("TOKEN_FILE")
    lines = _secret_lines(file, 1 if wanted[0] == "electricity-maps" else 2) if file else []
    try:
        secrets = [Secret(line, what="line of the token file") for line in lines]
        maps = _environment_secret("ELECTRICITY_MAPS_TOKEN")
        user, password = (_environment_secret(f"WATTTIME_{part}") for part in ("USER", "PASSWORD"))
    except IntensityError as error:
        raise SettingsError(str(error)) from None
    return ProviderAccess(
        electricity_maps_token=secrets[0] if len(secrets) == 1 else maps,
        watttime_user=secrets[0] if len(secrets) == 2 else user,
        watttime_password=secrets[1] if len(secrets) == 2 else password,
        electricity_maps_url=os.environ.get(PREFIX + "ELECTRICITY_MAPS_URL", ELECTRICITY_MAPS_URL),
        watttime_url=os.environ.get(PREFIX + "WATTTIME_URL", WATTTIME_URL),
    )


def read_rephrase_key() -> Secret | None:
    """The key of the endpoint that puts explanations in other words; None without one.

    Raises:
        SettingsError: if it is empty or holds what no header can.
    """
    try:
        return _environment_secret("REPHRASE_KEY")
    except IntensityError as error:
        raise SettingsError(str(error)) from None


def _environment_path(name: str) -> Path | None:
    text = os.environ.get(PREFIX + name)
    return Path(text) if text else None


def _environment_secret(name: str) -> Secret | None:
    text = os.environ.get(PREFIX + name)
    return Secret(text, what=PREFIX + name) if text else None


def _secret_lines(path: Path, count: int) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        # What could not be decoded would be repeated by the error itself.
        raise SettingsError(f"Cannot read the token file {path}: {type(error).__name__}.") from None
    kept = [line for line in lines if line.strip()]
    if len(kept) != count:
        what = "the token on one line" if count == 1 else "user name and password on two lines"
        raise SettingsError(f"The token file {path} has {len(kept)} lines; it takes {what}.")
    return kept


def is_loopback(host: str) -> bool:
    """Whether a host name or address reaches this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
