"""Writes the completions of the three shells from rbeectl's own verbs and options.

    packaging/completions.py [DIRECTORY]

They are kept in packaging/completions, and a test holds them to what this writes. Not those that
click makes: they run the whole program at each press of Tab.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from string import Template

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rbee.keeper.cli import cli

HEAD = "# {name} completion for rbeectl(1){mode}\n# Written by packaging/completions.py; change that.\n"


def _names(verb: str, field: str) -> str:
    """The command that prints the names in the JSON of a verb that lists."""
    return (
        f"""rbeectl {verb} --json 2>/dev/null | grep -o '"{field}": *"[A-Za-z0-9._-]*"' | cut -d '"' -f 4"""
    )


NAMES = {
    "hive": _names("list-hives", "id"),
    "model": _names("model list", "name"),
    "key": _names("key list", "name"),
    "worker": _names("list-workers", "id"),
}
"""The names that an awake queen has. Reading never wakes it: while it sleeps there are none."""

NAMED: dict[str, tuple[str, ...]] = {
    **{kind: (kind,) for kind in NAMES}, "hive_model_or_worker": ("hive", "model", "worker")
}  # fmt: skip
"""Whose names an argument of a kind may have."""

KINDS = {
    "host": "host", "hive": "hive", "file": "file", "verb": "verb", "model": "model", "key": "key",
    "HIVE|MODEL|WORKER": "hive_model_or_worker", "PATH|URL": "source",
}  # fmt: skip
"""What an argument is, by its name, or by what --help calls it."""

FILES = ("--install", "--textfile", "--tls-cert", "--tls-key")


@dataclass(frozen=True)
class Verb:
    """`path` has one word, or two; `options` pairs of the names and the help; `valued` take a value."""

    path: tuple[str, ...]
    help: str
    options: tuple[tuple[tuple[str, ...], str], ...]
    valued: tuple[str, ...]
    argument: str | None


def options_of(command: click.Command) -> list[click.Option]:
    """Those that --help shows, --help among them."""
    found = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
    # Of a copy: click keeps what it has made once, and where rbeectl runs it is -h, too.
    own = copy(command).get_help_option(click.Context(command))
    return [*found, own] if own is not None else found


def names_of(option: click.Option) -> tuple[str, ...]:
    """Its long and short names, also those that turn it off."""
    return (*option.opts, *option.secondary_opts)


def takes_value(option: click.Option) -> bool:
    """Is it an option with a value?"""
    return not option.is_flag and not option.count


def describe(path: tuple[str, ...], command: click.Command) -> Verb:
    """What the completions need to know of a command."""
    options = options_of(command)
    given = [one for one in command.params if isinstance(one, click.Argument)]
    arguments = [one.metavar if one.metavar in KINDS else one.name for one in given]
    return Verb(
        path,
        command.get_short_help_str(200).rstrip("."),
        tuple((names_of(one), (one.help or "").rstrip(".")) for one in options),
        tuple(name for one in options if takes_value(one) for name in names_of(one)),
        next((KINDS[name] for name in arguments if name in KINDS), None),
    )


def verbs_below(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[Verb]:
    """The verbs of a group, and of the groups in it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from verbs_below(command, (*path, name))
        else:
            yield describe((*path, name), command)


VERBS = tuple(verbs_below(cli))
TOP = describe((), cli)
GROUPS = {
    verb.path[0]: [one for one in VERBS if one.path[0] == verb.path[0]]
    for verb in VERBS
    if len(verb.path) > 1
}


def first_words() -> list[tuple[str, str]]:
    """The first words of all verbs, each once, with its help."""
    helps: dict[str, str] = {}
    for verb in VERBS:
        command = cli.get_command(click.Context(cli), verb.path[0])
        assert command is not None
        helps[verb.path[0]] = command.get_short_help_str(200).rstrip(".")
    return list(helps.items())


class Script(Template):
    """A shell's code, in which substitute() replaces each @part; @@ is an @."""

    delimiter = "@"


# bash

