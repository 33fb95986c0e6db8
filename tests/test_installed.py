"""The wheel in an environment of its own: what another project gets."""

import math
import os
import struct
import subprocess
import sys
import textwrap
import wave
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content in a folder, without the working copy beside it.

    It comes from the sdist, as a packager would make it, so that nothing may be missing there either.
    """
    folder = tmp_path_factory.mktemp("site")
    wheel = os.environ.get("UNROLLED_WHEEL")
    if wheel is None:
        built = tmp_path_factory.mktemp("dist")
        command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(built), str(ROOT)]
        subprocess.run(command, check=True, capture_output=True)
        wheel = str(next(built.glob("*.whl")))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), wheel]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def run(site: Path, folder: Path, *arguments: str, code: str | None = None) -> subprocess.CompletedProcess[str]:
    """Python in a folder of its own that sees the installed wheel before any working copy."""
    script = ["-c", textwrap.dedent(code)] if code else list(arguments)
    environment = {**os.environ, "PYTHONPATH": str(site), "UNROLLED_CACHE": str(folder / "cache")}
    return subprocess.run([sys.executable, *script], cwd=folder, env=environment, capture_output=True, text=True)


FORBID = """
import sys

FORBIDDEN = "lightning pytorch_lightning hydra omegaconf torchmetrics datasets tokenizers sacrebleu babel".split()

class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in FORBIDDEN:
            raise ModuleNotFoundError(f"{name} is not installed here", name=name)

