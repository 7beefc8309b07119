"""Files that are whole or not there, and one sentence where the disk takes no more."""

import errno
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from torch.distributed.checkpoint.api import CheckpointException

from mgpo.errors import UserError, chain_of

NO_ROOM = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "it would be larger than files may be here",
    errno.EROFS: "the file system is read-only",
}
REFUSED = {
    **NO_ROOM,
    errno.EACCES: "writing there is not permitted",
    errno.EPERM: "writing there is not permitted",
    errno.EISDIR: "it is a folder",
    errno.ENOTDIR: "a part of the path is a file",
    errno.EEXIST: "a part of the path is a file",
    errno.ENOENT: "a folder of the path can't be made",
}
ADVICE = "what was saved before is kept; make room or name another folder, then start again with --ckpt_path last"


def parse_json(text: str | bytes) -> Any:
    """As `json.loads`; raises ValueError, and nothing else, for whatever a file or a server may hold."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


@contextmanager
def writing(path: Path, advice: str = ADVICE) -> Iterator[None]:
    """Raises UserError where the system refuses to write; libraries may have wrapped its refusal."""
    try:
        yield
    except (Exception, CheckpointException) as error:  # torch's is none of Python's exceptions
        if (mistake := refused(error, str(path), REFUSED, advice)) is None:
            raise
        raise mistake from error


def refused(
    error: BaseException,
    path: str = "a file of the run",
    reasons: Mapping[int, str] = NO_ROOM,
    advice: str = ADVICE,
) -> UserError | None:
    """The sentence for people, if an exception or what caused it has one of these reasons; else None."""
    code = _code(error)
    return (
        None
        if (reason := reasons.get(code or 0)) is None
        else UserError(f"{path} can't be written: {reason}; {advice}")
    )


@contextmanager
def replaced(path: Path, lasting: bool = False, advice: str = ADVICE) -> Iterator[Path]:
    """Where to write a file's new content; it takes its place when the block ends well.

    Args:
        path: In a folder that is made if need be.
        lasting: Wait until the content has reached the disk.
        advice: What to do where it can't be written.
    """
    unfinished = path.with_name(path.name + ".unfinished")
    with writing(path, advice):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield unfinished
            if lasting:
                with unfinished.open("rb") as file:
                    os.fsync(file.fileno())
            os.replace(unfinished, path)
        except Exception:
            unfinished.unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str, advice: str = ADVICE) -> None:
    """Write a text in UTF-8, whole or not at all; a question mark stands for what can't be encoded."""
    with replaced(path, advice=advice) as unfinished:
        unfinished.write_bytes(text.encode("utf-8", "replace"))


def write_json(path: Path, value: Any, advice: str = ADVICE) -> None:
    """Write a value as JSON, in the same way."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n", advice)


def check_output(path: Path, advice: str = "name another --output") -> None:
    """Raises UserError, before the work whose outcome it is to hold, where a file of that name can't be written."""
    with writing(path, advice):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "")
        with tempfile.TemporaryFile(dir=path.parent):
            pass


@contextmanager
def locked(path: Path, what: str, instead: str) -> Iterator[None]:
    """Keep other processes out while the block runs; one that dies, however it does, lets go.

    Where the file system has no locks nobody is kept out. Raises UserError where another process is there already.

    Args:
        path: A file of nothing but this, which is there meanwhile, and whose folder is made if need be.
        what: What is being written, such as "runs/mgpo/version_0".
        instead: What a person may do instead of waiting, such as "name another --output".
    """
    with writing(path, instead):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _lock(path)
    if file is None:
        raise UserError(f"{what} is being written by another process; wait until it has ended, or {instead}")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


def _lock(path: Path) -> BinaryIO | None:
    """The file of that name, locked unless there are no locks; None where another process has it."""
    while True:
        file = path.open("ab")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock's, not inherited by workers
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                file.close()
                return None
            return file
        if _stands(path, file):  # whoever had it may just have taken it away
            return file
        file.close()


def _stands(path: Path, file: BinaryIO) -> bool:
    """Whether this open file is the one of that name."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _code(error: BaseException | None) -> int | None:
    """The errno of the system's refusal."""
    for cause in chain_of(error):
        if isinstance(cause, OSError) and cause.errno in REFUSED:
            return cause.errno
        if isinstance(cause, CheckpointException):  # of several ranks
            return next((code for each, _ in cause.failures.values() if (code := _code(each))), None)
    return None
