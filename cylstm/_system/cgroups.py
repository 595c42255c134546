"""The CPU quota of the control group of this process, version 1 or 2, and its ancestors (cgroups(7))."""

import math
import os
import re
from collections.abc import Iterator


def cpu_quota(process: str = "/proc/self") -> float:
    """Return the number of CPUs allowed by the quotas of the control group and its ancestors.

    Parameters
    ----------
    process : str
        Folder of the process in /proc.

    Returns
    -------
    float
        The smallest quota, infinity if there is none.

    Examples
    --------
    >>> cpu_quota() > 0
    True
    """
    try:
        with open(f"{process}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            groups = [line.rstrip("\n").split(":", 2) for line in file]
        with open(f"{process}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            mounts = [line.split() for line in file]
    except OSError:  # not Linux, or /proc is hidden
        return math.inf
    paths = {name: path for _, names, path in groups for name in names.split(",")}  # "" is version 2
    quotas = [math.inf]
    for fields in mounts:
        root, point, (kind, _, options) = fields[3], fields[4], fields[fields.index("-") + 1 :]
        if kind == "cgroup2" and "" in paths:
            quotas += map(_quota_v2, _folders(_unescaped(point), _unescaped(root), paths[""]))
        elif kind == "cgroup" and "cpu" in options.split(",") and "cpu" in paths:
            quotas += map(_quota_v1, _folders(_unescaped(point), _unescaped(root), paths["cpu"]))
    return min(quotas)


def _unescaped(path: str) -> str:
    """Unescape a path of mountinfo, where a space is \\040."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)


def _folders(point: str, root: str, path: str) -> Iterator[str]:
    """Yield the folders of a group and its ancestors below a mount point of the hierarchy at `root`."""
    yield point
    below = os.path.relpath(path, root)
    if below == "." or below.startswith(".."):  # not visible here: the mount point is the nearest ancestor
        return
    for name in below.split("/"):
        point = f"{point}/{name}"
        yield point


def _quota_v2(folder: str) -> float:
    quota, _, period = _read(f"{folder}/cpu.max").partition(" ")
    return _ratio(quota, period)


def _quota_v1(folder: str) -> float:
    return _ratio(_read(f"{folder}/cpu.cfs_quota_us"), _read(f"{folder}/cpu.cfs_period_us"))


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except (OSError, ValueError):
        return ""  # the root group has no quota


def _ratio(quota: str, period: str) -> float:
    """Return quota / period; "max" (version 2), -1 (version 1) and unreadable values mean no limit."""
    try:
        cpus = float(quota) / float(period)
    except (ValueError, ZeroDivisionError):
        return math.inf
    return cpus if cpus > 0 else math.inf
