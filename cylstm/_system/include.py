"""Where programs in C and Cython find the engine."""

from pathlib import Path


def get_include() -> str:
    """The folder of the C headers, for the compiler: `#include "cylstm/cylstm.h"`.

    Returns
    -------
    str
        As `-I` of a compiler or among the `include_dirs` of an extension. Beside the package where that is
        used in its source tree, else inside it.

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
        f"no C headers in {package}: install cylstm anew, from its wheel or source distribution"
    )
