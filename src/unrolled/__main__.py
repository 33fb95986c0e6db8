"""python -m unrolled COMMAND …"""

import sys

from unrolled.inference.command import main

if __name__ == "__main__":
    sys.exit(main())
