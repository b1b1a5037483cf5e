r"""A step over parameters, gradients and state in files, in bounded memory, against the disk's own rate.

    python -m bench.steps.files [--elements 1073741824] [--resident 536870912] [--limit 1073741824]
                                [--folder DIR] [--state-dtype 8bit]

The bound is the time in which as many bytes are read, and as many written, one file after the other. With
--limit the step runs in a process that a control group limits to so many bytes, the files' pages included
(needs root, and control groups of version 1 or 2).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import fastgd

BLOCK = 1 << 24


def drop_caches() -> bool:
    """Whether nothing of the files is in memory any more."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("1")
    except OSError:
        return False
    return True


def sequential(folder: Path, read: int, written: int) -> tuple[float, float]:
    """Seconds to write and to read so many bytes."""
    path, block = folder / "disk", bytearray(BLOCK)
    begin = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for _ in range(written // BLOCK):
            file.write(block)
        os.fsync(file.fileno())
    writing = time.perf_counter() - begin
    drop_caches()
    begin = time.perf_counter()
    left = read
    with path.open("rb", buffering=0) as file:
        while left > 0:
            got = file.readinto(block)
            if got < BLOCK:
                file.seek(0)
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            left -= BLOCK
    reading = time.perf_counter() - begin
    path.unlink()
    return writing, reading


def control_group(limit: int) -> None:
    """Put this process in a control group of so many bytes."""
    root = Path("/sys/fs/cgroup")
    old = (root / "memory").is_dir()
    group = (root / "memory" if old else root) / f"fastgd-{os.getpid()}"
    group.mkdir()
    (group / ("memory.limit_in_bytes" if old else "memory.max")).write_text(str(limit))
    (group / ("tasks" if old else "cgroup.procs")).write_text(str(os.getpid()))


def status(key: str) -> int:
    (line,) = [x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(key)]
    return int(line.split()[1]) << 10


def step(options: argparse.Namespace) -> None:
    """The child: two steps, of which the second counts."""
    folder, n = Path(options.folder), options.elements
    if options.limit:
        control_group(options.limit)
    fastgd.set_resident_bytes(options.resident)
    params, grads = (np.memmap(folder / x, np.float32, "r+", shape=(n,)) for x in ("p", "g"))
    opt = fastgd.AdamW(params, lr=1e-3, state_dir=folder, state_dtype=options.state_dtype)
    opt.step(grads)
    drop_caches()
    begin = time.perf_counter()
    opt.step(grads)
    taken = time.perf_counter() - begin
    # The same two steps of some elements, in memory.
    places = np.random.default_rng(0).integers(0, n, 1000)
    some = np.zeros(len(places), np.float32)
    check = fastgd.AdamW(some, lr=1e-3)
    for _ in range(2):
        check.step(np.asarray(grads[places]))
    off = float(np.abs(params[places] - some).max())
    print(taken, status("VmHWM"), opt.nbytes, off)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--elements", type=int, default=1 << 30)
    parser.add_argument("--resident", type=int, default=1 << 29)
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--folder", default="")
    parser.add_argument("--state-dtype", default=None)
    parser.add_argument("--child", action="store_true")
    options = parser.parse_args()
    if options.child:
        step(options)
        return
    with tempfile.TemporaryDirectory(dir=options.folder or None) as name:
        folder, n = Path(name), options.elements
        for path, value in (("p", 0.0), ("g", 0.01)):
            with (folder / path).open("wb") as file:
                for at in range(0, n, BLOCK):
                    np.full(min(BLOCK, n - at), value, np.float32).tofile(file)
        command = [sys.executable, "-m", "bench.steps.files", "--child", "--folder", name]
        command += ["--elements", str(n), "--resident", str(options.resident)]
        command += ["--limit", str(options.limit)]
        if options.state_dtype:
            command += ["--state-dtype", options.state_dtype]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"the step failed ({done.returncode}): {done.stderr}")
        taken, peak, state, off = map(float, done.stdout.split())
        read, written = int(8 * n + state), int(4 * n + state)
        writing, reading = sequential(folder, read, written)
    bound = writing + reading
    gib = 2.0**30
    print(
        f"{n:,} parameters, {(8 * n + state) / gib:.1f} GiB in files, {options.resident / gib:.2f} GiB "
        f"of it at a time;\nlimit {options.limit / gib:.2f} GiB (0: none), peak {peak / gib:.2f} GiB"
    )
    print(
        f"a step {taken:.1f} s; the disk reads as much in {reading:.1f} s, and writes as much in "
        f"{writing:.1f} s"
    )
    print(f"ratio {taken / bound:.2f}; largest difference from a step in memory {off:.1e}")


if __name__ == "__main__":
    main()
