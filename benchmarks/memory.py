"""Measure the memory of training against the number of time steps, for cylstm and PyTorch.

    python benchmarks/memory.py > memory.jsonl       # about a minute

The model is `long` of models.py: one LSTM layer of 256 units, 64 sequences. `segments` is
`Trainer(segments="auto")`. docs/pictures.py draws the result.
"""

import json
import sys

from models import TASKS, peaks
from run import machine
from tqdm import tqdm

STEPS = (30, 100, 300, 1000, 3000)


def main() -> None:
    print(json.dumps(machine(1)), flush=True)
    for T in tqdm(STEPS, unit="length", disable=None, file=sys.stderr):
        record = {**TASKS["long"]._asdict(), "T": T, "peaks": peaks("long", 1, T=T)}
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
