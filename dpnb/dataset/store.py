"""What was read of files before, so that a second scan opens none of them: a database outside the user's folders.

    folder  --known-->  {name: (signature, header)}        {name: (signature, header)}  --remember-->  folder
    paths   --known_digests-->  {path: (signature, sha256)}                             --remember_digests-->

An entry counts as long as the file's length and times are those it was read with. The store is only ever a saving of
time: one that is broken is put aside and begun anew, and where none can be written the scan does without. SQLite sees
to it that several processes share it and that a killed one leaves it whole.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, TypeVar

from dpnb.dataset.cache_folder import default_root
from dpnb.dataset.headers import Header, Signature

_log = logging.getLogger(__name__)
Result = TypeVar("Result")

_FILE = "headers.sqlite"
_VERSION = 2  # raise it when a header would be read otherwise than before: everything is then read again
_WAIT_SECONDS = 5.0  # for another process that is writing
_SETTLED_NS = 2_000_000_000  # a file changed more recently may change again without its times showing it
_BROKEN = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_MISMATCH)

_TABLES = """
create table folders (id integer primary key, path text not null unique);
create table headers (
    folder integer not null, name text not null,
    size_bytes integer not null, written_ns integer not null, changed_ns integer not null,
    width_px integer not null, height_px integer not null, frames integer not null, fps real not null,
    animated integer not null,
    primary key (folder, name)
) without rowid;
create table digests (
    path text primary key,
    size_bytes integer not null, written_ns integer not null, changed_ns integer not null,
    sha256 blob not null
) without rowid;
"""
_SELECT = """
select name, size_bytes, written_ns, changed_ns, width_px, height_px, frames, fps, animated
from headers join folders on id = folder where path = ?
"""
_INSERT = "insert or replace into headers values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

_NAMES_AT_ONCE = 500  # in one question; SQLite takes 32,766 at most


class Known:
    """What earlier scans read of the files of one folder. `entries`: as the database gives them, since large folders
    feel it when they are made into more than is asked for."""

    def __init__(self, entries: Iterable[tuple[Any, ...]] = ()) -> None:
        self._entries = {entry[0]: entry for entry in entries}

    def header(self, name: str, signature: Signature) -> Header | None:
        """What the header of a file said when the file had this signature; None when it was another, or none."""
        entry = self._entries.get(name)
        if entry is None or entry[1:4] != signature:
            return None
        return Header(entry[4], entry[5], entry[6], entry[7], entry[8] == 1)

    def names(self) -> Set[str]:
        """The files of which something is known."""
        return self._entries.keys()


Digests = dict[Path, tuple[Signature, str]]
"""Path -> the sha256 of its bytes in hex digits, and the signature of the file at that time."""


class HeaderStore:
    """The database at `path`, or in the folder of the cache.

    Nothing is opened or made before it is needed, and nothing is raised for what is on disk.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._open: sqlite3.Connection | None = None
        self._given_up = False
        try:
            self.path = default_root() / _FILE if path is None else path
        except RuntimeError as error:  # a container may run as a user who has no home
            self.path, self._given_up = Path(_FILE), True
            _log.info("%s: files are read without a store", error)

    def known(self, folder: Path) -> Known:
        """What is remembered of the files of one folder; nothing when there is no store yet."""
        if self._given_up or not os.path.exists(self.path):  # noqa: PTH110 - Path raises where it may not look
            return Known()

        def look(database: sqlite3.Connection) -> Known:
            return Known(database.execute(_SELECT, (_name(folder),)))

        return self._with(look, Known())

    def remember(self, folder: Path, found: Mapping[str, tuple[Signature, Header]], gone: Iterable[str] = ()) -> None:
        """Keep what was read of a folder, in one piece, and forget files that are gone.

        Files that were changed a moment ago are left out: they are read again the next time.
        """
        rows = [(name, *both) for name, both in found.items() if _is_settled(both[0])]
        forgotten = list(gone)
        if not rows and not forgotten:
            return

        def write(database: sqlite3.Connection) -> None:
            with database:
                database.execute("begin immediate")
                database.execute("insert or ignore into folders (path) values (?)", (_name(folder),))
                (number,) = database.execute("select id from folders where path = ?", (_name(folder),)).fetchone()
                database.executemany(
                    _INSERT, ((number, name, *signature, *header) for name, signature, header in rows)
                )
                delete = "delete from headers where folder = ? and name = ?"
                database.executemany(delete, ((number, name) for name in forgotten))

        self._with(write, None)

    def known_digests(self, paths: Sequence[Path]) -> Digests:
        """What is remembered of the contents of files; nothing when there is no store yet."""
        if self._given_up or not os.path.exists(self.path):  # noqa: PTH110 - as in `known`
            return {}
        names = {_name(path): path for path in paths}

        def look(database: sqlite3.Connection) -> Digests:
            found: Digests = {}
            asked = list(names)
            for start in range(0, len(asked), _NAMES_AT_ONCE):
                some = asked[start : start + _NAMES_AT_ONCE]
                marks = ", ".join("?" * len(some))
                # Only marks are put into the text of the statement.
                rows = database.execute(f"select * from digests where path in ({marks})", some)  # noqa: S608
                found |= {names[row[0]]: (Signature(*row[1:4]), row[4].hex()) for row in rows}
            return found

        return self._with(look, {})

    def remember_digests(self, found: Mapping[Path, tuple[Signature, str]]) -> None:
        """Keep what was read of the contents of files, in one piece; files that have not settled are left out."""
        rows = [
            (_name(path), *signature, bytes.fromhex(digest))
            for path, (signature, digest) in found.items()
            if _is_settled(signature)
        ]

        def write(database: sqlite3.Connection) -> None:
            with database:
                database.execute("begin immediate")
                database.executemany("insert or replace into digests values (?, ?, ?, ?, ?)", rows)

        if rows:
            self._with(write, None)

    def close(self) -> None:
        """Let go of the file."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _with(self, work: Callable[[sqlite3.Connection], Result], without: Result) -> Result:
        """The work on the open database. One that is broken is put aside once; any other trouble ends its use."""
        for attempt in (1, 2):
            if self._given_up:
                break
            try:
                if self._open is None:
                    self._open = self._connect()
                return work(self._open)
            except (sqlite3.Error, OSError) as error:
                self.close()
                code = getattr(error, "sqlite_errorcode", 0) & 0xFF
                if attempt == 1 and code in _BROKEN:
                    _log.warning("%s is broken (%s): it is put aside, and files are read again", self.path, error)
                    self._put_aside()
                else:
                    self._given_up = True
                    _log.info("%s cannot be used (%s): files are read without it", self.path, error)
        return without

    def _connect(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(self.path, timeout=_WAIT_SECONDS, isolation_level=None)
        try:
            database.execute("pragma synchronous = normal")
            if database.execute("pragma user_version").fetchone()[0] != _VERSION:
                self._make(database)
        except BaseException:
            database.close()
            raise
        return database

    @staticmethod
    def _make(database: sqlite3.Connection) -> None:
        """The tables, empty. Another process may be doing the same: the second one sees the version and stops."""
        database.execute("begin exclusive")
        with database:
            if database.execute("pragma user_version").fetchone()[0] != _VERSION:
                for table in ("headers", "folders", "digests"):
                    database.execute(f"drop table if exists {table}")
                for statement in filter(str.strip, _TABLES.split(";")):
                    database.execute(statement)
                database.execute(f"pragma user_version = {_VERSION}")

    def _put_aside(self) -> None:
        # Its journal has to go first: SQLite would apply it to the new file of that name.
        for path in (self.path.with_name(f"{self.path.name}-journal"), self.path):
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                path.replace(path.with_name(f"{path.name}.broken"))


def _is_settled(signature: Signature) -> bool:
    return max(signature.written_ns, signature.changed_ns) < time.time_ns() - _SETTLED_NS


def _name(folder: Path) -> str:
    """The path in full, as the store knows it."""
    return os.path.abspath(folder)  # noqa: PTH100 - Path.resolve follows links, each a question to the disk
