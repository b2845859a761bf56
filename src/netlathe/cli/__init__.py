"""The `netlathe` command: options read, a function of `netlathe` called, its report shown."""


def main() -> None:
    """Runs the command line. Exit codes: 0 done, 1 an expected error, a search whose target was missed when measured, a
    check that failed, or a phone that was not given back as it was, 2 wrong usage, or a check that could not be made,
    130 interrupted."""
    from netlathe.cli.app import main as run

    run()
