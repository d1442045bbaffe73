"""`kill -9` of `cellwise forecast fit` at random moments: does the same command go on, and end in the same bits?

python tests/trials/trial_kills.py [RUNS]
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from trial_faults import same, series

CODE = "import sys; from cellwise.cli import main; sys.argv[0] = 'cellwise'; main()"


def start(home: Path, run: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CODE, "forecast", "fit", "series.csv", "-H", "3", "--hidden-size", "4"]
    command += ["--epochs", "8", "--out", run]
    return subprocess.Popen(command, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(home: Path, run: str) -> float:
    """Run the command to its end; returns the seconds it took."""
    began = time.monotonic()
    process = start(home, run)
    said = process.communicate()[1]
    if process.returncode:
        raise RuntimeError(said)
    return time.monotonic() - began


def main() -> int:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    generator, kills, good = random.Random(0), 0, 0
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        series().write_csv(home / "series.csv")
        finish(home, "first")
        seconds = finish(home, "whole")  # the first one made the kernels
        for number in range(runs):
            run = f"run {number}"
            for _ in range(generator.randint(1, 3)):
                process = start(home, run)
                time.sleep(generator.uniform(0.3, 1.0) * seconds)
                process.kill()
                process.communicate()
                kills += 1
            if not (home / run / "summary.json").exists():
                finish(home, run)
            good += same(home / run, home / "whole")
    print(f"{kills} kills of {runs} runs at random moments: {good} runs end in the same bits")
    return runs - good


if __name__ == "__main__":
    sys.exit(main() > 0)
