"""How long a user waits for nothing: import, --help and a misspelt key beside `import torch`.

    python benchmarks/startup.py --rounds 9

Each line is the median over fresh processes, taken in turn.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import torch": ["-c", "import torch"],
    "import unrolled": ["-c", "import unrolled"],
    "from unrolled import LSTMCell": ["-c", "from unrolled import LSTMCell"],
    "train.py --help": [str(ROOT / "train.py"), "--help"],
    "train.py modle=gru": [str(ROOT / "train.py"), "modle=gru"],
    "train.py model.hiden_size=3": [str(ROOT / "train.py"), "model.hiden_size=3"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(options.rounds):
        for name, arguments in COMMANDS.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, *arguments], capture_output=True, cwd=ROOT, check=False)
            seconds[name].append(time.perf_counter() - began)
    reference = statistics.median(seconds["import torch"])
    print("| command | seconds | ÷ import torch |\n|---|---|---|")
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"| `{name}` | {median:.2f} | {median / reference:.2f} |")


if __name__ == "__main__":
    main()
