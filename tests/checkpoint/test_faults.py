"""What happens to checkpoints when writers are killed, disks are full and bytes are wrong."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastgd
from fastgd.checkpoint import _atomic_file, _npz
from tests.checkpoint.objects import everything, files, gradients, like, trained
from tests.support import child_environment


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.npz"


def run(code: str, *arguments: Any) -> str:
    """What a Python program prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env=child_environment(OMP_NUM_THREADS="1"),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---------------------------------------------------------------- killed writers

# Each child goes on from the last checkpoint and saves after every step, until it is killed at a
# moment that is random in relation to its saves. All arrays of step n are full of n.
KILLED = """
import os, random, signal, sys, time
import numpy as np
import fastgd

path = sys.argv[1]

def load():
    opt = fastgd.SGD([np.zeros(n) for n in (40_000, 1, 20_000)], momentum=0.5)
    metadata = fastgd.load(path, opt).metadata
    arrays = [*opt.params.values(), *(opt.state[name]["momentum_buffer"] for name in opt.params)]
    assert {float(x) for array in arrays for x in np.unique(array)} == {float(opt.step_count)}
    assert metadata == {"step": opt.step_count}
    return opt

def save(opt, step):
    for array in [*opt.params.values(), *(opt.state[n]["momentum_buffer"] for n in opt.params)]:
        array[...] = step
    opt.load_state_dict(opt.state_dict() | {"step_count": step})
    fastgd.save(path, opt, metadata={"step": step})

first = fastgd.SGD([np.zeros(n) for n in (40_000, 1, 20_000)], momentum=0.5)
save(first, 0)
began = time.perf_counter()
for step in range(1, 6):
    save(first, step)
duration = (time.perf_counter() - began) / 5
chance = random.Random(1)
step, leftovers, advances = first.step_count, 0, 0
for _ in range(200):
    child = os.fork()
    if not child:
        try:
            while True:
                step += 1
                save(first, step)
        finally:
            os._exit(1)
    time.sleep(duration * chance.uniform(0, 3))
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    leftovers += len(os.listdir(os.path.dirname(path))) > 1
    loaded = load().step_count
    assert loaded >= step
    advances += loaded > step
    step = loaded
save(first, step + 1)
print(leftovers, advances, len(os.listdir(os.path.dirname(path))), load().step_count == step + 1)
"""


def test_killed_200_times(path: Path) -> None:
    """After SIGKILL at any moment the last checkpoint or the next one is there, and loads."""
    leftovers, advances, entries, last = run(KILLED, path).split()
    assert int(leftovers) > 20, "writers should have been killed in the middle of writing"
    assert int(advances) > 20, "writers should have been killed after saving"
    assert entries == "1", "the next save removes what killed writers have left"
    assert last == "True"


