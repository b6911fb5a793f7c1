"""`python -m mehl_soup`."""

import sys

from mehl_soup.command import main

if __name__ == "__main__":
    sys.exit(main())
