"""Stop a conversion at every operation that changes the disk, then run the same command. Is the archive whole.

    python -m tools.crash_convert            # 3 qualities, random kills; writes tools/results/crash_convert.json
    python -m tools.crash_convert --quick    # lossless alone, no kills, no result file

Operations are seen by an audit hook of the interpreter (open for writing, mkdir, rename, remove, rmdir, link,
truncate) and around os.write and os.fsync, so that nothing that touches the destination can be missed. At each
of them, in a forked process, the conversion

* dies before it (dying after one is dying before the next; after the last one too),
* dies in the middle of a write, half of the bytes written,
* gets ENOSPC or EIO from it.

Then the same command runs undisturbed; the archive must equal, byte for byte, one that was never disturbed.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DIED = 70
_EVENTS = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.truncate"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass(frozen=True)
class Case:
    """A disturbance: what happens at which operation. Operation 0 is none."""

    kind: str
    at: int


class Disturbance:
    """Counts the operations below a folder, and acts at one of them."""

    def __init__(self, folder: Path, case: Case, log: Path | None = None) -> None:
        self.folder, self.case, self.count = os.fspath(folder), case, 0
        self.log: list[str] | None = [] if log else None
        self.where = log
        self.busy = False
        self._write, self._fsync = os.write, os.fsync

    def install(self) -> None:
        """Watch this process, for good."""
        sys.addaudithook(self._audit)
        os.write, os.fsync = self._on_write, self._on_fsync  # type: ignore[assignment]

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = args
            if not isinstance(flags, int) or not flags & _WRITING or not self._inside(path):
                return
        elif event in _EVENTS:
            relative = any(isinstance(a, int) and a > 2 for a in args[1:])  # given by a folder's handle
            if not relative and not any(self._inside(a) for a in args[:2]):
                return
        else:
            return
        self._operation(event, args[0])

    def _inside(self, path: Any) -> bool:
        return isinstance(path, str | bytes | os.PathLike) and os.fsdecode(path).startswith(self.folder)

    def _of_handle(self, handle: int) -> str:
        try:
            return os.readlink(f"/proc/self/fd/{handle}")
        except OSError:
            return ""

    def _on_write(self, handle: int, data: Any) -> int:
        path = self._of_handle(handle)
        if path.startswith(self.folder):
            if self.case.kind == "torn" and self.count + 1 == self.case.at:
                self._write(handle, bytes(data)[: len(data) // 2])
                os._exit(DIED)
            self._operation("write", path)
        return self._write(handle, data)

    def _on_fsync(self, handle: int) -> None:
        path = self._of_handle(handle)
        if path.startswith(self.folder):
            self._operation("fsync", path)
        self._fsync(handle)

    def _operation(self, name: str, path: Any) -> None:
        if self.busy:
            return
        self.busy = True
        try:
            self.count += 1
            if self.log is not None and self.where is not None:
                self.log.append(f"{name} {os.fsdecode(path) if not isinstance(path, int) else path}")
            if self.count == self.case.at:
                self._act(name)
        finally:
            self.busy = False

    def _act(self, name: str) -> None:
        if self.case.kind == "die":
            os._exit(DIED)
        number = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO}.get(self.case.kind)
        if number is not None:
            raise OSError(number, os.strerror(number))


def scratch() -> tempfile.TemporaryDirectory[str]:
    """Return a temporary folder; in memory where there is such a place, for there are thousands of fsyncs."""
    memory = Path("/dev/shm")  # noqa: S108 - the name in it is random
    return tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)


def in_child(action: Callable[[], int], log: Path) -> int:
    """Run an action in a forked process; return its exit code, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            sys.stdout = sys.stderr = log.open("w")
            signal.alarm(120)
            code = action()
        except BaseException as error:  # the child must never return into the parent's code
            print(f"{type(error).__name__}: {error}", flush=True)
            code = 98
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def tree(folder: Path) -> dict[str, str]:
    """Return the digest of every file of an archive but its journal and its lock, which tell of the runs."""
    out = {}
    for path in sorted(folder.rglob("*")):
        key = path.relative_to(folder).as_posix()
        if path.is_file() and key not in (".inrstore/journal.jsonl", ".inrstore/lock"):
            out[key] = hashlib.sha256(path.read_bytes()).hexdigest()
    return out


