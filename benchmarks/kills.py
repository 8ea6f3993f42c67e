"""Stop every verb that writes at random moments, resume it, and compare it with one that was never stopped.

SIGKILL, and now and then Ctrl-C or SIGTERM, at moments that a seed decides. After each, nothing that was finished may
be gone, every file must be whole and no process be left; in the end designs, scores, weights and engines must be those
of the unbroken run. Nothing that is compared depends on a measured latency.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a process that is forked after torch was imported has no other thread
sys.path.append(str(Path(__file__).parents[1] / "tests" / "shelf"))

from _common import Outcome, Row, main, say
from chain import make_workplace
from safetensors import safe_open
from safetensors.numpy import load_file

from edgemtl import export as _export  # noqa: F401 (imported before the fork: torch takes seconds)
from edgemtl.bundle import read_manifest
from edgemtl.cli import main as edgemtl
from edgemtl.nas.evaluation import finished, open_storage, open_study
from edgemtl.profiling import read_profile
from edgemtl.results import read_result
from edgemtl.train import loop as _loop

KILLS, QUICK_KILLS, MOST_A_RUN = 300, 30, 4
END_SECONDS, GRACE_SECONDS = 120.0, 10.0
LEFT_BEHIND = (".edgemtl", ".new", ".lock", ".moving.json")
TINY = ("--space", "tiny", "--data", "data")
USERS_FILE = "notes.txt"


@dataclass(frozen=True)
class Verb:
    """A verb under test: its command for a place `out`, how much it has finished there, and what it answers.

    `begun` is the file from which on it is resumed ("": it is just called again); `share` of the kills are its.
    """

    words: Callable[[Path], list[str]]
    done: Callable[[Path], int]
    answer: Callable[[Path], Any]
    begun: str = ""
    share: float = 0.2


def steps(out: Path) -> int:
    """Steps of the checkpoint."""
    with safe_open(out / "checkpoint.safetensors", "np") as file:
        return int(json.loads(file.metadata()["edgemtl"])["step"])


def weights(out: Path) -> Any:
    tensors = load_file(out / "supernet.safetensors")
    scores = json.loads((out / "training.json").read_text())["validation"]
    return {name: value.tolist() for name, value in tensors.items()}, scores


def evaluated(out: Path) -> int:
    return len(finished(open_study("search", open_storage(out / "study.journal"))))


def designs(out: Path) -> Any:
    """Every design of the result with its scores, and the files that are kept of each."""
    kept = sorted(path.relative_to(out).as_posix() for path in (out / "designs").rglob("*.safetensors"))
    front = read_result(out).front
    return [(entry.name, entry.design, entry.metrics, entry.feasible) for entry in front], kept


def groups(out: Path) -> Any:
    return designs(out), json.loads((out / "pruning.json").read_text())["groups"]


def engines(out: Path) -> Any:
    """The hashes of the new engine's files; another target's and a user's own file must have stayed."""
    manifest = read_manifest(out)
    assert (out / USERS_FILE).exists() == ("streaming" in manifest.targets)
    return {name: digest for name, digest in manifest.files.items() if "onnxruntime" in name}


VERBS = {
    "train": Verb(
        lambda out: ["train", *TINY, "--steps", "40", "--batch", "4", "--sizes", "1", "--out", str(out)],
        steps, weights, "checkpoint.safetensors",
    ),
    "tune": Verb(
        lambda out: ["train", "--run", "run", "--steps", "30", "--batch", "4", "--sizes", "1", "--out", str(out)],
        lambda out: steps(out / "training"), designs, "config.json", 0.1,
    ),
    "search": Verb(
        lambda out: ["search", *TINY, "--supernet", "supernet/supernet.safetensors", "--target", "tensorrt-rtx",
                     "--budget", "70%FLOPs", "--evaluations", "15", "--finetune", "12", "--out", str(out)],
        evaluated, designs, "config.json", 0.25,
    ),
    "prune": Verb(
        lambda out: ["prune", "run", "--budget", "75%FLOPs", "--out", str(out)],
        lambda out: len((out / "trials.jsonl").read_text().splitlines()), groups, "config.json", 0.15,
    ),
    "export": Verb(
        lambda out: ["export", "run", "--target", "onnxruntime", "--out", str(out)],
        lambda out: len(read_manifest(out).targets), engines,
    ),
    "profile": Verb(
        lambda out: ["profile", "bundle", "--runs", "30", "--threads", "1", "--out", str(out)],
        lambda out: len(read_profile(out).modes), lambda out: [mode.tasks for mode in read_profile(out).modes],
        "", 0.05,
    ),
    "report": Verb(
        lambda out: ["report", "run", "--out", str(out)], lambda out: out.stat().st_size, lambda out: out.read_text(),
        "", 0.05,
    ),
}  # fmt: skip