BASH = Script("""@head
_rbeectl()
{
    local cur=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} verb='' sub='' i
    local words='@words'
    local options='@options' valued='@valued' argument=verb given=0
    COMPREPLY=()

    for ((i = 1; i < COMP_CWORD; i++)); do
        [[ ${COMP_WORDS[i]} == -* || " $valued " == *" ${COMP_WORDS[i - 1]} "* ]] && continue
        if [[ -z $verb ]]; then
            verb=${COMP_WORDS[i]}
        elif [[ -z $sub ]]; then
            sub=${COMP_WORDS[i]}
        fi
    done
    case $verb in
@groups
        ?*) sub='' ;;
    esac
    [[ -n $sub ]] && verb+=" $sub"
    case $verb in
@verbs
    esac

    if [[ " @files " == *" $previous "* ]]; then
        argument=file
    elif [[ " $valued " == *" $previous "* ]]; then
        return
    elif [[ $cur == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
        return
    fi
    if [[ " @named " == *" $argument "* ]]; then
        # After the name come other arguments, such as labels.
        for ((i = 1; i < COMP_CWORD; i++)); do
            [[ ${COMP_WORDS[i]} == -* || " $valued " == *" ${COMP_WORDS[i - 1]} "* ]] || ((++given))
        done
        set -- $verb
        ((given > $#)) && return
    fi
    case $argument in
        host) words=localhost ;;
        # Reading never wakes the queen: while it sleeps there are no names.
@names
        file | source)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "$cur")
            return
            ;;
        none) return ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
} &&
    complete -F _rbeectl rbeectl
""")


def _bash_verb(verb: Verb) -> str:
    options = " ".join(name for names, _ in verb.options for name in names)
    return (
        f"        '{' '.join(verb.path)}') options='{options}' valued='{' '.join(verb.valued)}' "
        f"argument={verb.argument or 'none'} ;;"
    )


def bash() -> str:
    """The completions for bash."""
    groups = [
        f"        {group}) words='{' '.join(one.path[1] for one in verbs)}' ;;"
        for group, verbs in GROUPS.items()
    ]
    names = [
        f"        {kind}) words=$({'; '.join(NAMES[one] for one in whose)}) ;;"
        for kind, whose in NAMED.items()
    ]
    return BASH.substitute(
        head=HEAD.format(name="bash", mode=" " * 29 + "-*- shell-script -*-"),
        words=" ".join(word for word, _ in first_words()),
        options=" ".join(name for names, _ in TOP.options for name in names),
        valued=" ".join(TOP.valued),
        groups="\n".join(groups),
        verbs="\n".join(map(_bash_verb, VERBS)),
        files=" ".join(FILES),
        named=" ".join(NAMED),
        names="\n".join(names),
    )


# zsh

ZSH = Script(r"""#compdef rbeectl
@head
_rbeectl() {
    local curcontext=$curcontext state line verb
    typeset -A opt_args
    local -a verbs subs
    verbs=(
@words
    )

    _arguments -C -s \
        @options \
        '1:verb:->verb' \
        '*::argument:->argument' && return

    case $state in
        verb)
            _describe -t verbs verb verbs
            ;;
        argument)
            verb=${words[1]}
            case $verb in
@groups
            esac
            if (( $#subs )); then
                if (( CURRENT == 2 )); then
                    compadd -a subs
                    return
                fi
                verb="$verb ${words[2]}"
                shift words
                (( CURRENT-- ))
            fi
            case $verb in
@verbs
            esac
            ;;
    esac
}

# Reading never wakes the queen: while it sleeps there are no names.
@names

_rbeectl "$@@"
""")

ZSH_ARGUMENTS = {
    "host": "'1:host:(localhost)'", "file": "'1:file:_files'", "source": "'2:file:_files'",
    "verb": "'1:verb:{_describe -t verbs verb verbs}'",
    **{kind: f"'1:{kind.replace('_', ' ')}:_rbeectl_{kind}'" for kind in NAMED},
}  # fmt: skip


def _quoted(text: str) -> str:
    return text.replace("'", "'\\''")


def _zsh_options(verb: Verb) -> list[str]:
    lines = []
    for names, said in verb.options:
        for name in names:
            value = (":file:_files" if name in FILES else ":value: ") if name in verb.valued else ""
            others = f"({' '.join(names)})" if len(names) > 1 else ""
            # A colon would end the text.
            text = _quoted(said.replace("[", "(").replace("]", ")").replace(":", "\\:"))
            lines.append(f"'{others}{name}[{text}]{value}'")
    return lines


