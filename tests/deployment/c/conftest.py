"""Exported C, compiled and run as a program of its own."""

import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from unrolled import Bundle
from unrolled.deployment import export_c
from unrolled.deployment.export.targets import Export

WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic")
COMMAND = ("gcc", *WARNINGS, "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
_MAIN = """
#include <stdio.h>
#include <stdlib.h>
{includes}
{functions}
int main(void) {{
{calls}
  return 0;
}}
"""
_STEPS = """
static void run_{name}(void) {{
  {name}_state *state = malloc(sizeof *state);
  {kind} *inputs = malloc({size} * sizeof *inputs);
  float *outputs = malloc({outputs} * sizeof *outputs);
  if (sizeof *state != {state}) exit(4); /* what the notes say */
  {name}_init(state);
  for (int t = 0; t < {steps}; t++) {{
    if (fread(inputs, sizeof *inputs, {size}, stdin) != {size}) exit(2);
    {step}
    {after}
    fwrite(outputs, sizeof *outputs, {outputs}, stdout);
  }}
  free(state);
  free(inputs);
  free(outputs);
}}
"""


@pytest.fixture(scope="session")
def compile_c(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that compiles exported networks, by name, with a main program, and returns the program."""

    def compile(main: str, exported: Mapping[str, Export], command: tuple[str, ...] = COMMAND) -> Path:
        if shutil.which(command[0]) is None:
            pytest.skip(f"{command[0]} is not installed")
        folder = tmp_path_factory.mktemp("c")
        for each in exported.values():
            each.write(folder)
        (folder / "main.c").write_text(main)
        sources = [*(f"{name}.c" for name in exported), "main.c"]
        done = subprocess.run([*command, *sources, "-o", "program", "-lm"], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[:4000]
        return folder / "program"

    return compile


def _run_function(name: str, inputs: Tensor, exported: Export, *, predict: bool) -> str:
    width = 1 if inputs.dim() == 1 else inputs.shape[1]
    step = f"if (!{name}_step(state, *inputs, outputs)) exit(3);"
    if inputs.is_floating_point():
        step = f"{name}_step(state, inputs, outputs);"
    after = f"{name}_predict(outputs, outputs);" if predict else ""
    kind, outputs = "float" if inputs.is_floating_point() else "int", f"{name.upper()}_OUTPUTS"
    (state,) = re.findall(r"state ([\d,]+) bytes", exported.notes[0])
    sizes = {"size": width, "outputs": outputs, "steps": len(inputs), "state": state.replace(",", "")}
    return _STEPS.format(name=name, kind=kind, step=step, after=after, **sizes)


@pytest.fixture(scope="session")
def run_c(compile_c: Callable[..., Path]) -> Callable[..., dict[str, Tensor]]:
    """Return a function that exports networks, compiles them into one program, and returns their outputs.

    It takes name → bundle and inputs: (steps, features) floats, or (steps,) ids.
    """

    def run(
        programs: Mapping[str, tuple[Bundle, Tensor]],
        *,
        predict: bool = False,
        int8: bool = False,
        command: tuple[str, ...] = COMMAND,
        through: tuple[str, ...] = (),
    ) -> dict[str, Tensor]:
        if through and shutil.which(through[0]) is None:
            pytest.skip(f"{through[0]} is not installed")
        exported = {name: export_c(bundle, name=name, int8=int8) for name, (bundle, _) in programs.items()}
        functions = (_run_function(name, programs[name][1], each, predict=predict) for name, each in exported.items())
        main = _MAIN.format(
            includes="\n".join(f'#include "{name}.h"' for name in programs),
            functions="\n".join(functions),
            calls="\n".join(f"  run_{name}();" for name in programs),
        )
        program = compile_c(main, exported, command)
        fed = b"".join(_bytes(inputs) for _, inputs in programs.values())
        done = subprocess.run([*through, str(program)], input=fed, capture_output=True, timeout=300)
        assert done.returncode == 0, done.stderr.decode()[:4000]
        numbers = torch.frombuffer(bytearray(done.stdout), dtype=torch.float32)
        steps = [len(inputs) for _, inputs in programs.values()]
        sizes = [
            bundle.network.head.output_size * count for (bundle, _), count in zip(programs.values(), steps, strict=True)
        ]
        return {
            name: part.view(count, -1) for name, part, count in zip(programs, numbers.split(sizes), steps, strict=True)
        }

    return run


def _bytes(inputs: Tensor) -> bytes:
    values: Any = inputs.float() if inputs.is_floating_point() else inputs.int()
    return values.numpy().tobytes()
