"""``python scripts/results.py OUTPUT`` is ``python -m experiments report OUTPUT``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.start import results

if __name__ == "__main__":
    sys.exit(results())
