"""Writing a file so that its name always stands for the whole old content or the whole new one.

The new content goes to a temporary file in the same directory, is forced to the disk, and takes the
name over in one rename, which is forced to the disk too. A writer that is killed leaves its temporary
file behind; the next one that writes the same name removes it. A lock that the kernel drops when its
holder dies tells such leftovers from the file of a writer at work.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO


@contextmanager
def replacing(path: str) -> Iterator[FileIO]:
    """Give an unbuffered file to write to; after the block it has the name `path`.

    When the block or anything else raises, `path` stays as it was and no temporary file is left. A
    symbolic link is followed, and an existing file's permissions are kept; those of a new one are
    what the umask allows.

    Raises:
        OSError: the file cannot be written, or `path` is something other than a file.
    """
    path = os.path.realpath(path)
    directory, name = os.path.split(path)
    permissions = _permissions(path)
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _remove_leftovers(directory, name)
        temporary, file = _create(directory, name, 0o666 if permissions is None else 0o600)
        with file:
            try:
                yield file
                if permissions is not None:
                    os.fchmod(file.fileno(), permissions)
                os.fsync(file.fileno())
                os.replace(temporary, path)
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary)
                raise
        _sync_directory(folder)
    finally:
        os.close(folder)


def _permissions(path: str) -> int | None:
    """Those of the file that will be replaced; None if there is none."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file", path)
    return stat.S_IMODE(mode) & 0o777


def _create(directory: str, name: str, mode: int) -> tuple[str, FileIO]:
    """A new file, locked for as long as it is open."""
    while True:
        temporary = os.path.join(directory, f".{name}.{secrets.token_hex(4)}.tmp")
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        except FileExistsError:
            continue
        file = FileIO(fd, "w")
        with suppress(OSError):  # a file system without locks
            fcntl.flock(fd, fcntl.LOCK_EX)
        # Another writer may have taken it for a leftover before it was locked.
        if os.path.exists(temporary):
            return temporary, file
        file.close()


def _remove_leftovers(directory: str, name: str) -> None:
    """Remove the temporary files that killed writers of this name have left."""
    leftover = re.compile(rf"\.{re.escape(name)}\.[0-9a-f]{{8}}\.tmp")
    for entry in os.listdir(directory):
        if leftover.fullmatch(entry):
            with suppress(OSError):  # locked, gone, or not ours to remove
                path = os.path.join(directory, entry)
                fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
                with FileIO(fd, "r+"):
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(path)


def _sync_directory(folder: int) -> None:
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot
            raise