def start(words: list[str]) -> int:
    """The command in a process of its own, forked from this one; its id, which is that of its group too."""
    process = os.fork()
    if process:
        return process
    try:
        os.setsid()
        log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.argv = ["edgemtl", *words]
        os._exit(edgemtl(words))
    finally:
        os._exit(70)


def ended(process: int, seconds: float) -> int | None:
    """The exit code of a process (negative: a signal), once it ends within so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            return None
        time.sleep(0.002)


def stop(process: int, rng: random.Random) -> Iterator[str]:
    """Stop a process by one signal, or by two; yields what is wrong with how it ends."""
    number = rng.choices([signal.SIGKILL, signal.SIGINT, signal.SIGTERM], [8, 1, 1])[0]
    os.kill(process, number)
    code, right = ended(process, 0.1 if rng.random() < 0.5 else END_SECONDS), [130, 0]
    if code is None:  # a second one ends it at once, be it while it says goodbye
        os.kill(process, number)
        code, right = ended(process, END_SECONDS), [130, 0, -number]
    if code is None:
        os.kill(process, signal.SIGKILL)
        code = ended(process, END_SECONDS)
        yield f"did not end after {number.name}"
    elif code not in ([-signal.SIGKILL, 0] if number == signal.SIGKILL else right):
        yield f"ended with {code} after {number.name}: {last_words()}"
    elif code == 130 and not last_words().startswith("interrupted: "):
        yield f"said after {number.name}: {last_words()}"
    deadline = time.monotonic() + GRACE_SECONDS
    while children := members(process):
        if time.monotonic() > deadline:
            os.killpg(process, signal.SIGKILL)
            yield f"left {len(children)} processes behind"
            break
        time.sleep(0.05)


def members(group: int) -> list[str]:
    """The processes of a group that live."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            state, _, of = path.read_text().rpartition(")")[2].split()[:3]
            found += [path.parent.name] if of == str(group) and state != "Z" else []
    return found


def last_words() -> str:
    """The last line of the command's output."""
    return (Path("log.txt").read_text(errors="replace").splitlines() or [""])[-1][:300]