def beside(folder: Path) -> list[str]:
    """Return what lies beside an archive and does not belong there."""
    return sorted(
        p.name for p in folder.parent.iterdir() if p.name.startswith((folder.name, ".inrstore-")) and p != folder
    )


def make_source(folder: Path, *, smooth: bool = False) -> Path:
    """Write three small images with a sidecar; return their folder. A network pays for a smooth one."""
    import nibabel
    import numpy as np

    source = folder / "source"
    source.mkdir()
    rng = np.random.default_rng(3)
    for name, shape in (("a", (9, 8, 6)), ("b", (6, 5, 4, 3)), ("c", (7, 6, 5))):
        if smooth and name == "b":
            shape = (24, 20, 16, 6)
            axes = np.meshgrid(*(np.linspace(0, 3, n) for n in shape), indexing="ij", sparse=True)
            values = 1000 + 400 * sum(np.sin(axis + i) for i, axis in enumerate(axes)) + rng.normal(0, 40, shape)
            values = values.astype(np.int16)
        else:
            values = (rng.normal(0, 3, shape) + 50).astype(np.int16)
        nibabel.Nifti1Image(values, np.eye(4)).to_filename(source / f"{name}.nii.gz")
    (source / "a.json").write_text('{"EchoTime": 0.08}')
    return source


def convert(source: Path, archive: Path, options: dict[str, Any]) -> int:
    """Convert as the command line does; return 0, or 1 with a message when something failed."""
    import inrstore
    from inrstore.errors import InrstoreError

    try:
        report = inrstore.convert(source, archive, **options)
    except InrstoreError as error:
        print(f"inrstore: {error}", flush=True)
        return 1
    for outcome in report.failures:
        print(f"inrstore: {outcome['key']}: {outcome['reason']}", flush=True)
    return 1 if report.failed else 0


class Trial:
    """Conversions of one source, disturbed and not."""

    def __init__(self, folder: Path, options: dict[str, Any]) -> None:
        self.folder, self.options = folder, options
        self.source = make_source(folder, smooth="psnr" in options)
        self.archive = folder / "archive"
        self.log = folder / "log.txt"
        self.before = tree(self.source)
        # What is imported before the fork need not be imported in every child.
        import zarr  # noqa: F401

        if "psnr" in options:
            import inrstore.chunk.inr.fit.search  # noqa: F401
        with tempfile.TemporaryDirectory() as warm:
            convert(self.source, Path(warm) / "archive", {"lossless": True})
        code = self.run(Case("none", 0), keep_log=True)
        if code != 0:
            raise SystemExit(f"the undisturbed conversion failed: {self.log.read_text()}")
        self.wanted = tree(self.archive)
        self.operations = (folder / "operations.txt").read_text().splitlines()

    def clear(self) -> None:
        """Remove the archive and what lies beside it."""
        for path in self.folder.iterdir():
            if path.name.startswith(("archive", ".inrstore-")):
                shutil.rmtree(path)

    def act(self) -> int:
        """Do what is to be disturbed; return 0, or 1 with a message when something failed."""
        return convert(self.source, self.archive, self.options)

    def run(self, case: Case, keep_log: bool = False) -> int:
        """Do it once, disturbed."""

        def action() -> int:
            watch = Disturbance(self.archive, case, self.folder / "operations.txt" if keep_log else None)
            watch.install()
            code = self.act()
            if keep_log and watch.log is not None:
                (self.folder / "operations.txt").write_text("\n".join(watch.log))
            return code

        return in_child(action, self.log)

    def check(self, case: Case) -> str:
        """Disturb, then run the same command; return what is wrong, or nothing."""
        self.clear()
        code = self.run(case)
        said = self.log.read_text()
        if case.kind in ("die", "torn"):
            if code not in (DIED, 0):
                return f"ended with {code}: {said}"
        elif code not in (0, 1):
            return f"ended with {code}: {said}"
        elif code == 1 and os.strerror(getattr(errno, case.kind)) not in said:
            return f"the message does not say what happened: {said}"
        code = self.run(Case("none", 0))
        if code != 0:
            return f"the same command failed with {code}: {self.log.read_text()}"
        return self.compare()

    def compare(self) -> str:
        """Return how the archive differs from the undisturbed one, or nothing."""
        found = tree(self.archive)
        if found != self.wanted:
            names = sorted(k for k in {*found, *self.wanted} if found.get(k) != self.wanted.get(k))
            return f"differs in {names[:6]}"
        if beside(self.archive):
            return f"left behind {beside(self.archive)}"
        return "" if tree(self.source) == self.before else "the source was changed"


