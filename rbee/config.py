"""The configuration rbee.conf: read once, frozen, with the precedence of systemd's own files (rbee.conf(5)).

The main file is the first one in /etc/rbee, /usr/local/lib/rbee and /usr/lib/rbee. The drop-ins
rbee.conf.d/*.conf of all three are read after it, sorted by file name; of two with the same name the one in
the earlier folder counts. A later assignment wins, and an empty one restores the default.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from rbee.errors import BadConfig, BadInput
from rbee.files import cure, reason
from rbee.scope import SYSTEM, Scope
from rbee.text import NotUtf8, decoded, parse_span, shown_span
from rbee.wire.codec import decode
from rbee.wire.types import LOCALHOST, Name

JITTER = 0.1
"""The part of the interval by which a beat may be early at random, so that hives do not beat in step."""


def _span(least: float, most: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        seconds = parse_span(text)
        if not least <= seconds <= most:
            raise ValueError(f"must be from {shown_span(least)} to {shown_span(most)}")
        return seconds

    return parse


def _count(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or not least <= int(text) <= most:
            raise ValueError(f"must be a whole number from {least} to {most}")
        return int(text)

    return parse


def _path(text: str) -> Path:
    if not text.startswith("/") or "\0" in text:
        raise ValueError("must be an absolute path")
    return Path(text)


def _name(text: str) -> str:
    try:
        return decode(Name, text)
    except BadInput as error:
        raise ValueError(error.message.removeprefix("the body ")) from error


def _setting(key: str, default: Any, parse: Callable[[str], Any]) -> Any:
    return field(default=default, metadata={"key": key, "parse": parse})


@dataclass(frozen=True, slots=True)
class QueenConfig:
    """The section [Queen]; spans in seconds. `database` None means catalog.db in $STATE_DIRECTORY."""

    database: Path | None = _setting("Database", None, _path)
    heartbeat_interval: float = _setting("HeartbeatIntervalSec", 15.0, _span(0.1, 3600))
    heartbeat_grace: float = _setting("HeartbeatGraceSec", 5.0, _span(0.1, 3600))
    hive_start_timeout: float = _setting("HiveStartTimeoutSec", 30.0, _span(0.1, 600))
    detect_timeout: float = _setting("DetectTimeoutSec", 15.0, _span(0.1, 600))
    jobs_max: int = _setting("JobsMax", 256, _count(1, 10_000))


@dataclass(frozen=True, slots=True)
class HiveConfig:
    """The section [Hive]; spans in seconds. load() sets `queen`, its Unix socket, by the scope."""

    id: str = _setting("Id", LOCALHOST, _name)
    queen: Path = _setting("Queen", SYSTEM.queen_socket, _path)
    nvml_timeout: float = _setting("NvmlTimeoutSec", 10.0, _span(0.1, 60))


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """The section [Gateway]; spans in seconds."""

    hold: float = _setting("HoldSec", 60.0, _span(0.1, 3600))
    idle_exit: float = _setting("IdleExitSec", 300.0, _span(5, 365 * 86400))


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration. `warnings` are lines for the journal about unknown keys, which are ignored."""

    queen: QueenConfig = QueenConfig()
    hive: HiveConfig = HiveConfig()
    gateway: GatewayConfig = GatewayConfig()
    warnings: tuple[str, ...] = ()


SECTIONS: Mapping[str, type[Any]] = {"Queen": QueenConfig, "Hive": HiveConfig, "Gateway": GatewayConfig}


def load(root: Path = Path("/"), scope: Scope = SYSTEM) -> Config:
    """Return the configuration of a scope, under `root`. BadConfig names file, section and key."""
    config = defaults = Config(hive=HiveConfig(queen=scope.queen_socket))
    try:
        paths = _files(root, scope)
    except OSError as error:
        raise _unreadable(error, Path(error.filename)) from error
    where = None
    for path in paths:
        before, config = config.queen, _apply(config, defaults, path, scope)
        if _beats(config.queen) != _beats(before):
            where = path
    _check_grace(config.queen, where)
    return config


def _beats(queen: QueenConfig) -> tuple[float, float]:
    return queen.heartbeat_interval, queen.heartbeat_grace


