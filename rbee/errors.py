"""The errors of all programs.

Each error has a message, may have a cure (`hint`), and has the exit code of a program that fails with it
and the HTTP status of an answer with it. It is sent as a problem document of RFC 9457.
"""

from __future__ import annotations

from typing import Any, ClassVar

from rbee.text import shortened

PROBLEM_PREFIX = "urn:rbee:problem:"

TEXT_LIMIT = 2000
"""Characters of a problem's detail and of its hint; the middle of a longer text is cut."""


_INSTALLED_WITH = {
    "rbee": "./*.deb",
    "rbee-hive": "./python3-rbee_*.deb ./rbee-hive_*.deb",
    "rbee-gateway": "./python3-rbee_*.deb ./rbee-queen_*.deb ./rbee-gateway_*.deb",
    "rbee-queen": "./python3-rbee_*.deb ./rbee-queen_*.deb ./rbeectl_*.deb",
}


def with_packages(name: str) -> str:
    """Return how to install a package of rbee, for a hint: it is in no repository that apt knows."""
    return f"with rbee's packages in this folder: sudo apt install {_INSTALLED_WITH[name]}"


UPGRADE = "with the newer packages in this folder: sudo apt install --only-upgrade ./*.deb"
"""The same for all packages of rbee on a machine, which have the same version."""


class RbeeError(Exception):
    """The base of all errors, and an error without a class of its own."""

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
        """Return the problem document: type, title, status, detail, and field and hint if known."""
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
    """Input that is not valid; `field` names which."""

    slug, title, exit_code, status = "bad-input", "The request is not valid", 2, 400


class UnknownHost(RbeeError):
    """The host of a hive to be added is neither localhost nor a machine that has joined."""

    slug, title, exit_code, status = "unknown-host", "The host is not known", 2, 422


class TooLarge(RbeeError):
    """The body of a request is too large."""

    slug, title, exit_code, status = "too-large", "The request is too large", 2, 413


class HeadTooLarge(RbeeError):
    """The request line and headers are too large."""

    slug, title, exit_code, status = "head-too-large", "The request's headers are too large", 2, 431


class TooSlow(RbeeError):
    """The client did not send its request in time; TimedOut is for a missing answer."""

    slug, title, exit_code, status = "too-slow", "The request came too slowly", 1, 408


class TooMany(RbeeError):
    """A limit on how many of something exist at once, or on how often, is reached."""

    slug, title, exit_code, status = "too-many", "Too many at once", 1, 503


class NotPermitted(RbeeError):
    """The user or peer may not do this; 77 is EX_NOPERM of sysexits(3)."""

    slug, title, exit_code, status = "not-permitted", "Not permitted", 77, 403


class UnknownHive(RbeeError):
    """The hive is not in the catalog."""

    slug, title, exit_code, status = "unknown-hive", "No such hive", 4, 404


class UnknownModel(RbeeError):
    """The model is not in the catalog."""

    slug, title, exit_code, status = "unknown-model", "No such model", 4, 404


class UnknownKey(RbeeError):
    """There is no key of this name for clients of the gateway."""

    slug, title, exit_code, status = "unknown-key", "No such key", 4, 404


class HiveNotOnline(RbeeError):
    """The hive is not online, and is not started for this request."""

    slug, title, exit_code, status = "hive-not-online", "The hive is not online", 3, 409


class NoMemory(RbeeError):
    """A hive has too little memory free for a worker, or does not know how much; the message has the sums."""

    slug, title, exit_code, status = "no-memory", "Not enough memory is free", 1, 409


class CardLoads(NoMemory):
    """Another worker is loading its model on the card, which loads one at a time."""

    slug, title = "card-loads", "The card is loading another model"


class UnknownEngine(RbeeError):
    """The hive has no engine of this name, or one that does not take the model's format."""

    slug, title, exit_code, status = "unknown-engine", "No such engine", 4, 404


