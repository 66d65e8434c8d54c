"""An edge of several processes on one port: what each has of its own, and what must not be left to none."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from backends.spool import Spool, SpoolError
from backends.spool.folders import spool_of, spools_in
from service.settings import Settings, SettingsError


def settings_of(settings: Settings, process: int) -> Settings:
    """Of one of several, numbered from 1: a spool in the spool's folder, and the admin port after the one before it."""
    own: dict[str, Any] = {}
    if settings.spool_path is not None:
        own["spool_path"] = str(spool_of(Path(settings.spool_path), process))
    if settings.edge_admin_port:
        own["edge_admin_port"] = settings.edge_admin_port + process - 1
    return replace(settings, **own)


def check_spools(settings: Settings, processes: int) -> None:
    """Raises SettingsError where events wait in a spool that no process would flush, since there were others before."""
    if settings.spool_path is None:
        return
    folder = Path(settings.spool_path)
    used = {folder} if processes == 1 else {spool_of(folder, process) for process in range(1, processes + 1)}
    for left in spools_in(folder):
        if left not in used:
            _check_empty(left, settings)


def _check_empty(folder: Path, settings: Settings) -> None:
    try:
        with closing(Spool(folder, settings.spool_max_bytes, settings.spool_max_age)) as spool:
            events = spool.status().events
    except SpoolError as error:
        raise SettingsError(f"ZENSTEP_SPOOL_PATH: {error}") from None
    if events:
        raise SettingsError(
            f"{events:,} events wait in {folder}, which no process would flush: start with as many as before, or run "
            f"`zenstep spool flush --path {folder}` first"
        )
