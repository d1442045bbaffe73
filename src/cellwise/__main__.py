"""`python -m cellwise` is the command `cellwise`."""

from cellwise.cli import main

if __name__ == "__main__":
    main()