class EngineUnusable(RbeeError):
    """The engine cannot be used on the hive: its program is missing, for example."""

    slug, title, exit_code, status = "engine-unusable", "The engine cannot be used", 1, 409


class UnknownWorker(RbeeError):
    """The hive has no worker with this id."""

    slug, title, exit_code, status = "unknown-worker", "No such worker", 4, 404


class WorkerExists(RbeeError):
    """The hive has a worker with this id already."""

    slug, title, exit_code, status = "worker-exists", "The worker exists already", 1, 409


class WorkerNotReady(RbeeError):
    """The worker answers no requests: it is loading or stopping, or has failed."""

    slug, title, exit_code, status = "worker-not-ready", "The worker is not ready", 1, 409


class NameTaken(RbeeError):
    """Another machine has this name, or this machine has another name; neither is overwritten."""

    slug, title, exit_code, status = "name-taken", "The name is taken", 1, 409


class ClonedHive(RbeeError):
    """Two machines use one identity, as after cloning a disk image."""

    slug, title, exit_code, status = "cloned-hive", "Two machines have one identity", 1, 409


class VersionSkew(RbeeError):
    """Queen and hive are more than one minor version apart."""

    slug, title, exit_code, status = "version-skew", "The versions are too far apart", 1, 409


class TcpClosed(RbeeError):
    """The request needs access over TCP, which is not enabled."""

    slug, title, exit_code, status = "tcp-closed", "The queen is not open to other machines", 1, 409


class UnknownToken(RbeeError):
    """There is no token with this id."""

    slug, title, exit_code, status = "unknown-token", "No such token", 4, 404


class BadToken(RbeeError):
    """A token that cannot be used. The reason is reported only if its secret was right."""

    slug, title, exit_code, status = "bad-token", "The token is not valid", 77, 403


class ModelExists(RbeeError):
    """There is another model of this name, from another source; it is not overwritten."""

    slug, title, exit_code, status = "model-exists", "There is another model of this name", 1, 409


class FetchFailed(RbeeError):
    """A model's file could not be fetched; the same command tries again."""

    slug, title, exit_code, status = "fetch-failed", "The model could not be fetched", 1, 502


class BadKey(RbeeError):
    """A client's key is missing or unknown, has expired, or is revoked."""

    slug, title, exit_code, status = "bad-key", "The key is not valid", 77, 401


class KeyNotForModel(RbeeError):
    """A client's key is valid, but not for this model."""

    slug, title, exit_code, status = "key-not-for-model", "The key is not for this model", 77, 403


class WrongQueen(RbeeError):
    """The server at this address is not the queen with the expected CA."""

    slug, title, exit_code, status = "wrong-queen", "It is another queen", 1, 502


class NotServed(RbeeError):
    """The model is in the catalog, but requests do not wake it."""

    slug, title, exit_code, status = "not-served", "The model is not served", 1, 404


class ModelNotReady(RbeeError):
    """The model's file is not there, or its hive cannot start a worker at all."""

    slug, title, exit_code, status = "model-not-ready", "The model is not ready", 1, 503


class NoRoom(RbeeError):
    """No hive has room for a worker; the message has the sums."""

    slug, title, exit_code, status = "no-room", "There is no room for the model", 1, 503


class StillWaiting(RbeeError):
    """The request has waited as long as it may; the message has the worker's progress."""

    slug, title, exit_code, status = "still-waiting", "The model is not awake yet", 1, 503


class WorkerFailed(RbeeError):
    """A worker could not be started, or has ended; the message has why, and the engine's last lines.

    `summary` is the message without those lines, if it has some.
    """

    slug, title, exit_code, status = "worker-failed", "The worker failed", 1, 502

    summary: str | None = None


class UnknownJob(RbeeError):
    """There is no kept job with this id."""

    slug, title, exit_code, status = "unknown-job", "No such job", 4, 404


class UnknownFetch(RbeeError):
    """The hive knows of no fetch with this id."""

    slug, title, exit_code, status = "unknown-fetch", "No such fetch", 4, 404