def _check_grace(queen: QueenConfig, where: Path | None) -> None:
    """Raise BadConfig if the grace is too short; `where` is the last file that sets it or the interval."""
    least = 3 * JITTER * queen.heartbeat_interval
    if queen.heartbeat_grace < least * (1 - 1e-9):
        raise BadConfig(
            f"{where}: [Queen] HeartbeatGraceSec= is {queen.heartbeat_grace:g}s, and must be at least "
            f"{least:g}s with HeartbeatIntervalSec={queen.heartbeat_interval:g}s: three times the jitter",
            hint=f"Set HeartbeatGraceSec= in {where}; rbee.conf(5) has the rule.",
            field="HeartbeatGraceSec",
        )


def _files(root: Path, scope: Scope) -> list[Path]:
    folders = [root / folder for folder in scope.config_folders]
    main = next((folder / "rbee.conf" for folder in folders if (folder / "rbee.conf").exists()), None)
    dropins: dict[str, Path] = {}
    for folder in folders:
        for path in sorted((folder / "rbee.conf.d").glob("*.conf")):
            dropins.setdefault(path.name, path)
    return ([main] if main else []) + [dropins[name] for name in sorted(dropins)]


def where_set(section: str, key: str, root: Path = Path("/"), scope: Scope = SYSTEM) -> Path | None:
    """Return the file whose assignment of a key counts; None if no file has one. Raises as load()."""
    places = [path for path in _files(root, scope) if key in dict(_parsed(path, scope)).get(section, {})]
    return places[-1] if places else None


def _apply(config: Config, defaults: Config, path: Path, scope: Scope) -> Config:
    for section, assignments in _parsed(path, scope):
        for key, text in assignments.items():
            config = _assign(config, defaults, path, section, key, text)
    return config


def _parsed(path: Path, scope: Scope) -> list[tuple[str, dict[str, str]]]:
    """Return the sections of a file with their assignments. Raises BadConfig."""
    import configparser  # here: the keeper needs only the paths, and starts 3 ms earlier

    parser = configparser.ConfigParser(
        interpolation=None, strict=False, delimiters=("=",), comment_prefixes=("#", ";"), default_section=""
    )
    parser.optionxform = str  # type: ignore[method-assign, assignment]  # keys keep their case, as systemd's do
    try:
        parser.read_string(decoded(path.read_bytes()), source=str(path))
    except NotUtf8 as error:
        raise BadConfig(f"{path}: {error}", hint=_in_utf8(path, error.encoding, scope)) from error
    except configparser.MissingSectionHeaderError as error:
        message = f"line {error.lineno} is before any section, such as [Queen] or [Hive]"
        raise BadConfig(f"{path}: {message}", hint=f"Correct {path}.") from error
    except configparser.ParsingError as error:
        lines = ", ".join(str(number) for number, _ in error.errors)
        raise BadConfig(f"{path}: no Key=value in line {lines}", hint=f"Correct {path}.") from error
    except configparser.Error as error:
        raise BadConfig(f"{path}: {' '.join(str(error).split())}", hint=f"Correct {path}.") from error
    except OSError as error:
        raise _unreadable(error, path) from error
    return [(section, dict(parser.items(section))) for section in parser.sections()]


def _unreadable(error: OSError, path: Path) -> BadConfig:
    hint = f"Make {path} readable." if isinstance(error, PermissionError) else cure(error, path)
    return BadConfig(f"{path} cannot be read: {reason(error)}", hint=hint)


def _in_utf8(path: Path, encoding: str | None, scope: Scope) -> str:
    if encoding is None:
        return f"Save {path} as UTF-8."
    shown = shlex.quote(str(path))
    new = shlex.quote(f"{path}.new")
    change = scope.as_root(f"iconv -f {encoding} -t UTF-8 -o {new} {shown}")
    return f"{change} && {scope.as_root(f'mv {new} {shown}')}"


def _assign(config: Config, defaults: Config, path: Path, section: str, key: str, text: str) -> Config:
    kind = SECTIONS.get(section)
    known = next((f for f in fields(kind) if f.metadata["key"] == key), None) if kind else None
    if known is None:
        warning = f"{path}: unknown key '{key:.1000}' in section [{section:.200}], ignored"
        return replace(config, warnings=(*config.warnings, warning))
    try:
        default = getattr(getattr(defaults, section.lower()), known.name)
        value = known.metadata["parse"](text) if text else default
    except ValueError as error:
        raise BadConfig(
            f"{path}: [{section}] {key}= {error}, and is '{text:.1000}'",
            hint=f"Correct {key}= in {path}; rbee.conf(5) lists the keys.",
            field=key,
        ) from error
    changed = replace(getattr(config, section.lower()), **{known.name: value})
    return replace(config, **{section.lower(): changed})