def _zsh_verb(verb: Verb) -> str:
    lines = [*_zsh_options(verb), *([ZSH_ARGUMENTS[verb.argument]] if verb.argument else [])]
    return (
        f"                '{' '.join(verb.path)}')\n                    _arguments -s "
        + " \\\n                        ".join(lines)
        + "\n                    ;;"
    )


def _zsh_names(kind: str, whose: tuple[str, ...]) -> str:
    return (
        f"_rbeectl_{kind}() {{\n    local -a names\n"
        f'    names=(${{(f)"$({"; ".join(NAMES[one] for one in whose)})"}})\n    compadd -a names\n}}'
    )


def zsh() -> str:
    """The completions for zsh."""
    groups = [
        f"                {group}) subs=({' '.join(one.path[1] for one in verbs)}) ;;"
        for group, verbs in GROUPS.items()
    ]
    return ZSH.substitute(
        head=HEAD.format(name="zsh", mode=""),
        words="\n".join(f"        '{word}:{_quoted(said)}'" for word, said in first_words()),
        options=" \\\n        ".join(_zsh_options(TOP)),
        groups="\n".join(groups),
        verbs="\n".join(map(_zsh_verb, VERBS)),
        names="\n\n".join(_zsh_names(kind, whose) for kind, whose in NAMED.items()),
    )


# fish

FISH_ARGUMENTS = {
    "host": "-a localhost",
    "file": "-F",
    "source": "-F",
    **{kind: f"-a '(__rbeectl_{kind})'" for kind in NAMED},
    "verb": '-a "$verbs"',
}


def _fish_text(said: str) -> str:
    text = said.replace("'", "\\'")
    return f"-d '{text}'"


def _fish_options(verb: Verb, condition: str) -> Iterator[str]:
    for names, said in verb.options:
        words = []
        for name in names:
            words += ["-l", name[2:]] if name.startswith("--") else ["-s", name[1:]]
        if names[0] in verb.valued:
            words += ["-r", "-F"] if names[0] in FILES else ["-x"]
        yield f"complete -c rbeectl -n {condition} {' '.join(words)} {_fish_text(said)}"


def _fish_names() -> Iterator[str]:
    yield "# Reading never wakes the queen: while it sleeps there are no names."
    for kind, whose in NAMED.items():
        yield from (f"function __rbeectl_{kind}", *(f"    {NAMES[one]}" for one in whose), "end", "")


def _fish_words() -> Iterator[str]:
    """The first words of all verbs, and the second ones of groups."""
    for word, said in first_words():
        yield f'complete -c rbeectl -n "$no_verb" -a {word} {_fish_text(said)}'
    for group, verbs in GROUPS.items():
        subs = " ".join(one.path[1] for one in verbs)
        condition = f"__fish_seen_subcommand_from {group}; and not __fish_seen_subcommand_from {subs}"
        for one in verbs:
            yield f"complete -c rbeectl -n '{condition}' -a {one.path[1]} {_fish_text(one.help)}"


def _fish_verb(verb: Verb) -> Iterator[str]:
    seen = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in verb.path)
    # fish looks for a word anywhere: 'tcp status' is not 'status'.
    for group in (one.path[0] for one in VERBS if one.path[1:] == verb.path):
        seen += f"; and not __fish_seen_subcommand_from {group}"
    yield ""
    if verb.argument:
        yield f"complete -c rbeectl -n '{seen}' {FISH_ARGUMENTS[verb.argument]}"
    yield from _fish_options(verb, f"'{seen}'")


def fish() -> str:
    """The completions for fish."""
    lines = (
        "",
        *_fish_names(),
        f"set -l verbs {' '.join(word for word, _ in first_words())}",
        'set -l no_verb "not __fish_seen_subcommand_from $verbs"',
        "",
        "complete -c rbeectl -f",
        *_fish_options(TOP, '"$no_verb"'),
        *_fish_words(),
        *(line for verb in VERBS for line in _fish_verb(verb)),
        "",
    )
    return HEAD.format(name="fish", mode="") + "\n".join(lines)


FILES_OF = {"rbeectl.bash": bash, "_rbeectl": zsh, "rbeectl.fish": fish}


def main() -> int:
    """Write the completions into the directory that is given, or into packaging/completions."""
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("completions")
    for name, write in FILES_OF.items():
        (directory / name).write_text(write())
    return 0


if __name__ == "__main__":
    sys.exit(main())
