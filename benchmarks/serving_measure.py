"""Time and energy of one case, student against ensemble; run by distill_serving.py.

    python benchmarks/serving_measure.py FOLDER

A process of its own without torch, held to one core, as a service would run. FOLDER holds
``job.json`` and what it names. Every round runs the same cases through every contender, in random
order, so that whatever else the machine does meets all of them alike.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from api.inputs import cohort_features
from carbon.backends import make_meter
from carbon.meter import energy_window
from distill.cohort import read_cohort
from distill.masks import everything_masks, set_masks
from distill.preprocess import TablePreprocessor
from distill.runtime import PreparedCase, StudentRuntime
from distill.session import open_session
from distill.transfers import EvidenceSets

Row = Mapping[str, Mapping[str, object] | None]
WARM_UP = 50


class Ensemble:
    """Networks by modality behind sessions; late fusion of whatever a case has."""

    def __init__(self, runtime: StudentRuntime, folder: Path, names: Mapping[str, list[str]]):
        tables = json.loads((folder / "preprocess.json").read_text())
        self.preprocessors = tuple(TablePreprocessor.from_json(tables[m]) for m in names)
        self.width = [len(p.selected) for p in self.preprocessors]
        # The same checks of a case's values as the student's, before its own features.
        self.checks = replace(
            runtime, preprocessors=self.preprocessors, n_features=max(self.width), times=None
        )
        self.sessions = {m: [open_session(folder / f) for f in files] for m, files in names.items()}
        self.modalities = tuple(names)

    def prepare(self, row: Row) -> PreparedCase:
        """As the student prepares a case."""
        return self.checks.prepare(row)

    def inputs(self, case: PreparedCase) -> dict[str, np.ndarray]:
        """One row for each modality that the case has."""
        return {
            m: np.ascontiguousarray(case.x[:, j, : self.width[j]])
            for j, m in enumerate(self.modalities)
            if m in case.present
        }

    def each(self, inputs: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Probability by modality, the mean over its networks."""
        return {
            m: sum(float(s.run(["probability"], {"x": x})[0][0]) for s in self.sessions[m])
            / len(self.sessions[m])
            for m, x in inputs.items()
        }

    def score(self, inputs: Mapping[str, np.ndarray]) -> float:
        """Probability from everything that the case has."""
        said = self.each(inputs)
        return sum(said.values()) / len(said)


