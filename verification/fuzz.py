"""Every reader on damaged inputs: each is read or refused; no crash, no hang, no other error, no gigabytes.

    python verification/fuzz.py > fuzz.jsonl                # two million inputs
    python verification/fuzz.py --share 0.001 --seed 7
    python verification/fuzz.py --reader from_onnx --number 1234   # that one input again, with its traceback

The inputs of a seed are the same every time, numbered from 0. Processes of their own read them, a
thousand or so each, with a limit on the CPU time of one input and on memory; whatever ends such a
process is a fault, and so is any exception that the reader does not document. Lines of JSON: the
machine, then one a reader; status 1 if there were faults.
"""

import argparse
import collections
import json
import mmap
import os
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

from readers import all_readers, input_of, put

from cylstm._system import versions

COUNTS = {  # of inputs; fewer where reading one takes long
    "JSON bodies": 500_000, "raw bodies": 300_000, "read_csv": 200_000, "read_csv, no header, gaps": 200_000,
    "read_ts": 300_000, "read_sequences, labels": 100_000, "cylstm.load": 100_000,
    "cylstm.load, signed again": 100_000, "kinds of models, signed again": 50_000, "checkpoints": 50_000,
    "resume=True, signed again": 5_000, "from_torch": 100_000, "from_onnx": 30_000,
    "from_keras, HDF5": 30_000, "from_keras, archive": 30_000, "from_keras, in the archive": 20_000,
}  # fmt: skip
SECONDS = 10  # of CPU time for one input
SLEEP = (
    1800  # seconds after which one that does nothing is taken to hang; the machine may be stopped meanwhile
)
MEMORY = 2 << 30  # bytes of address space above what a process begins with
CHUNK = 5.0  # seconds after which a process is replaced by a new one
FAULTS = 20  # of one reader, after which it is given up


def read_one(reader, folder, seed, number):
    """Whether the input was read; its fault as text, if there is one."""
    content = input_of(reader, seed, number)
    try:
        reader.read(put(reader, folder, content))
    except reader.allowed:
        return "refused", None
    except Exception:
        return "fault", traceback.format_exc()
    return "read", None


def child(reader, folder, seed, numbers, place, pipe):
    """Read inputs until the time is over; what became of them goes into the pipe."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")  # NumPy's, of what damaged weights hold
    done, faults, end = collections.Counter(), [], time.monotonic() + CHUNK
    for number in numbers:
        place[:8] = struct.pack("q", number)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # whose signal, and alarm's, end a process
        signal.alarm(SLEEP)
        outcome, fault = read_one(reader, folder, seed, number)
        done[outcome] += 1
        if fault:
            faults.append([number, fault])
        if time.monotonic() > end:
            break
    pipe.write(json.dumps([number, done, faults[:FAULTS]]))
    pipe.close()
    os._exit(0)


def fuzz(name, reader, seed, count):
    """What became of `count` inputs."""
    begin, done, faults, first = time.monotonic(), collections.Counter(), [], 0
    place = mmap.mmap(-1, 8)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        for content in reader.good:
            reader.read(put(reader, folder, content))
        while first < count and len(faults) < FAULTS:
            read_end, write_end = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.close(read_end)
                child(reader, folder, seed, range(first, count), place, os.fdopen(write_end, "w"))
            os.close(write_end)
            with os.fdopen(read_end) as pipe:
                report = pipe.read()
            status = os.waitpid(pid, 0)[1]
            if status == 0 and report:
                number, some, found = json.loads(report)
            else:
                number = struct.unpack("q", place[:8])[0]
                ended = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else status
                some, found = {"fault": 1, "before a crash": number - first}, [[number, f"ended by {ended}"]]
            done.update(some)
            faults += found
            first = number + 1
    return {
        "reader": name,
        "seed": seed,
        "inputs": first,
        **done,
        "seconds": round(time.monotonic() - begin, 1),
        "faults": faults[:FAULTS],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0, help="of the numbers of inputs")
    parser.add_argument("--reader", action="append", choices=COUNTS, help="these only")
    parser.add_argument("--number", type=int, help="read one input again")
    options = parser.parse_args()
    known = all_readers()
    chosen = options.reader or list(COUNTS)
    if options.number is not None:
        for name in chosen:
            content = input_of(known[name], options.seed, options.number)
            print(content)
            with tempfile.TemporaryDirectory() as folder:
                print(known[name].read(put(known[name], folder, content)))
        return
    print(json.dumps({**versions.describe(), "seed": options.seed}), flush=True)
    wrong = 0
    for name in chosen:
        result = fuzz(name, known[name], options.seed, max(1, round(COUNTS[name] * options.share)))
        print(json.dumps(result), flush=True)
        wrong += len(result["faults"])
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
