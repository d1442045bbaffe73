"""Several trainings started at once in one folder: does one train, and are the others told who it is?

python tests/trials/trial_together.py [TRIALS]
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from trial_faults import same, series
from trial_kills import finish, start

AT_ONCE = 3


def main() -> int:
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 25
    ends: Counter[str] = Counter()
    good = 0
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        series().write_csv(home / "series.csv")
        finish(home, "whole")
        for number in range(trials):
            processes = [start(home, f"run {number}") for _ in range(AT_ONCE)]
            for process in processes:
                said = process.communicate()[1]
                told = "another training is in" in said and "since 2" in said
                late = "holds a finished run" in said
                ends["trained" if process.returncode == 0 else "told" if told or late else "died"] += 1
            good += same(home / f"run {number}", home / "whole")
    print(
        f"{trials} folders, {AT_ONCE} trainings at once in each: {ends['trained']} trained, {ends['told']} were told "
        f"who trains there, {ends['died']} died; {good} runs end in the same bits"
    )
    return trials - good + ends["died"]


if __name__ == "__main__":
    sys.exit(main() > 0)
