"""What rbee-fetch does for its request: fetch a file, forget a fetch, or remove a file."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from rbee.errors import BadInput
from rbee.fetch.errors import BadRequest, NoRoom, NotAModel, Verdict
from rbee.fetch.part import Part
from rbee.fetch.source import Source
from rbee.fetch.transfer import Patience, Transfer, World
from rbee.files import NO_ROOM, reason, sync_folder, write_whole
from rbee.modelfile.head import head_of
from rbee.modelfile.store import RESULT, FetchResult, Meta, Store, small
from rbee.modelfile.url import parsed, shown
from rbee.wire.models import Fetch

Open = Callable[[Fetch], AbstractContextManager[Source]]


@contextmanager
def source_of(fetch: Fetch) -> Iterator[Source]:
    """Yield the source of a fetch, and close it afterwards. Raises BadRequest."""
    has_sum = fetch.sha256 is not None
    try:
        parts = parsed(fetch.url, has_sum=has_sum)
    except BadInput as error:
        raise BadRequest(error.message, hint=error.hint) from error
    if parts.scheme == "file":
        from rbee.fetch.local import LocalFile

        yield LocalFile(Path(unquote(parts.path)))
        return
    from rbee.fetch.http import WebFile  # importing httpx takes a tenth of a second

    file = WebFile(fetch.url, has_sum=has_sum)
    try:
        yield file
    finally:
        file.close()


class Works(NamedTuple):
    """Carries out requests in a store. `boot_id` is that of the machine's current boot, '' if not known."""

    store: Store
    world: World
    boot_id: str
    patience: Patience = Patience()
    open_source: Open = source_of

    def fetch(self, fetch: Fetch) -> FetchResult:
        """Fetch a file, unless the store has it, and write the result. Raises Verdict, after writing it."""
        store = self.store
        with _explained(store.folder):
            make_folder(store.fetches)
            if (done := self._done(fetch)) is not None:
                return done
            store.result(fetch.id).unlink(missing_ok=True)
            part = Part(store, fetch.id, fetch.url, boot_id=self.boot_id)
            try:
                result = self._fetched(fetch, part)
            except Verdict as verdict:
                if not verdict.keeps_part:
                    part.remove()
                failed = FetchResult(fetch.model, "failed", _line(verdict), part.size)
                write_whole(store.result(fetch.id), small(failed), mode=0o644)
                raise
            write_whole(store.result(fetch.id), small(result), mode=0o644)
        return result

    def _done(self, fetch: Fetch) -> FetchResult | None:
        """Return the result if the fetch has ended well, and nobody has noted that, as the hive was down."""
        result = self.store.read_result(fetch.id)
        if result is None or result.state != "done" or result.sha256 is None:
            return None
        is_wanted = fetch.sha256 in (None, result.sha256)
        return result if is_wanted and self._whole(result.sha256) is not None else None

    def _fetched(self, fetch: Fetch, part: Part) -> FetchResult:
        there = None if fetch.sha256 is None else self._whole(fetch.sha256)
        if there is not None:
            part.remove()
            return FetchResult(fetch.model, "done", "", there.bytes, there.sha256)
        name = shown(fetch.url)
        with self.open_source(fetch) as source, _explained(self.store.folder), part:
            transfer = Transfer(
                part, source, self.world, name=name, sha256=fetch.sha256, patience=self.patience
            )
            transfer.run()
            return self._kept(part, name, fetch.model)

    def _kept(self, part: Part, name: str, model: str) -> FetchResult:
        """Move a complete part to its place in the store, and return the result. Raises NotAModel."""
        try:
            with part.reader() as file:
                head = head_of(file, name, part.size)
        except BadInput as error:
            raise NotAModel(error.message, hint=error.hint) from error
        meta = Meta(part.sha256, part.size, head)
        if self._whole(meta.sha256) is not None:
            part.remove()
        else:
            path = self.store.new_file(meta.sha256, head.format)
            make_folder(path.parent)
            sync_folder(self.store.folder)
            write_whole(self.store.meta(meta.sha256), small(meta), mode=0o644)
            part.keep_as(path)
        return FetchResult(model, "done", "", meta.bytes, meta.sha256)

    def _whole(self, sha256: str) -> Meta | None:
        """Return what is known about a file; None if the store does not have it."""
        return None if self.store.file(sha256) is None else self.store.read_meta(sha256)

    def forget(self, fetch_id: str) -> None:
        """Remove what is left of a fetch, but not the file that it fetched. Raises NoRoom."""
        with _explained(self.store.folder):
            for path in (
                self.store.part(fetch_id),
                self.store.version(fetch_id),
                self.store.result(fetch_id),
            ):
                path.unlink(missing_ok=True)

    def remove(self, sha256: str) -> None:
        """Remove a file, and the results of its fetches. Raises NoRoom."""
        with _explained(self.store.folder):
            for fetch_id in self.store.ids(RESULT):
                result = self.store.read_result(fetch_id)
                if result is not None and result.sha256 == sha256:
                    self.store.result(fetch_id).unlink(missing_ok=True)
            with suppress(FileNotFoundError):
                shutil.rmtree(self.store.folder / sha256)
            sync_folder(self.store.folder)


def make_folder(path: Path) -> None:
    """Make a folder, if it does not exist, and let every user list and enter it."""
    path.mkdir(exist_ok=True)
    path.chmod(0o755)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turn each OSError into NoRoom."""
    try:
        yield
    except OSError as error:
        hint = f"df -h {folder}" if error.errno in NO_ROOM else f"ls -ld {folder}"
        if error.errno == errno.EROFS:
            hint = f"findmnt -T {folder}"
        raise NoRoom(f"{folder} cannot be written: {reason(error)}", hint=hint) from error


def _line(verdict: Verdict) -> str:
    return " ".join([verdict.message, *([f"({verdict.hint})"] if verdict.hint else [])])