sys.meta_path.insert(0, Forbid())
"""


def test_the_library_needs_torch_alone(site: Path, tmp_path: Path) -> None:
    code = FORBID + textwrap.dedent(
        f"""
        import unrolled
        assert unrolled.__file__.startswith({str(site)!r}), unrolled.__file__
        for name in unrolled.__all__:
            getattr(unrolled, name)
        import torch
        outputs, state = unrolled.unroll(unrolled.LSTMCell(3, 4), torch.zeros(2, 5, 3))
        print(tuple(outputs.shape))
        """
    )

    result = run(site, tmp_path, code=code)

    assert result.stdout.strip() == "(2, 5, 4)", result.stderr


def test_tasks_and_configuration_are_in_the_wheel(site: Path, tmp_path: Path) -> None:
    code = """
        from importlib.resources import files
        from hydra import compose, initialize
        from hydra_plugins.unrolled import OptunaSweeper
        from unrolled.deployment.serving.app import PAGE
        from unrolled_tasks.char_lm import CharLM, TextData
        assert (files("unrolled.conf") / "train.yaml").is_file()
        assert (PAGE / "index.html").is_file() and (PAGE / "sample.js").is_file()
        with initialize(version_base="1.3", config_path=None):
            config = compose(overrides=["hydra.searchpath=[pkg://unrolled.conf]", "+model=gru", "+task=char_lm"])
        print(config.model.cell._target_, CharLM.__name__, TextData.__name__)
    """

    result = run(site, tmp_path, code=code)

    assert result.stdout.split() == ["unrolled.GRUCell", "CharLM", "TextData"], result.stderr


def test_a_checkpoint_trained_here_writes_text_there(site: Path, tmp_path: Path) -> None:
    text = tmp_path / "rhyme.txt"
    text.write_text("one two buckle my shoe\n" * 200)
    code = """
        import sys
        from unrolled.training.run.command import train
        sys.argv[0] = "train.py"
        train()
    """
    script = tmp_path / "mytrain.py"
    script.write_text(textwrap.dedent(code))
    options = "data=text data.files=rhyme.txt model.hidden_size=8 model.num_layers=1 trainer=cpu trainer.max_steps=3"
    options += (
        " data.batch_size=4 data.window=16 data.validation_streams=2 data.random_windows.length=16 hydra.run.dir=run"
    )

    trained = run(site, tmp_path, str(script), *options.split())
    assert trained.returncode == 0, trained.stderr
    command = FORBID + textwrap.dedent(
        """
        from unrolled.deployment.command import main
        sys.exit(main(["sample", "run/checkpoints/last.ckpt", "--prompt", "one", "--length", "20", "--seed", "1"]))
        """
    )
    written = run(site, tmp_path, code=command)

    assert written.returncode == 0, written.stderr
    assert written.stdout.startswith("one")
    assert len(written.stdout.rstrip("\n")) <= len("one") + 20


def test_a_translator_trained_here_translates_there_with_torch_alone(site: Path, tmp_path: Path) -> None:
    rows = "".join(f'{{"en": "the old number {n}", "de": "die alte Nummer {n}"}}\n' for n in range(40))
    (tmp_path / "pairs.jsonl").write_text(rows)
    code = "from unrolled.training.run.command import train\nimport sys\nsys.argv[0] = 'train.py'\ntrain()\n"
    (tmp_path / "mytrain.py").write_text(code)
    options = "task=translation data=pairs data.files=pairs.jsonl data.vocabulary_size=60 model.hidden_size=8"
    options += " network.encoder.embedding.size=8 decoder.embedding.size=8 trainer=cpu trainer.max_steps=2"

    trained = run(site, tmp_path, "mytrain.py", *options.split(), "hydra.run.dir=run")
    assert trained.returncode == 0, trained.stderr
    command = FORBID + textwrap.dedent(
        """
        from unrolled import load_bundle
        from unrolled.deployment import translate
        print(len(list(translate(load_bundle("run/checkpoints/last.ckpt"), ["the old number 3", "", "7"]))))
        """
    )
    translated = run(site, tmp_path, code=command)

    assert translated.stdout.strip() == "3", translated.stderr
    missing = textwrap.dedent(
        """
        import sys
        sys.modules["sacrebleu"] = None
        """
    )
    refused = run(
        site, tmp_path, code=missing + code.replace("'train.py'", "'train.py'; sys.argv[1:] = ['task=translation']")
    )
    assert refused.returncode == 2
    assert "pip install 'unrolled[text]'" in refused.stderr


def test_a_classifier_trained_here_hears_there_with_torch_alone(site: Path, tmp_path: Path) -> None:
    pytest.importorskip("soundfile")
    for label, hertz in (("low", 300), ("high", 900)):
        for number in range(10):
            samples = (int(9000 * math.sin(2 * math.pi * (hertz + number) * n / 8000)) for n in range(800))
            path = tmp_path / "tones" / label / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            with wave.open(str(path), "wb") as file:
                file.setparams((1, 2, 8000, 800, "NONE", "not compressed"))
                file.writeframes(struct.pack("<800h", *samples))
    code = "from unrolled.training.run.command import train\nimport sys\nsys.argv[0] = 'train.py'\ntrain()\n"
    (tmp_path / "mytrain.py").write_text(code)
    options = "task=classification data=speech data.files=tones model.hidden_size=8 encoder.frame.hidden_size=null"
    options += (
        " data.modality.features.trim=30 data.modality.features.normalization=level data.modality.features.depth=40"
    )
    options += " data.modality.augmentation=null optimizer.lr=0.02 data.batch_size=4"
    options += " trainer=cpu trainer.max_epochs=30 data.split_fractions=[0.8,0.2,0.0] test=false hydra.run.dir=run"

    trained = run(site, tmp_path, "mytrain.py", *options.split())
    assert trained.returncode == 0, trained.stderr
    command = FORBID.replace("datasets", "datasets soundfile numpy matplotlib") + textwrap.dedent(
        """
        import torch
        from unrolled import load_bundle
        from unrolled.deployment import classify
        time = torch.arange(900) / 8000
        tones = [(0.4 * torch.sin(6.283185 * hertz * time), 8000) for hertz in (310, 910)]
        print(*[said.label for said in classify(load_bundle("run/checkpoints/last.ckpt"), tones)])
        """
    )
    heard = run(site, tmp_path, code=command)

    assert heard.stdout.split() == ["low", "high"], heard.stderr
