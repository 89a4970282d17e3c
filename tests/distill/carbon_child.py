"""Trains the toy student with checkpoints and hangs at a step, to be killed there."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

from distill.carbon_aware import CarbonControl, CarbonRun
from distill.loop import LoopState

sys.path.insert(0, str(Path(__file__).parent))
import toy_student as toy


class Hanging(CarbonControl):
    def after_step(self, state: LoopState, loss: float) -> None:
        super().after_step(state, loss)
        if state.step == int(sys.argv[2]):
            print("hanging", flush=True)
            time.sleep(600)


if __name__ == "__main__":
    torch.set_num_threads(1)
    run: CarbonRun = toy.make_run(Path(sys.argv[1]), **toy.EVENTFUL)
    toy.train(Hanging(run, toy.SEED))