def test_interrupted(rng: np.random.Generator, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opt = trained(rng)
    fastgd.save(path, opt)
    before = path.read_bytes()

    def interrupt(fd: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fastgd.save(path, opt)
    assert path.read_bytes() == before
    assert files(path.parent) == ["run.npz"]


def test_only_leftovers_are_removed(rng: np.random.Generator, path: Path) -> None:
    others = [
        ".run.npz.0123456.tmp",
        ".run.npz.01234567.tmp~",
        "run.npz.01234567.tmp",
        ".run.npz.0123456g.tmp",
        ".other.npz.01234567.tmp",
        ".runXnpz.01234567.tmp",
    ]
    for name in [*others, ".run.npz.01234567.tmp"]:
        (path.parent / name).write_bytes(b"x")
    (path.parent / ".run.npz.76543210.tmp").symlink_to("run.npz")
    fastgd.save(path, trained(rng))
    assert files(path.parent) == sorted([*others, ".run.npz.76543210.tmp", "run.npz"])


def test_writer_at_work_is_left_alone(rng: np.random.Generator, path: Path) -> None:
    with _atomic_file.replacing(str(path)) as file:
        file.write(b"the other one")
        fastgd.save(path, trained(rng))
        assert len(files(path.parent)) == 2
    assert path.read_bytes() == b"the other one"


def test_writer_taken_for_a_leftover(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the creation of its file and the lock on it, once: it makes another."""
    lock, removed = _atomic_file.fcntl.flock, []

    def remove_first(fd: int, operation: int) -> None:
        if not removed:
            removed.extend(path.parent.iterdir())
            removed[0].unlink()
        lock(fd, operation)

    monkeypatch.setattr(_atomic_file.fcntl, "flock", remove_first)
    with _atomic_file.replacing(str(path)) as file:
        file.write(b"x")
    assert len(removed) == 1
    assert files(path.parent) == ["run.npz"]


# ---------------------------------------------------------------- full and failing disks

FULL = """
import errno, os, resource, sys
import numpy as np
import fastgd

path, limit = sys.argv[1], int(sys.argv[2])
opt = fastgd.Adam(np.zeros(20_000))
fastgd.save(path, opt, metadata={"which": "old"})
size = os.path.getsize(path)
opt.step(np.ones(20_000))
resource.setrlimit(resource.RLIMIT_FSIZE, (size * limit // 100, resource.RLIM_INFINITY))
try:
    fastgd.save(path, opt, metadata={"which": "new"})
except OSError as error:
    print(type(error).__name__, error.errno == errno.EFBIG, error.filename == path, error.strerror)
else:
    print("saved")
print(fastgd.load(path, opt).metadata["which"], opt.step_count, os.listdir(os.path.dirname(path)))
"""


@pytest.mark.parametrize("percent", [0, 1, 50, 99])
def test_full_disk(percent: int, path: Path) -> None:
    told, left = run(FULL, path, percent).splitlines()
    assert told == (
        "OSError True True File too large; the checkpoint was not saved, and an older one is as it was"
    )
    assert left == "old 0 ['run.npz']"


def test_no_limit_reached(path: Path) -> None:
    assert run(FULL, path, 200).splitlines() == ["saved", "new 1 ['run.npz']"]


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, call: str, number: int, code: int) -> Iterator[None]:
    """Let the number-th call of a function of os, or of writing to the file, fail."""
    where, name = (_npz, "_write_all") if call == "write" else (os, call)
    real: Callable[..., Any] = getattr(where, name)
    calls = 0

    def fail(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            raise OSError(code, os.strerror(code))
        return real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(where, name, fail)
        yield
    assert calls >= number


@pytest.mark.parametrize(
    ("call", "number"),
    [
        *(("write", i) for i in range(1, 6)),
        ("fsync", 1),
        ("replace", 1),
        ("fchmod", 1),
        ("open", 1),
        ("open", 2),
        ("listdir", 1),
    ],
)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_failing_calls(
    call: str, number: int, code: int, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opt = fastgd.SGD(np.zeros(10_000))
    fastgd.save(path, opt, metadata={"which": "old"})
    before = path.read_bytes()
    with (
        failing(monkeypatch, call, number, code),
        pytest.raises(OSError, match="the checkpoint was not saved") as caught,
    ):
        fastgd.save(path, opt, metadata={"which": "new"})
    assert (caught.value.errno, caught.value.filename) == (code, str(path))
    assert path.read_bytes() == before
    assert files(path.parent) == ["run.npz"]
    fastgd.save(path, opt, metadata={"which": "new"})  # the optimizer is not stuck
    assert fastgd.load(path, opt).metadata == {"which": "new"}


def test_directory_that_cannot_be_synced(
    rng: np.random.Generator, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with failing(monkeypatch, "fsync", 2, errno.EINVAL):
        fastgd.save(path, trained(rng))
    assert fastgd.load(path).objects


def test_order_of_calls(
    rng: np.random.Generator, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The content is on the disk before the name is given, and the name before save returns."""
    calls = []

    def note(name: str) -> None:
        real = getattr(os, name)

        def noted(*arguments: Any) -> Any:
            kind = "directory" if arguments and arguments[0] == folder else "file"
            calls.append(name if name == "replace" else f"{name} {kind}")
            return real(*arguments)

        monkeypatch.setattr(os, name, noted)

    folder = -1
    real_open = os.open

    def noted_open(name: Any, flags: int, *rest: Any) -> int:
        nonlocal folder
        fd = real_open(name, flags, *rest)
        if flags & os.O_DIRECTORY:
            folder = fd
        return fd

    monkeypatch.setattr(os, "open", noted_open)
    note("fsync")
    note("replace")
    fastgd.save(path, trained(rng))
    assert calls == ["fsync file", "replace", "fsync directory"]


@pytest.mark.parametrize("kind", ["missing directory", "file as directory", "directory", "pipe"])
def test_impossible_places(kind: str, rng: np.random.Generator, path: Path) -> None:
    target = path
    if kind == "missing directory":
        target = path.parent / "no" / "run.npz"
    elif kind == "file as directory":
        path.write_bytes(b"x")
        target = path / "run.npz"
    elif kind == "directory":
        path.mkdir()
    else:
        os.mkfifo(path)
    before = files(path.parent)
    with pytest.raises(OSError, match="the checkpoint was not saved"):
        fastgd.save(target, trained(rng))
    assert files(path.parent) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_directory(rng: np.random.Generator, path: Path) -> None:
    path.parent.chmod(0o500)
    try:
        with pytest.raises(PermissionError, match="the checkpoint was not saved"):
            fastgd.save(path, trained(rng))
    finally:
        path.parent.chmod(0o700)


def test_read_only_file(rng: np.random.Generator, path: Path) -> None:
    """It is replaced, as by any editor that renames, and stays read-only."""
    opt = trained(rng)
    fastgd.save(path, opt)
    path.chmod(0o400)
    opt.step(gradients(opt, rng))
    fastgd.save(path, opt)
    assert fastgd.load(path).objects["optimizer"]["step_count"] == opt.step_count
    assert path.stat().st_mode & 0o777 == 0o400


# ---------------------------------------------------------------- wrong bytes


class Small:
    """A small checkpoint, and what may not happen when a damaged one is loaded."""

    def __init__(self, path: Path, rng: np.random.Generator) -> None:
        self.path = path
        saved = trained(rng, "SGD", momentum=0.9)
        fastgd.save(path, saved, rng=rng, sampler=fastgd.MiniBatches(np.zeros(5)))
        self.content = path.read_bytes()
        self.optimizer = like(saved)
        self.rng = np.random.default_rng(5)
        self.sampler = fastgd.MiniBatches(np.zeros(5), seed=3)
        self.before = self.now()

    def now(self) -> Any:
        return everything(self.optimizer), self.rng.bit_generator.state, self.sampler.state_dict()

    def refuses(self, content: bytes, matches: str) -> None:
        self.path.write_bytes(content)
        self.refuses_now(matches)

    def refuses_change(self, position: int, change: int, matches: str) -> None:
        """One byte, xor `change`, in place: quicker than writing all."""
        with self.path.open("r+b", buffering=0) as file:
            os.pwrite(file.fileno(), bytes([self.content[position] ^ change]), position)
            self.refuses_now(matches)
            os.pwrite(file.fileno(), self.content[position : position + 1], position)

    def refuses_now(self, matches: str) -> None:
        with pytest.raises(fastgd.CheckpointError, match=matches) as caught:
            fastgd.load(self.path, self.optimizer, rng=self.rng, sampler=self.sampler)
        assert str(self.path) in str(caught.value)
        assert "othing was loaded" in str(caught.value)
        with pytest.raises(fastgd.CheckpointError, match=matches):
            fastgd.load(self.path)


@pytest.fixture
def small(path: Path, rng: np.random.Generator) -> Small:
    return Small(path, rng)


@pytest.mark.parametrize("limit", [2**28, 0], ids=["once", "twice"])
def test_every_byte(
    limit: int, small: Small, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each byte of the file, changed to one random other value."""
    monkeypatch.setattr(_npz, "IN_MEMORY", limit)
    assert len(small.content) > 500
    changes = rng.integers(1, 256, size=len(small.content), dtype=np.uint8).tolist()
    for position, change in enumerate(changes):
        small.refuses_change(position, change, "checksum")
    assert small.now() == small.before


def test_every_bit_and_value_of_some_bytes(small: Small, rng: np.random.Generator) -> None:
    tail = range(len(small.content) - 150, len(small.content))  # the end record and the checksum
    for position in (*rng.integers(len(small.content), size=20), *tail[::10]):
        for change in range(1, 256):
            small.refuses_change(position, change, "checksum")
    assert small.now() == small.before


def test_every_truncation(small: Small) -> None:
    for length in reversed(range(len(small.content))):
        os.truncate(small.path, length)
        small.refuses_now("does not end in a checksum")
    assert small.now() == small.before


def test_more_than_a_byte(small: Small, rng: np.random.Generator) -> None:
    content, n = small.content, len(small.content)
    for _ in range(100):
        low, high = sorted(rng.integers(n, size=2).tolist())
        if low == high:
            continue
        small.refuses(content[:low] + content[high:], "checksum")  # a piece is missing
        small.refuses(content[:high] + content[low:], "checksum")  # a piece is doubled
        if any(content[low:high]):
            small.refuses(content[:low] + bytes(high - low) + content[high:], "checksum")
    small.refuses(content + b"\n", "does not end in a checksum")
    small.refuses(b"\n" + content, "checksum")
    small.refuses(content.replace(b"\n", b"\r\n"), "checksum")
    small.refuses(content + content[:-1] + b"?", "checksum")
    assert small.now() == small.before


def test_the_whole_file_still_loads(small: Small) -> None:
    """Or the tests above would show nothing."""
    fastgd.load(small.path, small.optimizer, rng=small.rng, sampler=small.sampler)
    assert small.now() != small.before
