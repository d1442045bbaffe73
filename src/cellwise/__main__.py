"""`python -m cellwise` is the command `cellwise`."""

import os
import sys

if __name__ == "__main__":
    # Python looks first where one stands. Last is enough: a torch.py of one's own cells there is not torch.
    if not sys.flags.safe_path and sys.path and sys.path[0] == os.getcwd():
        sys.path.append(sys.path.pop(0))
    from cellwise.cli import main

    main()
