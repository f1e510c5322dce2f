"""`python -m gradtui` is the `gradtui` command."""

from gradtui.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
