"""Programs for processors and systems that this machine is not."""

import shutil
import subprocess

import pytest


def emulator(machine):
    """The command before a program for another processor; where it is not installed the test is skipped."""
    path = shutil.which(f"qemu-{machine}")
    if path is None:
        pytest.skip(f"qemu-{machine} is not installed (Debian's package qemu-user)")
    return [path, "-L", f"/usr/{machine}-linux-gnu"]


def windows(tmp_path, monkeypatch):
    """The command before a program for Windows; where it is not installed the test is skipped."""
    path = shutil.which("wine")
    if path is None:
        pytest.skip("wine is not installed (Debian's packages wine and wine64)")
    for name, value in {
        "PREFIX": tmp_path / "wine",
        "DEBUG": "-all",
        "DLLOVERRIDES": "mscoree,mshtml=",
    }.items():
        monkeypatch.setenv(f"WINE{name}", str(value))
    subprocess.run([path, "wineboot", "--init"], check=True, capture_output=True, timeout=600)
    return [path]
