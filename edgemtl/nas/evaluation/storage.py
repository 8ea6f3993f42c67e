"""Where studies are kept: a journal in the run's folder, or a storage that many workers share, by its URL."""

from __future__ import annotations

import fcntl
import os
import re
import time
import warnings
from pathlib import Path
from typing import IO, Any

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection

from edgemtl.errors import MissingDependencyError, UserError, brief, one_line, reason_of
from edgemtl.files.disk import open_regular, read_bytes

__all__ = ["START", "hide_password", "open_storage", "open_study"]

JOURNAL_LIMIT_BYTES = 2**28
_OPENING_SECONDS = 60.0
_PASSWORD = re.compile(r"(://[^:@/\s]*:)[^@/\s]*(?=@)|([?&]password=)[^&\s'\"]*")
_ALLOWED = "journal:///PATH (a file that all workers see), sqlite:///PATH or postgresql://USER@HOST/DATABASE"
_DRIVERS = {"sqlite": "sqlite", "postgres": "postgresql+psycopg", "postgresql": "postgresql+psycopg"}
START = "initdb -D pg && pg_ctl -D pg -l pg/log -o '-k /tmp' start && createdb -h localhost studies"
"""Where packages put the socket, an ordinary user may not."""


def open_study(name: str, storage: BaseStorage, objectives: int = 2) -> optuna.Study:
    """The study called `name`, new or as it was left, of so many objectives, all to be minimised."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    directions = [StudyDirection.MINIMIZE] * objectives
    return optuna.create_study(study_name=name, storage=storage, directions=directions, load_if_exists=True)


def open_storage(journal: Path, url: str | None = None) -> BaseStorage:
    """The storage at a URL (or at the path of a shared journal), else the run's own `journal`.

    Raises `UserError` where the URL is of no kind that is known, its driver is missing, the database cannot be
    reached, or a journal is damaged.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if url is None:
        return _open_journal(journal, str(journal), "begin again with another --out")
    scheme, separator, rest = url.partition("://")
    if not separator and (os.sep in url or url.endswith(".journal")):
        scheme, rest = "journal", url
    if scheme == "journal" and rest:
        if not Path(rest).parent.is_dir():
            raise UserError(
                f"--storage {url}: there is no folder {Path(rest).parent}; create it where all workers see it"
            )
        return _open_journal(Path(rest), "--storage", "give the path of another file")
    if scheme.split("+")[0] not in _DRIVERS or not rest:
        raise UserError(f"--storage {brief(hide_password(url))} is of no kind that is known: give {_ALLOWED}")
    return _open_database(f"{_DRIVERS.get(scheme, scheme)}://{rest}")


def hide_password(text: str) -> str:
    """A text with the password of every URL in it hidden.

    >>> hide_password("--storage postgresql://me:secret@host/studies")
    '--storage postgresql://me:***@host/studies'
    """
    return _PASSWORD.sub(lambda match: f"{match[1] or match[2]}***", text)


def _open_database(url: str) -> RDBStorage:
    """A database; where another worker is making the tables at this moment, those are waited for."""
    if url.startswith("postgresql+psycopg:"):
        _check_driver()
    deadline, pause = time.monotonic() + _OPENING_SECONDS, 0.05
    patient: dict[str, Any] = {"connect_args": {"timeout": _OPENING_SECONDS}} if url.startswith("sqlite") else {}
    while True:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return RDBStorage(url, patient)
        except ImportError as error:
            raise _no_driver(url, error) from error
        except Exception as error:  # every database driver has its own
            if time.monotonic() > deadline or not _made_meanwhile(error):
                raise _unreachable(url, error) from error
        time.sleep(pause)
        pause = min(1.0, 2 * pause)


def _made_meanwhile(error: BaseException) -> bool:
    """Whether a database refused because another connection makes or has just made the same."""
    message = f"{error} {error.__cause__ or ''} {error.__context__ or ''}".lower()
    return any(words in message for words in ("already exists", "is locked", "unique", "duplicate", "no such table"))


def _no_driver(url: str, error: ImportError) -> UserError:
    driver = getattr(error.__cause__, "name", None) or url.partition("://")[0].rpartition("+")[2]
    return UserError(f"--storage needs the package {driver}, which is not installed: pip install {driver}")


def _check_driver() -> None:
    try:
        import psycopg  # noqa: F401 (SQLAlchemy loads it by its URL)
    except ImportError as error:
        raise MissingDependencyError("psycopg", "postgresql", "--storage with PostgreSQL") from error


def _unreachable(url: str, error: Exception) -> UserError:
    reason = reason_of(getattr(error, "orig", None) or error.__cause__ or error)
    shown = hide_password(url.replace("+psycopg", ""))
    if url.startswith("sqlite"):
        return UserError(f"the database {shown} in --storage cannot be opened ({reason}): give another path")
    return UserError(
        f"the database {shown} in --storage cannot be reached ({reason}): start one with `{START}` and give "
        "postgresql://localhost/studies, or give journal:///PATH, a file that all workers see"
    )


def _open_journal(journal: Path, where: str, remedy: str) -> JournalStorage:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _journal(journal)
    except (OSError, UserError):
        raise
    except Exception as error:  # what the file holds may be anything
        raise UserError(f"the study in {where} cannot be opened ({one_line(error)}): {remedy}") from error


def _journal(journal: Path) -> JournalStorage:
    journal.parent.mkdir(parents=True, exist_ok=True)
    if journal.exists() or journal.is_symlink():
        open_regular(journal, "journal").close()  # to lock a pipe would wait for its other end
    lock = _KernelLock(journal)
    lock.acquire()
    try:
        content = read_bytes(journal, "journal", JOURNAL_LIMIT_BYTES)
        os.truncate(journal, content.rfind(b"\n") + 1)  # a full disk may have cut the last line short
    finally:
        lock.release()
    return JournalStorage(JournalFileBackend(str(journal), lock))


class _KernelLock(JournalFileOpenLock):
    """A lock that ends with its process: a killed search does not lock out the one that resumes it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None

    def acquire(self) -> bool:
        self._file = self._path.open("ab")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        return True

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
