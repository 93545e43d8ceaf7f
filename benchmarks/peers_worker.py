"""One pass of another package over a stream, in its own environment: nothing of ours is imported.

`python peers_worker.py NAME FOLDER ROWS` prints JSON: version, events, seconds and processor
seconds of the pass (reading included where its best path reads), and prequential accuracy. The
folder holds the stream as X.npy, y.npy, stream.vw and stream.arff.
"""

import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

Found = dict[str, Any]
CHUNK = 1000  # rows of scikit-learn's mini-batches


def timed(call: Callable[[], float], n: int, package: str) -> Found:
    """Seconds of a call that returns an accuracy."""
    wall, cpu = time.perf_counter(), time.process_time()
    accuracy = call()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"version": version(package), "events": n, "seconds": wall, "cpu": cpu,
            "accuracy": accuracy}  # fmt: skip


def arrays(folder: Path, n: int) -> tuple[Any, Any]:
    """Features and classes 0, 1 of the first n rows."""
    import numpy as np

    return np.load(folder / "X.npy")[:n], np.load(folder / "y.npy")[:n]


def river(model: str) -> Callable[[Path, int], Found]:
    """Predict and learn event by event, dicts made before."""

    def run(folder: Path, n: int) -> Found:
        from river import linear_model, naive_bayes, preprocessing, tree

        X, y = arrays(folder, n)
        names = [f"x{j}" for j in range(X.shape[1])]
        events = [(dict(zip(names, x, strict=True)), bool(c))
                  for x, c in zip(X.tolist(), y.tolist(), strict=True)]  # fmt: skip
        models: dict[str, Callable[[], Any]] = {
            "logistic": lambda: preprocessing.StandardScaler() | linear_model.LogisticRegression(),
            "tree": tree.HoeffdingTreeClassifier,
            "bayes": naive_bayes.GaussianNB,
        }

        def walk(made: Any) -> float:
            right = 0
            for x, c in events:
                right += made.predict_one(x) == c
                made.learn_one(x, c)
            return right / n

        return timed(lambda: walk(models[model]()), n, "river")

    return run


def sklearn(chunk: int) -> Callable[[Path, int], Found]:
    """partial_fit of a scaler and of logistic regression by SGD, chunk by chunk, asked before."""

    def run(folder: Path, n: int) -> Found:
        from sklearn.linear_model import SGDClassifier
        from sklearn.preprocessing import StandardScaler

        X, y = arrays(folder, n)

        def walk() -> float:
            scaler, model, right = StandardScaler(), SGDClassifier(loss="log_loss"), 0
            for start in range(0, n, chunk):
                rows, labels = X[start : start + chunk], y[start : start + chunk]
                if start:
                    right += int((model.predict(scaler.transform(rows)) == labels).sum())
                scaled = scaler.partial_fit(rows).transform(rows)
                model.partial_fit(scaled, labels, classes=[0, 1])
            return right / max(1, n - chunk)

        return timed(walk, n, "scikit-learn")

    return run


def vowpal_wabbit(folder: Path, n: int) -> Found:
    """Its command on its own text file, in one pass; a run on nothing is taken off."""
    head = folder / f"head-{n}.vw"
    if not head.exists():
        with (folder / "stream.vw").open() as stream, head.open("w") as file:
            for _, line in zip(range(n), stream, strict=False):
                file.write(line)
    command = [sys.executable, "-m", "vowpalwabbit", "--loss_function", "logistic", "--binary",
               "--quiet", "--no_stdin", "-d"]  # fmt: skip
    empty, full = _child([*command, "/dev/null"]), _child([*command, str(head)])
    told = [part for part in command if part not in ("--quiet",)]
    said = subprocess.run([*told, str(head)], capture_output=True, text=True, check=True)
    loss = re.search(r"average loss = ([\d.eE+-]+)", said.stdout + said.stderr)
    wall, cpu = full[0] - empty[0], full[1] - empty[1]
    return {"version": version("vowpalwabbit"), "events": n, "seconds": wall, "cpu": cpu,
            "accuracy": 1.0 - float(loss[1]) if loss else None}  # fmt: skip


def _child(command: list[str]) -> tuple[float, float]:
    """Wall and processor seconds of a command."""
    before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    wall = time.perf_counter() - wall
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def capymoa(learner: str) -> Callable[[Path, int], Found]:
    """MOA's own loop over an ARFF file, in Java; the second, warm pass of one process."""

    def run(folder: Path, n: int) -> Found:
        from capymoa import classifier
        from capymoa.evaluation import prequential_evaluation
        from capymoa.stream import ARFFStream

        stream = ARFFStream(str(folder / "stream.arff"))

        def walk() -> float:
            stream.restart()
            model = getattr(classifier, learner)(schema=stream.get_schema())
            found = prequential_evaluation(stream, model, max_instances=n, window_size=n)
            return float(found.cumulative.accuracy()) / 100.0

        walk()
        return timed(walk, n, "capymoa")

    return run


CONTESTANTS: dict[str, Callable[[Path, int], Found]] = {
    "River: StandardScaler, LogisticRegression": river("logistic"),
    "River: GaussianNB": river("bayes"),
    "River: HoeffdingTreeClassifier": river("tree"),
    "scikit-learn: StandardScaler, SGDClassifier, 1,000 rows at once": sklearn(CHUNK),
    "scikit-learn: StandardScaler, SGDClassifier, a row at a time": sklearn(1),
    "Vowpal Wabbit: logistic, its text file": vowpal_wabbit,
    "CapyMOA: NaiveBayes, ARFF, second pass": capymoa("NaiveBayes"),
    "CapyMOA: HoeffdingTree, ARFF, second pass": capymoa("HoeffdingTree"),
}

if __name__ == "__main__":
    asked, place, rows = sys.argv[1:]
    print(json.dumps(CONTESTANTS[asked](Path(place), int(rows))))
