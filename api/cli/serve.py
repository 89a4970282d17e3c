"""``greenboard serve``: the HTTP service over one bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli import grid_options

if TYPE_CHECKING:
    from api.settings import Settings

EPHEMERAL = "ephemeral-reviewer"
REVIEW, SYSTEMS = "Review", "Other systems"


def serve(
    *,
    bundle: Annotated[
        Path | None, typer.Option(help="Bundle that 'greenboard train' wrote.")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="The bundle's student to serve: fp32 or int8. Default: its own choice."),
    ] = None,
    policy: Annotated[
        str | None, typer.Option(help="Who decides: a name, or a policy folder. Default: planner.")
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. Default: 127.0.0.1.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="0 takes a free one. Default: 8000.")
    ] = None,
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
    second_review_above: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Two reviewers have to agree where the probability's entropy is above this, bits: "
            "0.9 is a probability between 0.32 and 0.68.",
            rich_help_panel=REVIEW,
        ),
    ] = None,
    shadow: Annotated[
        list[str] | None,
        typer.Option(
            help="Policy that decides silently beside the acting one, for comparison. Repeat it.",
            rich_help_panel=REVIEW,
        ),
    ] = None,
    bundles: Annotated[
        Path | None,
        typer.Option(
            help="Folder of bundles that may be activated while it runs.", rich_help_panel=REVIEW
        ),
    ] = None,
    public_url: Annotated[
        str | None,
        typer.Option(
            help="Its address as browsers and other systems reach it, for links and tokens.",
            rich_help_panel=SYSTEMS,
        ),
    ] = None,
    cds_trust: Annotated[
        Path | None,
        typer.Option(
            help="TOML of the CDS Hooks clients that are trusted. Without it they are refused.",
            rich_help_panel=SYSTEMS,
        ),
    ] = None,
    cds_open: Annotated[
        bool | None,
        typer.Option(
            "--cds-open",
            help="Answer any CDS Hooks client: for the public sandbox, on loopback only.",
            rich_help_panel=SYSTEMS,
        ),
    ] = None,
    fhir_map: Annotated[
        Path | None,
        typer.Option(
            help="TOML that says which FHIR codes are which features.", rich_help_panel=SYSTEMS
        ),
    ] = None,
) -> None:
    r"""Serve the review workflow: a page for reviewers, an API, CDS Hooks and FHIR.

    Every option but --keys can also come as GREENBOARD_<NAME>, for example GREENBOARD_PORT_FILE
    for --port-file; several limits have commas between. A GREENBOARD_ variable that means nothing
    is refused.

    Keys are kept as SHA-256 sums only: in the file of --keys or GREENBOARD_KEYS_FILE, one table
    headed [\[key]] with name, role (viewer, reviewer, admin) and sha256 a key; or in
    GREENBOARD_KEYS as name:role:sha256 entries with commas between. On loopback without keys one
    reviewer key is made up and printed once; on any other address the server does not start
    without keys.

    Examples:
      greenboard serve --bundle runs/demo/bundle

      greenboard serve --bundle bundle --source electricity-maps --zone DE --token-file em.token

      greenboard serve --bundle bundle --limit day:500:800 --limit month:8e3:1e4:warn:defer

      greenboard serve --bundle bundle --keys keys.toml --second-review-above 0.9 --shadow rule

      greenboard serve --bundle bundle --policy policies/ppo/ --keys keys.toml --host 0.0.0.0
    """
    from api.settings import read_settings

    settings = read_settings(
        {
            "bundle": bundle,
            "precision": precision,
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
            "host": host,
            "port": port,
            "port_file": port_file,
            "second_review_above": second_review_above,
            "shadow": shadow or None,
            "bundles": bundles,
            "public_url": public_url,
            "cds_trust": cds_trust,
            "cds_open": cds_open,
            "fhir_map": fhir_map,
        },
        keys_file=keys,
    )
    said: list[str] = []
    settings = with_keys(settings, settings.host, tell=said.append)
    _run(settings, said)


def with_keys(
    settings: Settings, host: str, *, tell: Callable[[str], Any] = typer.echo
) -> Settings:
    """Settings with at least one key: given, or made up on loopback and told once.

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
    tell(f"No keys were given; this reviewer key holds until the server stops: {key}")
    return settings.model_copy(update={"keys": (kept,)})


def _run(settings: Settings, said: list[str]) -> None:
    import asyncio
    import signal

    import uvicorn

    from api.app import create_app
    from api.logs import log_config

    app = create_app(settings)
    config = uvicorn.Config(
        app, log_config=log_config(), access_log=False, timeout_graceful_shutdown=5,
        server_header=False, lifespan="off",
    )  # fmt: skip
    stopped_by: list[int] = []
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(_serve(app, config, settings, said, stopped_by))
    for number in stopped_by:
        # Everything is closed: now the signal may do what it does to any process.
        signal.raise_signal(number)


async def _serve(
    app: Any, config: Any, settings: Settings, said: list[str], stopped_by: list[int]
) -> None:
    """Open bundle, state and grid; only then listen, and say where."""
    import asyncio

    import uvicorn

    from api.errors import SettingsError
    from api.listen import listen

    host = settings.host
    async with app.router.lifespan_context(app):
        with listen(host, settings.port) as listener:
            taken = listener.getsockname()[1]
            if settings.port_file is not None:
                settings.port_file.write_text(f"{taken}\n")
            shown = f"[{host}]" if ":" in host else host
            said.append(f"greenboard on http://{shown}:{taken} (research use only): open it in a "
                        f"browser and sign in with a key; OpenAPI: "
                        f"http://{shown}:{taken}/openapi.json")  # fmt: skip
            typer.echo("\n".join(said))
            server = uvicorn.Server(config)
            loop, leave = asyncio.get_running_loop(), server.handle_exit

            def let_go(sig: int, frame: Any) -> None:
                # Who follows a case would otherwise be waited for, then cut off.
                loop.call_soon_threadsafe(app.state.server.hub.close)
                leave(sig, frame)

            server.handle_exit = let_go  # type: ignore[method-assign]
            with _kept_signals(stopped_by):
                await server.serve(sockets=[listener])
        if not server.started:
            raise SettingsError("The server could not start; see the line above.")


@contextmanager
def _kept_signals(caught: list[int]) -> Iterator[None]:
    """Keep what uvicorn raises again when it is through: the workers are still to be stopped."""
    import signal

    stops = (signal.SIGINT, signal.SIGTERM)
    before = {stop: signal.signal(stop, lambda number, _: caught.append(number)) for stop in stops}
    try:
        yield
    finally:
        for stop, handler in before.items():
            signal.signal(stop, handler)
