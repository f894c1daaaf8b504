"""The program under test, and what it runs on."""

import os
import pathlib
import platform
import signal
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def ringlane(given=None, profile="release"):
    """The program that was given, else what cargo builds."""
    if given is None:
        flags = ["--release"] if profile == "release" else []
        if subprocess.run(["cargo", "build", "--locked", *flags], cwd=ROOT, check=False).returncode != 0:
            sys.exit("FAILED: cargo cannot build ringlane; --binary takes one that is built")
        given = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / profile / "ringlane"
    if not (given.is_file() and os.access(given, os.X_OK)):
        sys.exit(f"FAILED: {given} is no program: build it with cargo build, or leave the option out")
    return given.resolve()


def end_in_order():
    """Makes SIGTERM and Ctrl-C an end by way of all `with` and `finally` blocks, which end all children: status 143 and 130, no traceback."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: sys.exit(128 + number))


def kernel():
    """The kernel's version, without what a distribution or a build adds to it."""
    return platform.release().partition("-")[0]
