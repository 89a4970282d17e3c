"""``greenboard serve``: the HTTP service over one bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli import grid_options

if TYPE_CHECKING:
    from api.settings import Settings

EPHEMERAL = "ephemeral-reviewer"


def serve(
    *,
    bundle: Annotated[
        Path | None, typer.Option(help="Bundle that 'greenboard train' wrote.")
    ] = None,
    policy: Annotated[
        str | None, typer.Option(help="Who decides: a name, or a policy folder. Default: price.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    state: Annotated[
        Path | None, typer.Option(help="Folder of the databases. Default: runs/serve.")
    ] = None,
    cohort: Annotated[
        Path | None, typer.Option(help="Cohort whose cases may be posted by their id.")
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(help="Recorded carbon trace instead of the live source.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            help="Carbon sources in order, for example neso,synthetic, or electricity-maps with "
            "--zone and --token-file."
        ),
    ] = None,
    zone: grid_options.Zone = None,
    basis: Annotated[
        str | None, typer.Option(help="direct, or life for life-cycle. Default: direct.")
    ] = None,
    region: grid_options.Region = None,
    postcode: grid_options.Postcode = None,
    token_file: grid_options.TokenFile = None,
    keys: Annotated[Path | None, typer.Option(help="TOML file of API keys.")] = None,
    budget: Annotated[
        float | None, typer.Option(min=0, help="Carbon for one day's reviews, g CO2e.")
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            help="Limit on emissions, PERIOD:SOFT:HARD[:SOFT_ACTION:HARD_ACTION] in g CO2e: "
            "session, day or month; warn|defer and refuse|defer. Repeat it."
        ),
    ] = None,
    timezone: Annotated[
        str | None, typer.Option(help="Where the limits' days begin. Default: UTC.")
    ] = None,
    port_file: Annotated[
        Path | None, typer.Option(help="Write the port here once it is taken.")
    ] = None,
) -> None:
    """Serve the review workflow. Every option can also come as GREENBOARD_<NAME>.

    Keys are kept as SHA-256 sums only: in the file, one [[key]] table with name, role (viewer,
    reviewer, admin) and sha256 a key; or in GREENBOARD_KEYS as name:role:sha256 entries with
    commas between. On loopback without keys one reviewer key is made up and printed once; on any
    other address the server does not start without keys.

    Examples:
      greenboard serve --bundle runs/demo/bundle

      greenboard serve --bundle bundle --source electricity-maps --zone DE --token-file em.token

      greenboard serve --bundle bundle --limit day:500:800 --limit month:8e3:1e4:warn:defer

      greenboard serve --bundle bundle --policy policies/ppo/ --keys keys.toml --host 0.0.0.0
    """
    from api.settings import read_settings

    settings = read_settings(
        {
            "bundle": bundle,
            "policy": policy,
            "state": state,
            "cohort": cohort,
            "trace": trace,
            "source": source,
            "zone": zone,
            "basis": basis,
            "neso_region": region,
            "neso_postcode": postcode,
            "token_file": token_file,
            "budget_g_co2e_per_day": budget,
            "limits": limit,
            "timezone": timezone,
        },
        keys_file=keys,
    )
    settings = with_keys(settings, host)
    _run(settings, host, port, port_file)


def with_keys(settings: Settings, host: str) -> Settings:
    """Settings with at least one key: given, or made up on loopback and printed once.

    Raises:
        SettingsError: if there is no key and the address can be reached from outside.
    """
    from api.auth import new_key
    from api.errors import SettingsError
    from api.settings import is_loopback

    if settings.keys:
        return settings
    if not is_loopback(host):
        raise SettingsError(
            f"No API keys, and {host} can be reached from outside. Give --keys FILE or "
            "GREENBOARD_KEYS, or listen on 127.0.0.1."
        )
    key, kept = new_key(EPHEMERAL, "reviewer")
    typer.echo(f"No keys were given; this reviewer key holds until the server stops: {key}")
    return settings.model_copy(update={"keys": (kept,)})


def _run(settings: Settings, host: str, port: int, port_file: Path | None) -> None:
    import uvicorn

    from api.app import create_app
    from api.errors import SettingsError
    from api.listen import listen
    from api.logs import log_config

    app = create_app(settings)
    with listen(host, port) as listener:
        taken = listener.getsockname()[1]
        if port_file is not None:
            port_file.write_text(f"{taken}\n")
        shown = f"[{host}]" if ":" in host else host
        typer.echo(f"greenboard on http://{shown}:{taken} (research use only); OpenAPI: "
                   f"http://{shown}:{taken}/openapi.json")  # fmt: skip
        server = uvicorn.Server(
            uvicorn.Config(
                app, log_config=log_config(), access_log=False, timeout_graceful_shutdown=5,
                server_header=False,
            )
        )  # fmt: skip
        server.run(sockets=[listener])
    if not server.started:
        raise SettingsError("The server could not start; see the line above.")
