"""The command itself: one line for what is wrong outside, and a word when it is stopped."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from api.cli import main as entry
from api.cli.atomic import OutputError, write_bytes

Run = Callable[..., tuple[int, str]]

WRITES = {
    "cohort synth": ("cohort", "synth", "--out", "{place}"),
    "train": ("train", "--cohort", "none", "--out", "{place}"),
    "evaluate": ("evaluate", "--bundle", "none", "--cohort", "none", "--json", "{place}"),
    "rl train": ("rl", "train", "--bundle", "none", "--out", "{place}"),
    "compare": ("compare", "--bundle", "none", "--out", "{place}"),
    "batch": ("batch", "--bundle", "none", "--cohort", "none", "--out", "{place}"),
    "demo": ("demo", "--out", "{place}"),
}
FILES = ("evaluate", "batch")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run ``greenboard ARGUMENTS`` as its entry point does: exit code and standard error."""

    def invoke(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["greenboard", *arguments])
        with pytest.raises(SystemExit) as ended:
            entry.main()
        return int(ended.value.code or 0), capsys.readouterr().err

    return invoke


def one_line(code: int, said: str) -> bool:
    return code == 2 and said.startswith("error: ") and said.count("\n") == 1


@pytest.mark.parametrize("command", WRITES)
def test_a_place_that_takes_nothing_is_refused_before_the_work(
    command: str, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    places = [tmp_path / "file" / "below"]
    places.append(tmp_path if command in FILES else tmp_path / "file")
    if Path("/proc/self").exists():
        places.append(Path("/proc/greenboard"))  # permissions allow it, the file system does not
    for place in places:
        code, said = run(*(part.format(place=place) for part in WRITES[command]))
        assert one_line(code, said), said
        assert str(place) in said
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "mine"


def test_what_the_operating_system_refuses_is_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/bundle")

    monkeypatch.setattr(entry, "app", full)
    code, said = run("train")
    assert one_line(code, said)
    assert said.startswith("error: /data/bundle: No space left on device.")


def test_ctrl_c_is_acknowledged(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("distill.cohort_check.check_cohort", interrupted)
    assert run("cohort", "check", "anywhere") == (130, "stopped\n")


def test_a_file_that_cannot_take_its_name_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "there" / "full").mkdir(parents=True)
    with pytest.raises(OutputError):
        write_bytes(tmp_path / "there", b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
