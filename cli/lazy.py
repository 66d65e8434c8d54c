"""A group of commands whose modules are imported when they are invoked: one process runs one command."""

from collections.abc import Mapping
from importlib import import_module
from typing import NamedTuple

import click


class Entry(NamedTuple):
    """A command that its module has under its own name."""

    module: str
    help: str  # the first sentence of the command's own, shown in the group's list


class LazyGroup(click.Group):
    """Its `commands` are placeholders: enough to be listed, completed and suggested by name."""

    def __init__(self, name: str, entries: Mapping[str, Entry], help: str) -> None:
        placeholders = {name: click.Command(name, help=entry.help) for name, entry in entries.items()}
        super().__init__(name, placeholders, help=help, context_settings={"help_option_names": ["-h", "--help"]})
        self.entries = entries

    def load(self, name: str) -> click.Command:
        """The command itself."""
        found: click.Command = getattr(import_module(self.entries[name].module), name)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, placeholder, rest = super().resolve_command(ctx, args)
        return name, placeholder if name is None else self.load(name), rest
