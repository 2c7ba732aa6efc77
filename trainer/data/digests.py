"""The sha256 of files: each is read once, by one rank, and not again in later runs while it stays as it is."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from dpnb.dataset.archive import open_file
from dpnb.dataset.headers import Signature, check_file
from dpnb.dataset.store import HeaderStore
from dpnb.errors import DatasetError

_KEPT_AT_ONCE = 5000  # digests that a run which is killed may have computed in vain


class Digests:
    """sha256 by path. Threads may share one.

    Inside, paths are texts and digests bytes: as a Path and a text they would take twice the memory, for each picture.
    """

    def __init__(self) -> None:
        self._known: dict[str, bytes] = {}
        self._fresh: dict[Path, tuple[Signature, str]] = {}
        self._lock = threading.Lock()

    def recall(self, paths: Sequence[Path]) -> None:
        """Take what earlier runs have computed, for files that have not changed since."""
        store = HeaderStore()
        for path, (signature, digest) in store.known_digests([p for p in paths if str(p) not in self._known]).items():
            try:
                if check_file(path) == signature:
                    self._known[str(path)] = bytes.fromhex(digest)
            except DatasetError:
                continue  # gone: whoever reads it says so
        store.close()

    def of(self, path: Path) -> str:
        """The digest of one file, read now unless it is known. Raises `DatasetError` naming the file."""
        known = self._known.get(str(path))
        if known is not None:
            return known.hex()
        try:
            signature = check_file(path)
            with open_file(path) as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DatasetError(f"{path}: cannot be read: {error.strerror}") from error
        except DatasetError as error:
            raise DatasetError(f"{path}: {error}") from error
        with self._lock:
            self._known[str(path)] = bytes.fromhex(digest)
            self._fresh[path] = signature, digest
            full = len(self._fresh) >= _KEPT_AT_ONCE
        if full:
            self.keep()
        return digest

    def keep(self) -> None:
        """Remember what is new for later runs."""
        with self._lock:
            fresh, self._fresh = self._fresh, {}
        store = HeaderStore()
        store.remember_digests(fresh)
        store.close()

    def known(self) -> dict[str, bytes]:
        """Everything known so far by path, for the other ranks."""
        return dict(self._known)

    def add(self, digests: Mapping[str, bytes]) -> None:
        """Take what other ranks know."""
        self._known |= digests
