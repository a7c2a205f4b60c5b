"""`python -m liftgate` is the `liftgate` command."""

from liftgate.cli import main

if __name__ == "__main__":
    main()
