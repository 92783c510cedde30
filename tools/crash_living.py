"""Stop update, remove, prune and merge at every operation that changes the disk, then run the same command.

    python -m tools.crash_living            # writes tools/results/crash_living.json
    python -m tools.crash_living --quick    # every third operation, no result file

As `tools.crash_convert`, which sees the operations: at each of them the command dies, dies in the middle of a write, or
gets ENOSPC or EIO. Then it runs undisturbed. The archive must equal, byte for
byte, one that was never disturbed; of an image whose source is gone nothing could be made again.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.crash_convert import DIED, ROOT, Case, Trial, convert, in_child, matrix, scratch, tree

COMMANDS = ("update", "remove", "prune", "merge")


def _image(path: Path, seed: int, shape: tuple[int, ...] = (7, 6, 5)) -> None:
    import nibabel
    import numpy as np

    values = (np.random.default_rng(seed).normal(0, 3, shape) + 50).astype(np.int16)
    nibabel.Nifti1Image(values, np.eye(4)).to_filename(path)


class Living(Trial):
    """A command that changes an archive, disturbed and not.

    Parameters
    ----------
    folder : Path
    command : {"update", "remove", "prune", "merge"}
    store : {"ozx", "zarr"}
        What the stores are.
    """

    def __init__(self, folder: Path, command: str, store: str = "ozx") -> None:
        self.folder, self.command = folder, command
        self.source, self.archive, self.log = folder / "source", folder / "archive", folder / "log.txt"
        self.template, self.other = folder / "template", folder / "other"
        self.options = {"lossless": True, "store": store}
        self.source.mkdir()
        for seed, name in enumerate("abcd"):
            _image(self.source / f"{name}.nii.gz", seed)
        (self.source / "a.json").write_text('{"EchoTime": 0.08}')
        assert convert(self.source, self.template, self.options) == 0
        (self.source / "a.nii.gz").unlink()
        if command == "update":
            _image(self.source / "b.nii.gz", 7)
            _image(self.source / "new.nii.gz", 8)
            (self.source / "a.json").write_text('{"EchoTime": 0.1}')
        elif command == "prune":
            import inrstore

            inrstore.update(self.source, self.template)
        else:
            (folder / "theirs").mkdir()
            _image(folder / "theirs/x.nii.gz", 9)
            (folder / "theirs/x.txt").write_text("x")
            assert convert(folder / "theirs", self.other, self.options) == 0
        self.before = tree(self.source)
        self.clear()
        if self.run(Case("none", 0), keep_log=True) != 0:
            raise SystemExit(f"the undisturbed command failed: {self.log.read_text()}")
        self.wanted = tree(self.archive)
        self.operations = (folder / "operations.txt").read_text().splitlines()

    def clear(self) -> None:
        """Have the archive again as it was before the command."""
        for path in self.folder.iterdir():
            if path.name.startswith(("archive", ".inrstore-")):
                shutil.rmtree(path)
        shutil.copytree(self.template, self.archive)

    def act(self) -> int:
        """Run the command; return 0, or 1 with a message when something failed."""
        import inrstore
        from inrstore.errors import InrstoreError

        try:
            if self.command == "update":
                report = inrstore.update(self.source, self.archive)
                for outcome in report.failures:
                    print(f"inrstore: {outcome['key']}: {outcome['reason']}", flush=True)
                return int(not report.complete)
            if self.command == "remove":
                inrstore.remove(self.archive, ["a*", "c*"])
            elif self.command == "prune":
                inrstore.prune(self.archive)
            else:
                inrstore.merge(self.other, self.archive)
        except (InrstoreError, OSError) as error:
            print(f"inrstore: {error}", flush=True)
            return 1
        return 0

    def check(self, case: Case) -> str:
        """Disturb, then run the same command; return what is wrong, or nothing."""
        self.clear()
        code = self.run(case)
        said = self.log.read_text()
        if code not in ((DIED, 0) if case.kind in ("die", "torn") else (0, 1)):
            return f"ended with {code}: {said}"
        code = self.run(Case("none", 0))
        said = self.log.read_text()
        return f"the same command failed with {code}: {said}" if code else self.compare()


def run(command: str, store: str, kinds: tuple[str, ...], stride: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """Disturb a command everywhere; return what came of it."""
    with scratch() as folder:
        trial = Living(Path(folder), command, store)
        cases, start, wrong = matrix(trial, kinds, stride), time.perf_counter(), {}
        for case in cases:
            if text := trial.check(case):
                wrong[f"{case.kind} at {case.at} ({trial.operations[min(case.at, len(trial.operations)) - 1]})"] = text
                tell(f"{command} {store}: {case.kind} at {case.at}: {text}")
        return {"command": command, "store": store, "operations": len(trial.operations), "disturbances": len(cases),
                "wrong": wrong, "seconds": round(time.perf_counter() - start, 1)}  # fmt: skip


def races(count: int, seed: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """Start three commands on one archive at the same time, and again those that lost; return what was wrong."""
    draw, wrong = random.Random(seed), []  # noqa: S311 - choices, not secrets
    held = 0
    for number in range(count):
        with scratch() as folder:
            trial = Living(Path(folder), "merge")
            _image(trial.source / "new.nii.gz", number)
            commands = {
                "update": ["update", trial.source, trial.archive, "--allow-gone"],
                "remove": ["remove", trial.archive, "c*"],
                "prune": ["prune", trial.archive],
                "merge": ["merge", trial.other, trial.archive],
            }
            trial.clear()
            chosen = [draw.choice(COMMANDS) for _ in range(3)]
            running = [
                subprocess.Popen([sys.executable, "-m", "inrstore.cli", *map(str, commands[name])],
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT)
                for name in chosen
            ]  # fmt: skip
            said = [process.communicate(timeout=120)[0].decode() for process in running]
            lost = [text for process, text in zip(running, said, strict=True) if process.returncode]
            held += sum("being written by" in text for text in lost)
            # The second removal of the same finds nothing; every other loser was told that somebody has it.
            strange = [text for text in lost if "being written by" not in text and "nothing in" not in text]
            if strange:
                wrong.append(f"{chosen}: {strange}")
            for name in chosen:  # whoever lost runs again
                subprocess.run([sys.executable, "-m", "inrstore.cli", *map(str, commands[name])], capture_output=True,
                               cwd=ROOT, check=False)  # fmt: skip
            if in_child(lambda archive=trial.archive: _whole(archive), trial.log) != 0:
                wrong.append(f"{chosen}: {trial.log.read_text()}")
            there = {path.name for path in trial.archive.glob("*.ozx")}
            wanted = {"b.ozx", "d.ozx"}
            wanted |= set() if "remove" in chosen else {"c.ozx"}
            wanted |= {"x.ozx"} if "merge" in chosen else set()
            wanted |= {"new.ozx"} if "update" in chosen else set()
            if there - {"a.ozx"} != wanted:  # a.ozx is gone from the source, and stays unless it was pruned after
                wrong.append(f"{chosen}: {sorted(there)}")
            tell(f"race {number}: {chosen}: {len(lost)} lost")
    return {"races": count, "processes": 3 * count, "told who holds it": held, "wrong": wrong, "seed": seed}


def _whole(archive: Path) -> int:
    import inrstore

    inrstore.verify(archive)
    return 0


def main() -> None:
    """Run everything and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="every third operation, no result file")
    parser.add_argument("--races", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    from tools.environment import describe

    raced = races(options.races, options.seed, print)
    print(json.dumps(raced), flush=True)
    runs = []
    for command in COMMANDS:
        for store in ("ozx", "zarr"):
            found = run(command, store, ("die", "torn", "ENOSPC", "EIO"), 3 if options.quick else 1, print)
            print(json.dumps(found), flush=True)
            runs.append(found)
    if not options.quick:
        path = ROOT / "tools" / "results" / "crash_living.json"
        path.write_text(json.dumps({"environment": describe("nibabel"), "races": raced, "runs": runs}, indent=2) + "\n")
    raise SystemExit(1 if raced["wrong"] or any(found["wrong"] for found in runs) else 0)


if __name__ == "__main__":
    main()
