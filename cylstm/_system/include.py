"""Location of the C headers, for programs in C and Cython."""

from pathlib import Path


def get_include() -> str:
    """Return the folder of the C headers, for `#include "cylstm/cylstm.h"`.

    Returns
    -------
    str
        For `-I` of a compiler or the `include_dirs` of an extension. It is next to the package in
        a source tree, and inside of it in an installation.

    Raises
    ------
    FileNotFoundError
        If this installation has no headers.

    Examples
    --------
    >>> import os
    >>> os.path.exists(os.path.join(get_include(), "cylstm", "cylstm.h"))
    True
    """
    package = Path(__file__).parents[1]
    for folder in (package / "include", package.parent / "include"):
        if (folder / "cylstm" / "cylstm.h").exists():
            return str(folder)
    raise FileNotFoundError(
        f"no C headers in {package}: reinstall cylstm from its wheel or source distribution"
    )