def damage(out: Path) -> Iterator[str]:
    """Yield faults of the files of a folder, or of a file; hidden ones may be half-written."""
    for path in [out, *out.rglob("*")] if out.exists() else []:
        inside = path.relative_to(out.parent)
        if not path.is_file() or any(part.startswith(".") for part in inside.parts):
            continue
        try:
            if path.name == "manifest.json":
                read_manifest(path.parent)
            elif path.name == "result.json":
                read_result(path.parent)
            elif path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix == ".safetensors":
                with safe_open(path, "np") as file:
                    [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118 (no mapping)
        except Exception as error:  # whatever it is, the file is damaged
            yield f"{inside}: {error}"


def progress(verb: Verb, out: Path) -> int:
    """How much is finished; 0 where nothing is there yet."""
    try:
        return verb.done(out)
    except (OSError, ValueError):
        return 0
    except Exception as error:
        return 0 if "No such file" in str(error) or "is no bundle" in str(error) else -1


def prepare(name: str, out: Path, rng: random.Random) -> None:
    """Prepare the place: an export meets a bundle of another target, with a user's own file in it, or nothing."""
    if name == "export" and rng.random() < 0.6:
        shutil.copytree("streaming", out)


def one_run(name: str, out: Path, seconds: float, kills: int, rng: random.Random) -> tuple[int, list[str]]:
    """Run a verb to its end, stopped at most so often; how often it was, and what was lost."""
    verb, killed, lost = VERBS[name], 0, list[str]()
    prepare(name, out, rng)
    before = progress(verb, out)
    while True:
        resume = ["--resume"] if verb.begun and (out / verb.begun).is_file() else []
        process = start([*verb.words(out), *resume])
        patience = rng.uniform(0, 1.05 * seconds) if killed < kills else END_SECONDS
        code = ended(process, patience)
        if code is not None:
            break
        killed += 1
        lost += [*stop(process, rng), *damage(out)]
        now = progress(verb, out)
        if now < before:
            lost.append(f"{before} were finished, {now} are left")
        before = now
    if code:
        lost.append(f"ended with {code}: {last_words()}")
    if out.is_dir():
        lost += [f"left behind: {path.relative_to(out)}" for path in out.rglob("*") if path.name.endswith(LEFT_BEHIND)]
    lost += [f"left behind: {path.name}" for path in out.parent.glob(f".{out.name}.*")]
    return killed, lost


def unbroken(name: str, out: Path) -> tuple[Any, float]:
    """The answer of a verb that is not stopped, and how long it took."""
    started = time.monotonic()
    code = ended(start(VERBS[name].words(out)), 10 * END_SECONDS)
    if code:
        raise SystemExit(f"{name} failed unbroken: {last_words()}")
    return VERBS[name].answer(out), time.monotonic() - started


def make_world() -> dict[str, tuple[Any, float]]:
    """Make what every verb reads, by the verbs themselves; each one's answer and seconds."""
    make_workplace(Path())
    folders = {"train": "supernet", "search": "run", "tune": "tuned", "prune": "pruned", "export": "bundle"}
    files = {"profile": "profile.json", "report": "report.html"}
    found = {name: unbroken(name, Path(position)) for name, position in {**folders, **files}.items()}
    streaming = start(["export", "run", "--target", "streaming", "--out", "streaming"])
    if ended(streaming, END_SECONDS):
        raise SystemExit(f"export failed unbroken: {last_words()}")
    (Path("streaming") / USERS_FILE).write_text("mine")
    return found


def run(options: argparse.Namespace) -> Outcome:
    """Stop each verb its share of the kills."""
    wanted, rng = options.kills or (QUICK_KILLS if options.quick else KILLS), random.Random(options.seed)
    _loop.CHECKPOINT_SECONDS /= 600  # a tenth of a second, so that a run of a second has some
    raw: dict[str, Any] = {"seed": options.seed}
    home = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="edgemtl-kills-") as scratch:
        os.environ["EDGEMTL_CACHE"] = str(Path(scratch) / "cache")
        os.chdir(scratch)
        try:
            world = make_world()
            for name, verb in VERBS.items():
                killed, runs, lost = 0, 0, list[str]()
                answer, seconds = world[name]
                while killed < round(verb.share * wanted):
                    runs += 1
                    out = Path(f"{name}-{runs}")
                    most = min(MOST_A_RUN, round(verb.share * wanted) - killed)
                    more, found = one_run(name, out, seconds, most, rng)
                    if not found and verb.answer(out) != answer:
                        found = ["the answer differs from the unbroken one's"]
                    for each in found:
                        say(f"{name}, run {runs}: {each}")
                    killed, lost = killed + more, lost + found
                say(f"{name}: {killed} kills in {runs} runs, {len(lost)} lost")
                raw[name] = {"kills": killed, "runs": runs, "unbroken_s": round(seconds, 2), "lost": lost}
        finally:
            os.chdir(home)
    kills = sum(raw[name]["kills"] for name in VERBS)
    lost = sum(len(raw[name]["lost"]) for name in VERBS)
    least = None if options.quick or options.kills else 100
    return Outcome([Row("lost", lost, "", 0, 0), Row("kills", kills, "", least, KILLS, False)], raw)


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kills", type=int, help=f"how many; {KILLS} by default")
    parser.add_argument("--seed", type=int, default=0)


if __name__ == "__main__":
    main(run, __doc__, add)
