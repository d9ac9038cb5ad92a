"""``python -m mlless`` is the command line."""

from mlless.cli import main

if __name__ == "__main__":
    main()
