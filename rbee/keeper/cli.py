"""rbeectl's command line: the verbs, each loaded when it is called, and the options of all of them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import click

from rbee import __version__
from rbee.keeper.options import Suggesting, everywhere

SECTIONS: Mapping[str, Mapping[str, str]] = {
    "Hives": {
        "add-hive": "hives",
        "remove-hive": "hives",
        "list-hives": "hives",
        "list-devices": "hives",
        "show": "show",
        "label": "labels",
        "cordon": "labels",
        "uncordon": "labels",
    },
    "Models": {
        "model": "model",
        "serve": "serving",
        "unserve": "serving",
        "list-workers": "serving",
        "place": "serving",
        "list-engines": "serving",
        "ask": "ask",
    },
    "The gateway": {
        "gateway": "gateway",
        "key": "key",
    },
    "Other machines": {
        "tcp": "tcp",
        "token": "token",
        "join": "join",
    },
    "The queen": {
        "wake": "power",
        "sleep": "power",
        "shutdown": "power",
    },
    "Status and history": {
        "status": "status",
        "top": "top",
        "monitor": "monitor",
        "logs": "logs",
        "metrics": "metrics",
        "audit": "audit",
        "version": "version",
    },
    "Maintenance": {
        "doctor": "doctor",
        "catalog": "catalog",
        "help": "help",
    },
}
"""The verbs as --help shows them, with the module of rbee.keeper.verbs that each is in."""

MODULES = {verb: module for verbs in SECTIONS.values() for verb, module in verbs.items()}


class Verbs(Suggesting):
    """A group whose verbs are modules, imported when called: list-hives does not load the doctor."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in MODULES:
            return None
        module = importlib.import_module(f"rbee.keeper.verbs.{MODULES[cmd_name]}")
        verb = getattr(module, cmd_name.replace("-", "_"))
        assert isinstance(verb, click.Command), cmd_name
        return verb

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section, verbs in SECTIONS.items():
            commands = [(verb, self.get_command(ctx, verb)) for verb in verbs]
            with formatter.section(section):
                width = formatter.width - max(map(len, MODULES)) - 6
                formatter.write_dl(
                    [(verb, command.get_short_help_str(width)) for verb, command in commands if command]
                )


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="rbeectl", message="%(prog)s %(version)s")
@everywhere
def cli() -> None:
    """Run a few Linux machines with CPUs and GPUs as one.

    Verbs that change something wake the queen; verbs that only show something never wake anything.
    """
