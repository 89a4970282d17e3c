"""The bundle: a folder of plain files, a manifest with their SHA-256 sums, and no pickle."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from distill.errors import BundleError

FORMAT = 1
Precision = Literal["fp32", "int8"]
MANIFEST = "manifest.json"
METRICS = "metrics.json"
EVIDENCE = "evidence.npz"
STUDENT = "student.onnx"
STUDENT_INT8 = "student.int8.onnx"
GRAPHS: Mapping[Precision, str] = {"fp32": STUDENT, "int8": STUDENT_INT8}
WEIGHTS = "weights.safetensors"
PREPROCESS = "preprocess.json"
CALIBRATION = "calibration.json"
TRAINING_IDS = "training_ids.json"
CARD = "card.md"
NEEDED = (METRICS, EVIDENCE, STUDENT, WEIGHTS, PREPROCESS, CALIBRATION, TRAINING_IDS, CARD)
"""What every bundle has; earlier versions wrote no int8 student."""
FILES = (*NEEDED, STUDENT_INT8)
HINT = "Train it again with 'greenboard train'."
NO_SEAL = "0" * 64


def known_precision(name: str) -> Precision:
    """A student's precision by name.

    Raises:
        BundleError: if there is none of that name.
    """
    for precision in GRAPHS:
        if name == precision:
            return precision
    raise BundleError(f"Unknown precision {name!r}; there are {', '.join(GRAPHS)}.")


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_case_id(case_id: str) -> str:
    """What is kept of a training patient's identifier: enough to recognise, not to read it."""
    return hashlib.sha256(case_id.encode("utf-8")).hexdigest()


def dump_json(path: Path, data: Any) -> None:
    """Write readable JSON that refuses NaN, which is not JSON."""
    text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read one of the bundle's JSON files.

    Raises:
        BundleError: if it is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BundleError(f"No {path.name} in {path.parent}. {HINT}") from error
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read: {error}. {HINT}") from error


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder that appears under its name only when everything in it has been written.

    Raises:
        BundleError: if ``out`` exists and is anything but a bundle or an empty folder.
    """
    check_target(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        yield building
        _sync(building)
        building.chmod(0o755)
        if out.exists():
            _exchange(building, out)
        else:
            os.replace(building, out)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _exchange(building: Path, out: Path) -> None:
    """Put the new folder in the old one's place; if that fails, the old one is back in it."""
    retired = Path(tempfile.mkdtemp(prefix=f".{out.name}.old.", dir=out.parent))
    try:
        os.replace(out, retired / out.name)
        try:
            os.replace(building, out)
        except OSError:
            os.replace(retired / out.name, out)
            raise
    finally:
        shutil.rmtree(retired, ignore_errors=True)


def check_target(out: Path) -> None:
    """Refuse to write over something that is not a bundle; cheap, so call it before training.

    Raises:
        BundleError: if ``out`` is a file, or a folder with other things in it.
    """
    if not out.exists():
        return
    if not out.is_dir() or (any(out.iterdir()) and not (out / MANIFEST).is_file()):
        raise BundleError(f"{out} exists and is not a bundle; choose another name for it.")


def _sync(folder: Path) -> None:
    for path in folder.iterdir():
        path.chmod(0o644)
        with path.open("rb") as file:
            os.fsync(file.fileno())


def seal(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write the manifest: these facts, and size and SHA-256 of every file in the folder."""
    files = {
        path.name: {"sha256": sha256_of(path), "bytes": path.stat().st_size}
        for path in sorted(folder.iterdir())
        if path.name != MANIFEST
    }
    path = folder / MANIFEST
    dump_json(path, {"format": FORMAT, **facts, "files": files, "seal": NO_SEAL})
    content = path.read_bytes()
    path.write_bytes(content.replace(NO_SEAL.encode(), _seal_of(content).encode()))


def _seal_of(content: bytes) -> str:
    """Sum of a manifest whose own sum is written as zeros."""
    return hashlib.sha256(content).hexdigest()


def _check_seal(path: Path, manifest: Mapping[str, Any]) -> None:
    """Refuse a manifest that is not byte for byte as it was written.

    Manifests without a sum are of earlier versions, which wrote no int8 student either.
    """
    found = manifest.get("seal")
    if found is None and STUDENT_INT8 not in manifest["files"]:
        return
    content = path.read_bytes()
    blank = content.replace(str(found).encode(), NO_SEAL.encode())
    if found is None or _seal_of(blank) != found:
        raise BundleError(
            f"{path} is not as it was written (its own SHA-256 differs). Restore the bundle from "
            f"a copy. {HINT}"
        )


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """An opened bundle whose files are all as they were written."""

    path: Path
    manifest: Mapping[str, Any]

    @classmethod
    def open(cls, path: Path) -> Bundle:
        """Check every file's sum.

        Raises:
            BundleError: if a file is missing, altered or not listed, or the format is another.
        """
        if not path.is_dir():
            raise BundleError(f"No bundle at {path}. 'greenboard train --out {path}' makes one.")
        manifest = read_json(path / MANIFEST)
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise BundleError(f"{path / MANIFEST} is not of bundle format {FORMAT}. {HINT}")
        listed = manifest.get("files")
        if not isinstance(listed, dict) or not set(NEEDED) <= set(listed):
            raise BundleError(f"{path / MANIFEST} does not list all files of a bundle. {HINT}")
        for name, facts in listed.items():
            _check_file(path, str(name), facts)
        _check_seal(path / MANIFEST, manifest)
        return cls(path=path, manifest=manifest)

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The students that it holds."""
        listed = self.manifest["files"]
        return tuple(p for p in get_args(Precision) if GRAPHS[p] in listed)

    @property
    def served(self) -> Precision:
        """The student that is served where nobody asks for another."""
        return "int8" if self.manifest["student"].get("precision") == "int8" else "fp32"

    def graph(self, precision: Precision) -> Path:
        """The student's graph of one precision.

        Raises:
            BundleError: if the bundle has none.
        """
        if precision not in self.precisions:
            raise BundleError(
                f"The bundle at {self.path} has no {precision} student (an earlier version wrote "
                f"it); it has {', '.join(self.precisions)}. {HINT}"
            )
        return self.file(GRAPHS[precision])

    def file(self, name: str) -> Path:
        """Path of one of its files."""
        return self.path / name

    def json(self, name: str) -> Any:
        """One of its JSON files."""
        return read_json(self.path / name)


def _check_file(folder: Path, name: str, facts: Any) -> None:
    path = folder / name
    if Path(name).name != name or not path.is_file():
        raise BundleError(f"Bundle {folder} lacks {name}. {HINT}")
    if not isinstance(facts, dict) or sha256_of(path) != facts.get("sha256"):
        raise BundleError(
            f"{path} is not as it was written (its SHA-256 differs from the manifest). Restore "
            f"the bundle from a copy. {HINT}"
        )
