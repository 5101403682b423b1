"""Site pages of the commands, from the command line itself.

Each command has a page with its help and options. An option such as `--family` selects
a plugin with further options: each plugin has a page too.
"""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import typer.main
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from sdm.cli import app
from sdm.commands.config_command import ConfigCommand
from sdm.commands.config_options import OptionField, parameters_of
from sdm.commands.source_fields import classes_of, string_of

COMMANDS = "reference/commands"
OPTIONS = "Options"


@dataclass(frozen=True)
class Command:
    """A command of the command line.

    Attributes:
        path: words that call it, such as `sdm theory flow`.
        command: typer's object, with its default options.
        context: what typer needs to describe the options.

    """

    path: str
    command: Any
    context: Any

    @property
    def uri(self) -> str:
        """Return the path of the command's page."""
        return f"{COMMANDS}/{'-'.join(self.path.split()[1:])}.md"

    @property
    def selections(self) -> dict[str, list["Plugin"]]:
        """Return the plugins that an option of this command selects, by option."""
        if not isinstance(self.command, ConfigCommand):
            return {}
        return {
            option: plugins(option, folder)
            for option, folder in self.command.plugins.items()
        }


@dataclass(frozen=True)
class Plugin:
    """A plugin that an option selects, such as a family.

    Attributes:
        option: the option, such as `--family`.
        name: value of the option.
        text: docstring of the class without its sections.
        fields: further options.

    """

    option: str
    name: str
    text: str
    fields: Sequence[OptionField]

    @property
    def uri(self) -> str:
        """Return the path of the plugin's page."""
        return f"reference/{self.option.lstrip('-')}/{self.name}.md"


def commands(
    command: Any = None, path: str = "sdm", parent: Any = None
) -> Iterator[Command]:
    """Yield every command that is not a group of commands."""
    command = command or typer.main.get_command(app)
    context = command.make_context(path, [], parent=parent, resilient_parsing=True)
    if not hasattr(command, "commands"):
        yield Command(path, command, context)
        return
    for name, inner in command.commands.items():
        yield from commands(inner, f"{path} {name}", context)


@cache
def plugins(option: str, folder: Path) -> list[Plugin]:
    """Return the plugins in a folder, one class with a `name` in each file."""
    found = []
    for path in sorted(folder.glob("[!_]*.py")):
        for node, fields in classes_of(path):
            if name := string_of(node, "name"):
                text = (ast.get_docstring(node) or "").partition("Attributes:")[0]
                found.append(Plugin(option, name, text.strip(), fields))
    return found


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Replace `GENERATED` in the navigation by the generated pages."""
    found = list(commands())
    entries = [{each.path: each.uri} for each in found]
    generated = {
        COMMANDS: [{"All commands": f"{COMMANDS}/index.md"}, *entries],
    }
    for option, group in _all_plugins(found).items():
        generated[option] = [{each.name: each.uri} for each in group]

    def filled(entry: Any) -> Any:
        if isinstance(entry, dict):
            return {name: filled(inner) for name, inner in entry.items()}
        if isinstance(entry, list):
            return [filled(inner) for inner in entry]
        return generated.get(entry, entry)

    config.nav = filled(config.nav)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    found = list(commands())
    pages = {f"{COMMANDS}/index.md": _index(found)}
    pages |= {command.uri: command_page(command) for command in found}
    for group in _all_plugins(found).values():
        for plugin in group:
            callers = [c for c in found if plugin.option in c.selections]
            pages[plugin.uri] = plugin_page(plugin, callers, files)
    for uri, content in pages.items():
        files.append(File.generated(config, uri, content=content))
    return files


def command_page(command: Command) -> str:
    """Return the Markdown of a command's page."""
    panels: dict[str, list[Any]] = {}
    for parameter in command.command.params:
        named = "Arguments" if parameter.param_type_name == "argument" else OPTIONS
        panel = getattr(parameter, "rich_help_panel", None) or named
        panels.setdefault(panel, []).append(parameter)
    usage = command.command.collect_usage_pieces(command.context)
    lines = [f"# {command.path}", "", _help_text(command), ""]
    lines += ["```console", " ".join([command.path, *usage]), "```", ""]
    for panel, parameters in panels.items():
        lines += [f"## {panel}", "", *_table(parameters, command.context), ""]
    for option, group in command.selections.items():
        links = [f"[{each.name}](../../{each.uri})" for each in group]
        lines += [f"## Options by `{option}`", "", ", ".join(links), ""]
        lines += _renamed(command, group)
    return "\n".join(lines)


def plugin_page(plugin: Plugin, callers: Sequence[Command], files: Files) -> str:
    """Return the Markdown of a plugin's page."""
    links = [f"[{each.path}](../../{each.uri})" for each in callers]
    lines = [f"# {plugin.option} {plugin.name}", "", plugin.text, ""]
    about = f"families/{plugin.name}.md"
    if plugin.uri.startswith("reference/family/") and files.get_file_from_path(about):
        lines += [f"[More about this family](../../{about}).", ""]
    lines += [f"Options in {', '.join(links)}:", ""]
    lines += _table(parameters_of(plugin.fields), callers[0].context)
    return "\n".join([*lines, ""])


def _all_plugins(found: Sequence[Command]) -> dict[str, list[Plugin]]:
    return {
        option: group for each in found for option, group in each.selections.items()
    }


def _index(found: Sequence[Command]) -> str:
    rows = [
        f"| [{each.path}](../../{each.uri}) | {_help_text(each).splitlines()[0]} |"
        for each in found
    ]
    return "\n".join(
        ["# Commands", "", "| command | what it does |", "|---|---|", *rows, ""]
    )


def _help_text(command: Command) -> str:
    return str(command.command.help or "").strip()


def _renamed(command: Command, group: Sequence[Plugin]) -> list[str]:
    """Return a line for each option that has another name in this command."""
    lines = []
    for plugin in group:
        found = command.command.dynamic([plugin.option, plugin.name]).values()
        here = {field.name: field.option for each in found for field in each.fields}
        for field in plugin.fields:
            if (option := here.get(field.name, field.option)) != field.option:
                lines.append(
                    f"- `{plugin.option} {plugin.name}`: `{option}` is its "
                    f"`{field.option}`."
                )
    return lines


def _table(parameters: Sequence[Any], context: Any) -> list[str]:
    """Return a Markdown table of parameters, or a sentence if there are none."""
    records = [each.get_help_record(context) for each in parameters]
    rows = [
        f"| `{name.strip()}` | {text.strip()} |".replace("\n", " ")
        for name, text in filter(None, records)
    ]
    return ["| option | meaning |", "|---|---|", *rows] if rows else ["None."]