class Bench:
    """Cases, contenders and the clock."""

    def __init__(self, folder: Path) -> None:
        job = json.loads((folder / "job.json").read_text())
        self.job, self.folder = job, folder
        cohort = read_cohort(Path(job["cohort"]))
        self.int8, self.fp32 = (
            StudentRuntime.open(Path(job["bundle"]), precision=p) for p in ("int8", "fp32")
        )
        self.rows: list[Row] = [
            cohort_features(cohort, c, self.int8.modalities) for c in cohort.case_id
        ]
        self.cases = [self.int8.prepare(row) for row in self.rows]
        order = self.int8.modalities
        present = np.array([[m in case.present for m in order] for case in self.cases])
        self.full = everything_masks(present, order, self.int8.transfers)[:, None]
        self.run = [
            [t.name for t in self.int8.transfers if t.source in case.present] for case in self.cases
        ]
        self.temperature = self.int8.calibration.of_masks(self.full[:, 0])
        sets = EvidenceSets.enumerate(self.int8.transfers)
        self.sets = set_masks(sets, order)[None]
        # The ensemble's share of each set: one a processed modality, bridges are unknown to it.
        self.share = self.sets[0][:, : len(order)] / self.sets[0][:, : len(order)].sum(1)[:, None]

    def ensemble(self, kind: str) -> Ensemble:
        """The networks of one way of running them."""
        names = {m: self.job["ensembles"][kind][m] for m in self.int8.modalities}
        return Ensemble(self.int8, self.folder, names)

    def contenders(self) -> dict[str, Callable[[int], object]]:
        """What is measured: a function of the case's number."""

        def graph(runtime: StudentRuntime) -> Callable[[int], object]:
            def one(i: int) -> float:
                feed = {"x": self.cases[i].x, "mask": self.full[i : i + 1]}
                raw = runtime.session.run(["logit"], feed)[0][0, 0]
                return float(expit(raw / self.temperature[i]))

            return one

        def every_set(i: int) -> object:
            raw = self.int8.session.run(["logit"], {"x": self.cases[i].x, "mask": self.sets})[0]
            return expit(raw[0])

        found: dict[str, Callable[[int], object]] = {
            "student int8": graph(self.int8),
            "student fp32": graph(self.fp32),
            "student int8, whole assessment": lambda i: self.int8.assess(
                self.cases[i], self.run[i]
            ),
            "student int8, prepared and assessed": lambda i: self.int8.assess(
                self.int8.prepare(self.rows[i]), self.run[i]
            ),
            "student int8, all evidence sets": every_set,
        }
        for kind in self.job["ensembles"]:
            found[f"ensemble {kind}"] = self._ensemble(self.ensemble(kind))
        largest = self.ensemble(self.job["largest"])
        inputs = [largest.inputs(largest.prepare(row)) for row in self.rows]
        weights = self.share

        def fused(i: int) -> object:
            said = largest.each(inputs[i])
            have = np.array([m in said for m in largest.modalities], dtype=np.float64)
            value = np.array([said.get(m, 0.0) for m in largest.modalities])
            return (weights @ (value * have)) / np.maximum(weights @ have, 1e-9)

        found[f"ensemble {self.job['largest']}, all evidence sets"] = fused
        found[f"ensemble {self.job['largest']}, prepared and scored"] = lambda i: largest.score(
            largest.inputs(largest.prepare(self.rows[i]))
        )
        return found

    def _ensemble(self, ensemble: Ensemble) -> Callable[[int], object]:
        inputs = [ensemble.inputs(ensemble.prepare(row)) for row in self.rows]
        return lambda i: ensemble.score(inputs[i])

    def rounds(self, count: int, cases: int, seed: int) -> dict[str, dict[str, list[float]]]:
        """Joules, CPU and wall seconds a case, by contender and round."""
        rng = np.random.default_rng(seed)
        contenders = self.contenders()
        meter = make_meter("process")
        kept: dict[str, dict[str, list[float]]] = {
            name: {"j": [], "cpu_s": [], "wall_s": []} for name in contenders
        }
        for work in contenders.values():
            for i in range(WARM_UP):
                work(i % len(self.cases))
        for _ in range(count):
            chosen = rng.integers(0, len(self.cases), cases)
            for name in rng.permutation(list(contenders)):
                work = contenders[name]
                with energy_window(meter) as window:
                    cpu, wall = time.process_time(), time.perf_counter()
                    for i in chosen:
                        work(i)
                    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
                reading = window.reading
                kept[name]["j"].append((reading.joules or 0.0) / cases)
                kept[name]["cpu_s"].append(cpu / cases)
                kept[name]["wall_s"].append(wall / cases)
        self.reading = {"basis": reading.basis, "source": reading.source, "reason": reading.reason}
        return kept

    def latencies(self, repeats: int, seed: int) -> dict[str, list[float]]:
        """Milliseconds of single cases by the wall clock: prepared, assessed, both."""
        rng = np.random.default_rng(seed)
        spent: dict[str, list[float]] = {"prepare": [], "assess": [], "case": []}
        for i in rng.integers(0, len(self.rows), repeats):
            start = time.perf_counter()
            case = self.int8.prepare(self.rows[i])
            middle = time.perf_counter()
            self.int8.assess(case, self.run[i])
            end = time.perf_counter()
            for key, seconds in zip(spent, (middle - start, end - middle, end - start)):
                spent[key].append(1e3 * seconds)
        return spent


def main() -> None:
    """Measure and write ``measured.json`` into the folder."""
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
    folder = Path(sys.argv[1])
    bench = Bench(folder)
    job = bench.job
    measured: dict[str, Any] = {
        "rounds": bench.rounds(job["rounds"], job["cases"], job["seed"]),
        "latency_ms": bench.latencies(job["latencies"], job["seed"]),
        "energy": bench.reading,
    }
    (folder / "measured.json").write_text(json.dumps(measured))


if __name__ == "__main__":
    main()
