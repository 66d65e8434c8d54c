"""`zenstep flow`: flows, from files for now: the dashboard's own export is the same shape."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import click
import msgspec

from backends.store.catalog import CatalogError, Flow, Step
from cli.output import catalog, command, json_option, show
from cli.parameters import UUID, name_problem
from schemas.records import Uuid


class StepFile(msgspec.Struct, rename="camel"):
    """One step of a flow file. Its position is its place in the list."""

    id: Uuid
    name: str
    content: dict[str, Any] = {}


class FlowFile(msgspec.Struct, rename="camel"):
    """One flow of a flow file."""

    id: Uuid
    name: str
    steps: list[StepFile]
    type: Annotated[str, msgspec.Meta(max_length=32)] = "tour"
    targeting: dict[str, Any] = {}


@click.group()
def flow() -> None:
    """Flows and their steps."""


@flow.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--org", "organisation", type=UUID, required=True, help="The organisation's id.")
@json_option
@command
def import_(file: Path, organisation: str, as_json: bool) -> None:
    """Import one flow, or a list of flows, from a JSON FILE.

    A flow is {"id", "name", "type", "targeting", "steps": [{"id", "name", "content"}]}. A flow that is there already
    is replaced, and stays published if it was; the counts of steps that keep their id stay. All flows of the file are
    imported, or none: a step of another flow of the organisation is refused, since a step is asked for by its id alone.
    """
    imported = _read(file)
    store = catalog()
    there = {
        flow.flow_id: flow.published_at for flow in store.flows((organisation, one.id.lower()) for one in imported)
    }
    flows = []
    for one in imported:
        steps = [Step(step.id.lower(), n, step.name, step.content) for n, step in enumerate(one.steps)]
        published = there.get(one.id.lower())
        flows.append(Flow(organisation, one.id.lower(), one.name, one.type, steps, published, one.targeting))
    store.import_flow(*flows)
    result = [{"flow_id": one.id.lower(), "name": one.name, "steps": len(one.steps)} for one in imported]
    text = "\n".join(f"{r['flow_id']}  {r['steps']} steps  {r['name']}" for r in result)
    show({"flows": result}, as_json, text or "The file holds no flows.")


@flow.command()
@click.argument("flow_id", type=UUID)
@click.option("--org", "organisation", type=UUID, required=True, help="The organisation's id.")
@click.option("--off", is_flag=True, help="Take it back instead.")
@json_option
@command
def publish(flow_id: str, organisation: str, off: bool, as_json: bool) -> None:
    """Publish a flow."""
    catalog().publish_flow(organisation, flow_id, published=not off)
    show({"flow_id": flow_id, "published": not off}, as_json, "Taken back." if off else "Published.")


@flow.command("list")
@click.option("--org", "organisation", type=UUID, required=True, help="The organisation's id.")
@json_option
@command
def list_(organisation: str, as_json: bool) -> None:
    """List an organisation's flows."""
    flows = catalog().flows_of(organisation)
    text = "\n".join(
        f"{f.flow_id}  {'published' if f.published_at else 'draft':9}  {len(f.steps)} steps  {f.name}" for f in flows
    )
    show({"flows": [msgspec.to_builtins(f) for f in flows]}, as_json, text or "The organisation has no flows yet.")


def _read(file: Path) -> list[FlowFile]:
    """The whole file is checked before any of it is imported. Raises CatalogError."""
    try:
        parsed = msgspec.json.decode(file.read_bytes(), type=FlowFile | list[FlowFile])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CatalogError(f"{file} is not a flow file: {error}") from None
    except RecursionError:
        raise CatalogError(f"{file} is not a flow file: it is nested too deeply") from None
    flows = parsed if isinstance(parsed, list) else [parsed]
    _require_different((one.id for one in flows), f"{file} has two flows")
    for one in flows:
        _require_different((step.id for step in one.steps), f"flow {one.id} has two steps")
        for what, name in [("name", one.name), ("type", one.type), *(("step's name", s.name) for s in one.steps)]:
            problem = name_problem(name)
            if problem is not None:
                raise CatalogError(f"flow {one.id}: its {what} {problem}")
    return flows


def _require_different(ids: Iterable[str], complaint: str) -> None:
    for identifier, times in Counter(identifier.lower() for identifier in ids).items():
        if times > 1:
            raise CatalogError(f"{complaint} of the id {identifier}")
