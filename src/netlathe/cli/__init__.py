"""The `netlathe` command: options read, a function of `netlathe` called, its report shown."""

import gc

_OBJECTS_PER_COLLECTION = 20_000
"""Objects made between two collections of the youngest; Python's own is 700 to 2,000."""


def main() -> None:
    """Runs the command line. Exit codes: 0 done, 1 an expected error, a search whose target was missed when measured, a
    check that failed, or a phone that was not given back as it was, 2 wrong usage, or a check that could not be made,
    130 interrupted."""
    # Imports make 100,000 objects that stay: looking through them again and again takes a tenth of a short command.
    gc.set_threshold(_OBJECTS_PER_COLLECTION, *gc.get_threshold()[1:])
    from netlathe.cli.app import main as run

    run()
