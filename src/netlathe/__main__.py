"""`python -m netlathe`: the command where its script is not on the path."""

from netlathe.cli import main

if __name__ == "__main__":
    main()