class NoSuchRoute(RbeeError):
    """The daemon has no route at this path."""

    slug, title, exit_code, status = "no-such-route", "No such route", 1, 404


class NoSuchMethod(RbeeError):
    """The route does not have this method."""

    slug, title, exit_code, status = "no-such-method", "The route has no such method", 1, 405


class NotRunning(RbeeError):
    """The daemon is off or asleep, and is not started for this request."""

    slug, title, exit_code, status = "not-running", "Not running", 3, 503


class Unreachable(RbeeError):
    """The other side does not answer, or its answer is not valid."""

    slug, title, exit_code, status = "unreachable", "The other side does not answer", 1, 502


class Disconnected(Unreachable):
    """The connection ended before or during the answer: the other side died, or was stopped."""

    slug, title = "disconnected", "The connection was lost"


class TimedOut(RbeeError):
    """An answer or a result did not come in time."""

    slug, title, exit_code, status = "timed-out", "It took too long", 1, 504


class UnitFailed(RbeeError):
    """systemd could not bring a unit to the requested state."""

    slug, title, exit_code, status = "unit-failed", "A unit failed", 1, 502

    exit_status = 0
    """The exit status of its program, if that ended by itself."""


class JobReplaced(UnitFailed):
    """Another job for the unit replaced this one: in systemd the last one wins."""

    slug, title = "job-replaced", "Another job replaced it"


class HiveFailed(RbeeError):
    """A request to a hive failed, or the hive refused it."""

    slug, title, exit_code, status = "hive-failed", "The hive refused", 1, 502


class CommandFailed(RbeeError):
    """A command on another machine ended with `exit_status`; `reason` is the end of what it printed."""

    slug, title, exit_code, status = "command-failed", "A command failed", 1, 502

    exit_status = 0
    reason = ""


class CatalogFailed(RbeeError):
    """Reading or writing the catalog failed."""

    slug, title, exit_code, status = "catalog-failed", "The hive catalog failed", 1, 500


class BadConfig(RbeeError):
    """A configuration with which a program cannot run; 78 is EX_CONFIG of sysexits(3)."""

    slug, title, exit_code, status = "bad-config", "The configuration is not valid", 78, 500


class CatalogUnusable(RbeeError):
    """A catalog that is damaged, of another program, or too new. It is never overwritten."""

    slug, title, exit_code, status = "catalog-unusable", "The hive catalog is unusable", 78, 500


class CatalogInUse(RbeeError):
    """Another process has locked the catalog: a queen, or a keeper that restores it."""

    slug, title, exit_code, status = "catalog-in-use", "The hive catalog is in use", 1, 503


class JoinedAnew(RbeeError):
    """The hive's membership was replaced: it ends, and systemd starts it with the new one."""

    slug, title, exit_code, status = "joined-anew", "The machine has joined again", 1, 503


class Stopping(RbeeError):
    """The daemon is stopping and starts nothing new."""

    slug, title, exit_code, status = "stopping", "The daemon is stopping", 1, 503


class Interrupted(RbeeError):
    """Ctrl-C; 130 is a shell's exit status for SIGINT. The job that was followed continues."""

    slug, title, exit_code, status = "interrupted", "Interrupted", 130, 500


def _descendants(root: type[RbeeError]) -> list[type[RbeeError]]:
    return [root, *(kind for child in root.__subclasses__() for kind in _descendants(child))]


_BY_TYPE = {PROBLEM_PREFIX + kind.slug: kind for kind in _descendants(RbeeError)}


def from_problem(problem: dict[str, Any]) -> RbeeError:
    """Return the error that a problem document was made from; an unknown type becomes RbeeError."""
    kind = _BY_TYPE.get(str(problem.get("type")), RbeeError)
    hint, field = problem.get("hint"), problem.get("field")
    return kind(
        str(problem.get("detail") or problem.get("title") or "it failed without a reason"),
        hint=hint if isinstance(hint, str) else None,
        field=field if isinstance(field, str) else None,
    )
