"""The `netlathe` command: options read, a function of `netlathe` called, its report shown."""


def main() -> None:
    """Runs the command line. Exit codes: 0 done, 1 an expected error, a search whose target was missed when
    measured, or a phone that was not given back as it was, 2 wrong usage, 130 interrupted."""
    from netlathe.cli.app import main as run

    run()
