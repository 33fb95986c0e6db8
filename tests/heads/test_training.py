"""Every head through a Trainer: it overfits a handful, a resumed run has the same bits, and two processes are one."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

KINDS = ("Categorical", "Labels", "Numbers", "Quantile", "Mixture", "CTC")

SCRIPT = Path(__file__).with_name("toys.py")


def trained(folder: Path, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), *arguments], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    step = arguments[1] if len(arguments) > 1 else None
    return json.loads((folder / f"ranks{arguments[0]}-step{step}.json").read_text())


@pytest.mark.distributed
def test_heads_learn_resume_and_share_a_batch(tmp_path: Path) -> None:
    whole = trained(tmp_path, "1")
    resumed = trained(tmp_path, "1", "45")
    shared = trained(tmp_path, "2")

    for kind in KINDS:
        untrained, loss = whole[kind]["untrained"], whole[kind]["loss"]
        assert loss < 0.25 * untrained or loss < untrained - 2.0, kind
        assert resumed[kind]["weights"] == whole[kind]["weights"], kind
        one, two = (torch.tensor(each[kind]["weights"], dtype=torch.float64) for each in (whole, shared))
        # Densities near a point amplify rounding errors of sums in another order.
        atol = 1e-4 if kind == "Mixture" else 1e-8
        torch.testing.assert_close(two, one, rtol=0, atol=atol, msg=kind)
