"""`zenstep forget`: removes what is kept of one user, and proves it."""

import time

import click
import msgspec

from backends.store.catalog import Catalog
from cli.forgetting import Kept, Person, Place, Search, remaining
from cli.output import command, json_option, show, store, when
from cli.parameters import UUID
from ingest.decode import UserHasher
from schemas.events import Text128, Text255
from service.settings import load

SKETCHES = (
    "Counts of distinct users are sketches: of each user they keep at most 32 bits that are computed from the hash and "
    "shared by many, from which neither the id nor its hash can be computed. They stay as they are, as all counts do."
)
ELSEWHERE = (
    "What waits in an edge's spool, and what a topic still holds, is left out when a worker reads it. "
    "Backups, PostgreSQL's write-ahead log and its dead rows until the next VACUUM are not reached from here."
)


@click.command()
@click.option("--org", "organisation", type=UUID, required=True, help="The organisation whose user it is.")
@click.option("--user", help="The user id as the page sends it; better with --user-file, since shells keep a history.")
@click.option(
    "--user-file", type=click.Path(dir_okay=False, allow_dash=True), help="The user id is the one line of this file."
)
@click.option("--anonymous", help="The anonymous id of a browser.")
@click.option("--dry-run", is_flag=True, help="Say what there is, and change nothing.")
@json_option
@command
def forget(
    organisation: str,
    user: str | None,
    user_file: str | None,
    anonymous: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Remove what is kept of one user, and look again.

    The id is hashed here with the edges' ZENSTEP_USER_HASH_SECRET. Numbers that are counted stay. What was received
    until now is left out when a topic is read again; what the user sends from now on counts as anybody's. An anonymous
    id that came without the user id is known to be theirs only where --anonymous says so. Exit code 1 where something
    remains; it can be run again.
    """
    if user is not None and user_file is not None:
        raise click.UsageError("give --user or --user-file")
    if user_file is not None:
        user = _line(user_file)
    if user is None and anonymous is None:
        raise click.UsageError("give --user, --user-file or --anonymous")
    settings = load()
    hashed = None
    if user is not None:
        _check("a user id", user, Text255)
        hashed = UserHasher(settings.require("user_hash_secret")).hash(organisation, user)
    if anonymous is not None:
        _check("an anonymous id", anonymous, Text128)
    engine = store()
    Catalog(engine).require_organisation(organisation)
    person = Person(hashed, anonymous, time.time_ns() // 1_000_000)
    search = Search(settings, engine, organisation, person, dry_run)
    places, kept = search.run()
    result = {
        "organisation_id": organisation,
        "at": person.at,
        "dry_run": dry_run,
        "places": [place._asdict() for place in places],
        "kept": [one._asdict() for one in kept],
        "came_back": search.came_back,
        "remaining": remaining(places),
    }
    show(result, as_json, _text(person, places, kept, search.came_back, dry_run))
    if remaining(places) and not dry_run:
        raise click.exceptions.Exit(1)


def _text(person: Person, places: list[Place], kept: list[Kept], came_back: bool, dry_run: bool) -> str:
    lines = [f"{'':32} {'found':>9} {'removed':>9} {'remaining':>9}"]
    lines += [f"{p.name:32} {p.found:>9,} {p.removed:>9,} {p.remaining:>9,}" for p in places]
    for one in kept:
        until = "without end: nothing removes it" if one.until is None else f"until {when(one.until)} at the latest"
        lines.append(f"{'topic ' + one.topic:32} Kafka keeps what was received so far {until}")
    if not any(place.found for place in places):
        lines.append("Nothing was found. Is ZENSTEP_USER_HASH_SECRET the one of the edges?" * (person.user is not None))
    if came_back:
        lines.append("The user came back meanwhile, so the files were not searched.")
    said = "would be" if dry_run else "is"
    lines.append(f"What was received until {when(person.at)} {said} left out when a topic is read again.")
    return "\n".join(filter(None, [*lines, SKETCHES, ELSEWHERE]))


def _line(path: str) -> str:
    with click.open_file(path, encoding="utf-8") as file:
        lines: list[str] = file.read().splitlines()
    if len(lines) != 1:
        raise ValueError(f"{path} must have one line, the user id")
    return lines[0]


def _check(what: str, value: str, kind: object) -> None:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        raise ValueError(f"{what} has 1 to {255 if kind is Text255 else 128} characters, none of them a NUL") from None
