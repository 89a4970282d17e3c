"""Where bundles lie: the one to open at the start, and those that may be activated."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import inspect
from sqlalchemy.exc import SQLAlchemyError

from api.settings import Settings
from api.store.bundles import folder_at_start
from api.store.database import make_engine
from api.store.tables import activations
from distill.bundle import MANIFEST


def bundle_to_open(settings: Settings) -> Path:
    """The bundle that was activated last, or the configured one.

    Looks without changing anything: a server that cannot start must leave nothing behind.
    """
    if settings.database_url is None and not (settings.state / settings.STORE).is_file():
        return settings.bundle
    engine = make_engine(settings.store_url)
    try:
        with engine.connect() as connection:
            if not inspect(connection).has_table(activations.name):
                return settings.bundle
            return folder_at_start(connection, settings.bundle)
    except SQLAlchemyError:
        # What is wrong with the store is said when it is opened.
        return settings.bundle
    finally:
        engine.dispose()


def bundle_folders(settings: Settings) -> list[Path]:
    """The configured bundle, and those in the folder of bundles, by name."""
    beside = settings.bundles
    found = [] if beside is None or not beside.is_dir() else sorted(beside.iterdir())
    return [settings.bundle, *(path for path in found if (path / MANIFEST).is_file())]