def matrix(trial: Trial, kinds: tuple[str, ...], stride: int = 1) -> list[Case]:
    """Return every disturbance of every operation."""
    cases = []
    for kind in kinds:
        for at, text in enumerate(trial.operations, 1):
            if kind == "torn" and not text.startswith("write "):
                continue
            if at % stride == 0 or stride == 1:
                cases.append(Case(kind, at))
    if "die" in kinds:
        cases.append(Case("die", len(trial.operations) + 1))
    return cases


def random_kills(trial: Trial, count: int, seed: int) -> list[str]:
    """Kill the real command at random times; return what went wrong."""
    rng = random.Random(seed)  # noqa: S311 - times, not secrets
    flags: list[str] = []
    for name, value in trial.options.items():
        flags += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    command = [sys.executable, "-m", "inrstore.cli", "convert", str(trial.source), str(trial.archive), *flags]
    trial.clear()
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    whole = time.perf_counter() - start
    wrong = [f"the command line: {text}"] if (text := trial.compare()) else []
    killed = 0
    for number in range(count):
        trial.clear()
        # The first part of a run imports packages: kills belong where files are written.
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
        until = time.perf_counter() + 30
        while not trial.archive.exists() and process.poll() is None and time.perf_counter() < until:
            time.sleep(0.002)
        try:
            process.wait(rng.uniform(0, whole * 0.6))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.wait()
        if (code := trial.run(Case("none", 0))) != 0:
            wrong.append(f"kill {number}: the same command failed with {code}: {trial.log.read_text()}")
        elif text := trial.compare():
            wrong.append(f"kill {number}: {text}")
    print(f"{killed} of {count} runs were killed before they ended", flush=True)
    return wrong


def modes(archive: Path) -> dict[str, int]:
    """Return how many chunks of an archive are in each mode."""
    import inrstore

    return dict(inrstore.info(archive).modes)


def main() -> None:
    """Run everything and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="lossless only, no result file")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    from tools.environment import describe

    results: dict[str, Any] = {"environment": describe("nibabel"), "seed": options.seed, "runs": []}
    failed = 0
    wishes: list[dict[str, Any]] = [{"lossless": True}]
    if not options.quick:
        wishes += [{"max_error": 2}, {"psnr": 28, "preset": "fast"}]
    for wish in wishes:
        with scratch() as folder:
            trial = Trial(Path(folder), wish)
            # A fit takes seconds: with networks only some operations are tried.
            cases = matrix(trial, ("die", "torn", "ENOSPC", "EIO"), stride=197 if "psnr" in wish else 1)
            start = time.perf_counter()
            wrong = {}
            for case in cases:
                if text := trial.check(case):
                    wrong[f"{case.kind} at {case.at}"] = text
                    print(f"{wish}: {asdict(case)}: {text}", flush=True)
            kills = 0 if options.quick else options.kills if "lossless" in wish else options.kills // 40
            wrong |= dict(enumerate(random_kills(trial, kills, options.seed))) if kills else {}
            failed += len(wrong)
            run = {
                "options": wish,
                "modes": modes(trial.archive),
                "operations": len(trial.operations),
                "disturbances": len(cases),
                "random_kills": kills,
                "wrong": len(wrong),
                "seconds": round(time.perf_counter() - start, 1),
            }
            print(json.dumps(run), flush=True)
            results["runs"].append(run)
    if not options.quick:
        path = ROOT / "tools" / "results" / "crash_convert.json"
        path.write_text(json.dumps(results, indent=2) + "\n")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
