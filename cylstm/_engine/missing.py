"""What to do where the compiled modules are missing."""

import os
import platform
import sys


def message() -> str:
    """Say where Python looked for the compiled modules, and how to get them."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    source = os.path.dirname(package)
    python = f"{platform.python_implementation()} {platform.python_version()} on {sys.platform}"
    found = f"cylstm: expected compiled modules for {python}, got none in {package}"
    if os.path.exists(os.path.join(source, "setup.py")):
        return (
            f"{found}. This is the source folder, which Python finds before an installed cylstm when it is "
            "started there or when PYTHONPATH names it. "
            f"Either start Python in another folder, or compile the sources: pip install -e {source}"
        )
    return (
        f"{found}. They are of another Python, or the installation is incomplete: "
        "pip install --force-reinstall cylstm"
    )
