"""`zenstep dev`: the whole system on this machine, for a developer at work on a page."""

import json
import random
import uuid
from pathlib import Path

import click

from cli.output import command
from service import garbage

PORT = click.IntRange(1, 65535)


@click.command()
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".zenstep"),
    show_default=True,
    help="The folder of its files.",
)
@click.option("--port", type=PORT, default=8080, show_default=True, help="Port of the edge and the reader.")
@click.option("--admin-port", type=PORT, default=9101, show_default=True, help="Port of /livez, /readyz and /metrics.")
@command
def dev(data: Path, port: int, admin_port: int) -> None:
    """Run the whole system until Ctrl-C.

    Edge, worker and reader are one process, on SQLite files; it prints commands to try it with.
    """
    garbage.put_off()
    from cli import embedded
    from cli.token import session_token
    from service import logs

    logs.configure("warning")
    settings = embedded.settings_in(data, port, admin_port)
    embedded.prepare(settings)
    page = embedded.kept(data / "developer.json", lambda: _developer(settings.store_url))
    token = session_token(settings.require("jwt_secret"), settings.jwt_issuer, page["user"], minutes=24 * 60)
    base = f"http://127.0.0.1:{port}/api/v1"
    body = json.dumps({"events": [{"eventType": "view", "flowId": page["flow"], "sessionId": "s1", "userId": "you"}]})

    def say() -> None:
        click.echo(f"zenstep runs on http://127.0.0.1:{port} until Ctrl-C; its files are in {data}/\n")
        click.echo(
            f"Send an event:\n  curl '{base}/events?key={page['key']}' -H 'Content-Type: text/plain' -d '{body}'\n"
        )
        click.echo(
            f"Read the funnel:\n  curl {base}/flows/{page['flow']}/analytics -H 'Authorization: Bearer {token}'\n"
        )
        click.echo(f"Metrics: http://127.0.0.1:{admin_port}/metrics")

    embedded.run(settings, say)


def _developer(store_url: str) -> dict[str, str]:
    """An organisation with a key, a member and flows to play with. Only for this machine."""
    from backends.store.catalog import Catalog
    from backends.store.engine import open_engine
    from cli.traffic import flows_of

    engine = open_engine(store_url)
    catalog = Catalog(engine)
    organisation = catalog.create_organisation("Development")
    user = str(uuid.uuid4())
    catalog.add_member(organisation, user)
    flows = flows_of(organisation, random.Random())
    catalog.import_flow(*flows)
    made = {"key": catalog.create_key(organisation), "user": user, "flow": flows[0].flow_id}
    engine.dispose()
    return made
