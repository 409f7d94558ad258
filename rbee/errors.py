"""What can go wrong, once for all three programs.

Each error says what happened, may name the cure (`hint`), knows the exit code that a
person's shell gets and the HTTP status that a client gets, and survives the way over
a socket as an RFC 9457 problem document.
"""

from __future__ import annotations

from typing import Any, ClassVar

from rbee.text import shortened

PROBLEM_PREFIX = "urn:rbee:problem:"

TEXT_LIMIT = 2000
"""Characters of a problem's detail and of its hint; it may repeat what was sent. More loses its middle."""


_INSTALLED_WITH = {
    "rbee": "./*.deb",
    "rbee-hive": "./python3-rbee_*.deb ./rbee-hive_*.deb",
    "rbee-queen": "./python3-rbee_*.deb ./rbee-queen_*.deb ./rbeectl_*.deb",
}


def with_packages(name: str) -> str:
    """How one installs a package of rbee's, for a hint: no repository that apt knows has it."""
    return f"with rbee's packages in this folder: sudo apt install {_INSTALLED_WITH[name]}"


UPGRADE = "with the newer packages in this folder: sudo apt install --only-upgrade ./*.deb"
"""The same for all of rbee that a machine has, whose packages are of one version."""


class RbeeError(Exception):
    """The root; raised itself only for what has no better name."""

    slug: ClassVar[str] = "failure"
    title: ClassVar[str] = "The request failed"
    exit_code: ClassVar[int] = 1
    status: ClassVar[int] = 500

    def __init__(self, message: str, *, hint: str | None = None, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.field = field

    def to_problem(self) -> dict[str, Any]:
        """The RFC 9457 document: type, title, status, detail, and field and hint where known."""
        problem: dict[str, Any] = {
            "type": PROBLEM_PREFIX + self.slug,
            "title": self.title,
            "status": self.status,
            "detail": shortened(self.message, TEXT_LIMIT),
        }
        if self.field is not None:
            problem["field"] = self.field
        if self.hint is not None:
            problem["hint"] = shortened(self.hint, TEXT_LIMIT)
        return problem


class BadInput(RbeeError):
    slug, title, exit_code, status = "bad-input", "The request is not valid", 2, 400


class UnknownHost(RbeeError):
    slug, title, exit_code, status = "unknown-host", "The host is not known", 2, 422


class TooLarge(RbeeError):
    slug, title, exit_code, status = "too-large", "The request is too large", 2, 413


class HeadTooLarge(RbeeError):
    slug, title, exit_code, status = "head-too-large", "The request's headers are too large", 2, 431


class TooSlow(RbeeError):
    """The client did not send its request in time; TimedOut is said of who should answer."""

    slug, title, exit_code, status = "too-slow", "The request came too slowly", 1, 408


class TooMany(RbeeError):
    slug, title, exit_code, status = "too-many", "Too much at once", 1, 503


class NotPermitted(RbeeError):
    slug, title, exit_code, status = "not-permitted", "Not permitted", 77, 403


class UnknownHive(RbeeError):
    slug, title, exit_code, status = "unknown-hive", "No such hive", 4, 404


class HiveNotOnline(RbeeError):
    """What only a living hive can answer; nobody is woken to answer it."""

    slug, title, exit_code, status = "hive-not-online", "The hive is not online", 3, 409


class NameTaken(RbeeError):
    """Another machine has this name, or this machine another: a conflict, never an overwrite."""

    slug, title, exit_code, status = "name-taken", "The name is taken", 1, 409


class ClonedHive(RbeeError):
    """Two machines came with one identity, as those made from one image do."""

    slug, title, exit_code, status = "cloned-hive", "Two machines have one identity", 1, 409


class VersionSkew(RbeeError):
    """Queen and hive are more than one minor version apart."""

    slug, title, exit_code, status = "version-skew", "The versions are too far apart", 1, 409


class TcpClosed(RbeeError):
    """What needs the queen to be reached from other machines, while she is not."""

    slug, title, exit_code, status = "tcp-closed", "The queen is not open to other machines", 1, 409


class UnknownToken(RbeeError):
    slug, title, exit_code, status = "unknown-token", "No such token", 4, 404


class BadToken(RbeeError):
    """A token that does not let anybody join. What is wrong with it is told to who knows its secret."""

    slug, title, exit_code, status = "bad-token", "The token is not valid", 77, 403


class WrongQueen(RbeeError):
    """Whoever answers there is not the queen that the fingerprint is of."""

    slug, title, exit_code, status = "wrong-queen", "It is another queen", 1, 502


class UnknownJob(RbeeError):
    slug, title, exit_code, status = "unknown-job", "No such job", 4, 404


class NoSuchRoute(RbeeError):
    slug, title, exit_code, status = "no-such-route", "No such route", 1, 404


class NoSuchMethod(RbeeError):
    slug, title, exit_code, status = "no-such-method", "The route has no such method", 1, 405


class NotRunning(RbeeError):
    """The queen is off or asleep, and the verb is not one that wakes her."""

    slug, title, exit_code, status = "not-running", "Not running", 3, 503


class Unreachable(RbeeError):
    """A socket that does not answer, or answers with something that is not ours."""

    slug, title, exit_code, status = "unreachable", "The other side does not answer", 1, 502


class Disconnected(Unreachable):
    """The other side went in the middle of its answer: it died, or was stopped."""

    slug, title = "disconnected", "The other side went"


class TimedOut(RbeeError):
    slug, title, exit_code, status = "timed-out", "It took too long", 1, 504


class UnitFailed(RbeeError):
    """systemd could not bring a unit to the state that was asked for."""

    slug, title, exit_code, status = "unit-failed", "A unit failed", 1, 502

    exit_status = 0
    """Of its program, where that ended by itself."""


class JobReplaced(UnitFailed):
    """Somebody else had something else done with the unit meanwhile: systemd lets the last one win."""

    slug, title = "job-replaced", "Somebody else's job took its place"


class HiveFailed(RbeeError):
    """A hive answered, and its answer was a refusal."""

    slug, title, exit_code, status = "hive-failed", "The hive refused", 1, 502


class CommandFailed(RbeeError):
    """A command on another machine ended with `exit_status`; `reason` is the end of what it printed."""

    slug, title, exit_code, status = "command-failed", "A command failed", 1, 502

    exit_status = 0
    reason = ""


class CatalogFailed(RbeeError):
    slug, title, exit_code, status = "catalog-failed", "The hive catalog failed", 1, 500


class BadConfig(RbeeError):
    """Configuration that cannot be run with; 78 is EX_CONFIG of sysexits(3)."""

    slug, title, exit_code, status = "bad-config", "The configuration is not valid", 78, 500


class CatalogUnusable(RbeeError):
    """A catalog that this queen must not touch: damaged, foreign or newer. Never overwritten."""

    slug, title, exit_code, status = "catalog-unusable", "The hive catalog is unusable", 78, 500


class CatalogInUse(RbeeError):
    """Another process has the catalog: a queen, or a keeper who puts another file in its place."""

    slug, title, exit_code, status = "catalog-in-use", "The hive catalog is in use", 1, 503


class JoinedAnew(RbeeError):
    """The hive's membership is replaced: it ends, and systemd starts it with the new one."""

    slug, title, exit_code, status = "joined-anew", "The machine has joined anew", 1, 503


class Stopping(RbeeError):
    slug, title, exit_code, status = "stopping", "The daemon is stopping", 1, 503


class Interrupted(RbeeError):
    """Ctrl-C; 130 is what a shell makes of SIGINT. The job that was watched goes on."""

    slug, title, exit_code, status = "interrupted", "Interrupted", 130, 500


def _descendants(root: type[RbeeError]) -> list[type[RbeeError]]:
    return [root, *(found for child in root.__subclasses__() for found in _descendants(child))]


_BY_TYPE = {PROBLEM_PREFIX + kind.slug: kind for kind in _descendants(RbeeError)}


def from_problem(problem: dict[str, Any]) -> RbeeError:
    """The error that a problem document was made from; an unknown type becomes RbeeError."""
    kind = _BY_TYPE.get(str(problem.get("type")), RbeeError)
    hint, field = problem.get("hint"), problem.get("field")
    return kind(
        str(problem.get("detail") or problem.get("title") or "it failed without saying why"),
        hint=hint if isinstance(hint, str) else None,
        field=field if isinstance(field, str) else None,
    )
