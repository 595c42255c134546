"""Opening of regular files, and atomic, durable writing of files."""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Literal

Path = str | os.PathLike[str]
Parts = Sequence[bytes | memoryview]
_NOT_FLUSHED = (errno.EINVAL, errno.ENOTSUP)  # errors of file systems that cannot flush folders


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; raise OSError for any other path.

    Reading a pipe could block, and a device may be endless. The check is made on the open file, which avoids
    a race with a rename, and opening does not block.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
    if os.name == "nt" and os.path.isdir(path):  # Windows cannot open folders
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    file = _opened(path, "rb", flags)
    try:
        _check_regular(os.fstat(file.fileno()), path)
    except BaseException:
        file.close()
        raise
    return file


def _opened(path: Path, mode: Literal["rb", "wb"], flags: int) -> BinaryIO:
    """Open a file object, which closes the file even if an exception is raised before it is used."""
    flags |= getattr(os, "O_BINARY", 0)
    return open(path, mode, opener=lambda name, _: os.open(name, flags, 0o666))


def check_readable(path: Path) -> None:
    """Raise the OSError that `open_regular` would."""
    open_regular(path).close()


def check_writable(path: Path) -> None:
    """Raise the OSError that `write_atomically` would raise, before a long computation."""
    target = os.path.realpath(path)
    with _naming(target):
        _mode_of(target)
        _write_named(target, (), None, None)


def write_atomically(path: Path, content: bytes | Parts) -> None:
    """Write a file atomically: even after a power failure, the old or the complete new file exists.

    If the path is a link, its target is replaced. Permissions of a replaced file are preserved. On systems
    with unnamed files (Linux), a killed process leaves nothing behind; on others it may leave a file
    `.cylstm-*` in the folder. An exception never does.

    Parameters
    ----------
    path : path
    content : bytes, or sequence of bytes-like objects
        Parts to write one after another.

    Raises
    ------
    OSError
        If the folder is not writable, or the disk is full. The error names the path, and an existing file is
        not modified.
    """
    target = os.path.realpath(path)
    parts = (content,) if isinstance(content, bytes) else content
    with _naming(target):
        mode = _mode_of(target)
        if not _write_unnamed(target, parts, mode):
            _write_named(target, parts, mode, target)
        _flush_folder(os.path.dirname(target))


@contextlib.contextmanager
def _naming(target: str) -> Iterator[None]:
    """Make every OSError name the target file."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename == target:
            raise
        raise OSError(error.errno, error.strerror, target) from error


def _check_regular(status: os.stat_result, path: Path) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))


def _mode_of(target: str) -> int | None:
    """Return the permissions of an existing file; raise OSError if it is not a regular file."""
    try:
        status = os.stat(target)
    except FileNotFoundError:
        return None
    _check_regular(status, target)
    return stat.S_IMODE(status.st_mode) & 0o777


def _temporary(target: str) -> str:
    return os.path.join(os.path.dirname(target), f".cylstm-{os.urandom(8).hex()}")


def _write_unnamed(target: str, parts: Parts, mode: int | None) -> bool:
    """Write an unnamed file and name it once it is complete; False if the system does not support it."""
    if not hasattr(os, "O_TMPFILE") or not os.path.isdir("/proc/self/fd"):
        return False
    try:
        file = _opened(os.path.dirname(target), "wb", os.O_TMPFILE | os.O_WRONLY)
    except OSError:  # not supported here, or the folder is not writable
        return False
    with file:
        _fill(file, parts, mode)
        if mode is None and _link(file, target):
            return True
        temporary = _temporary(target)
        try:
            if not _link(file, temporary):
                return False
            os.replace(temporary, target)
        finally:
            _remove(temporary)
    return True


def _link(file: BinaryIO, path: str) -> bool:
    """Give an unnamed file a name; False if another file has it, or the system does not allow it."""
    handle = file.fileno()
    try:
        # An absolute path does not need src_dir_fd, but with it Python calls linkat, which follows links.
        os.link(f"/proc/self/fd/{handle}", path, src_dir_fd=handle, follow_symlinks=True)
    except OSError:
        return False
    return True


def _write_named(target: str, parts: Parts, mode: int | None, name: str | None) -> None:
    """Write a temporary file in the folder of the target; rename it to `name`, or delete it."""
    temporary = _temporary(target)
    try:
        try:
            file = _opened(temporary, "wb", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except OSError as error:
            raise OSError(error.errno, f"cannot write here: {error.strerror}", target) from None
        with file:
            _fill(file, parts, mode)
        if name is not None:
            os.replace(temporary, name)
    finally:
        _remove(temporary)


def _fill(file: BinaryIO, parts: Parts, mode: int | None) -> None:
    for part in parts:
        file.write(part)
    file.flush()
    if mode is not None and hasattr(os, "fchmod"):
        os.fchmod(file.fileno(), mode)
    os.fsync(file.fileno())


def _remove(temporary: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(temporary)


def _flush_folder(folder: str) -> None:
    """Flush the folder to make the name durable; a folder without read permission is skipped."""
    if os.name == "nt":
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NOT_FLUSHED:
            raise
    finally:
        os.close(handle)
