"""The model card of a pretrained folder: what the network does, and how it was trained and measured."""

import math
import platform
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from unrolled.checkpoint import Bundle
from unrolled.descriptions import CheckpointError
from unrolled.processing.audio.features import AudioFeatures
from unrolled.processing.text.base import Tokenizer

_SIGNATURE = "signature "  # begins the name of a note about a metric


class _Use(NamedTuple):
    """What a task's networks are for.

    about: the task in words.
    pipeline: the Hub's name of the task, by kind of source: text, sound, or other; one entry for all kinds.
    command: a command that uses such a network.
    """

    about: str
    pipeline: tuple[str | None, ...]
    command: str


_USES = {
    "char_lm": _Use("language modeling", ("text-generation",), 'sample {name} --prompt "The" --length 200'),
    "translation": _Use("translation", ("translation", None, None), "translate {name} < in.txt > out.txt"),
    "captioning": _Use("image captioning", (None, None, "image-to-text"), "caption {name} photo.jpg"),
    "classification": _Use(
        "classification", ("text-classification", "audio-classification", None), "classify {name} FILE"
    ),
    "regression": _Use("regression", (None,), "classify {name} FILE"),
    "tagging": _Use("tagging", ("token-classification", None, None), "tag {name} < sentences.txt"),
    "transcription": _Use(
        "transcription", (None, "automatic-speech-recognition", "image-to-text"), "transcribe {name} FILE"
    ),
    "forecasting": _Use("forecasting", ("time-series-forecasting",), "forecast {name} --help"),
    "music": _Use("music", (None,), "compose {name} --help"),
    "handwriting": _Use("handwriting", (None,), "write {name} --help"),
    "draw": _Use("drawing", ("unconditional-image-generation",), "draw {name} --out canvases.png"),
}


def model_card(bundle: Bundle, *, name: str, license: str | None = None) -> str:
    """Return the content of a model card, with the metadata that the Hub reads.

    Task, data, seed, versions, the command and the metrics are taken from the information about the training. What it
    lacks is left out.

    Args:
        bundle: the network.
        name: name of the folder or repository.
        license: the network's license, as the Hub names it, such as "mit".

    Raises:
        CheckpointError: huggingface_hub is not installed.
    """
    try:
        from huggingface_hub import EvalResult, ModelCardData
    except ImportError:
        raise CheckpointError("a model card needs the package huggingface_hub: pip install 'unrolled[hub]'") from None
    info = bundle.info
    choices, summary = _dict(info.get("choices")), _dict(info.get("summary"))
    task = str(choices.get("task") or "")
    use = _USES.get(task)
    kind = 0 if isinstance(bundle.processor.source, Tokenizer) else 1 if _hears(bundle) else 2
    pipeline = None if use is None else use.pipeline[min(kind, len(use.pipeline) - 1)]
    cells = sorted({type(each).__name__ for each in _cells(bundle.network)})
    data = str(info.get("data") or "")
    results = [
        EvalResult(
            task_type=pipeline or "other",
            dataset_type=str(choices.get("data") or "custom"),
            dataset_name=data or "custom",
            dataset_split=split,
            metric_type=metric,
            metric_value=value,
            metric_args={"signature": signature} if signature else None,
        )
        for split, metric, value, signature in _metrics(summary)
    ]
    metadata = ModelCardData(
        library_name="unrolled",
        license=license,
        pipeline_tag=pipeline,
        tags=["recurrent", *([task] if task else []), *cells],
        model_name=name,
        eval_results=results or None,
    )
    parts = [f"# {_line(name)}", _about(use, cells), *_usage(use, name), *_network(bundle.network, cells)]
    parts += [*_training(info, summary, task, data), *_scores(summary)]
    return f"---\n{metadata.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n"


def _hears(bundle: Bundle) -> bool:
    return isinstance(bundle.processor.source, AudioFeatures)


def _about(use: _Use | None, cells: list[str]) -> str:
    what = "A recurrent network" + ("" if use is None else f" for {use.about}")
    return f"{what} ({', '.join(cells)}) of the package `unrolled`." if cells else f"{what} of the package `unrolled`."


def _usage(use: _Use | None, name: str) -> list[str]:
    code = f'from unrolled import load_bundle\n\nnetwork, processor, info = load_bundle("{name}")'
    command = "" if use is None else f"\n\n```\npython -m unrolled {use.command.format(name=name)}\n```"
    return ["## Use", "It needs `pip install 'unrolled[hub]'`.", f"```python\n{code}\n```{command}"]


def _network(network: nn.Module, cells: list[str]) -> list[str]:
    size = sum(parameter.numel() for parameter in network.parameters())
    return [
        "## Network",
        _table(("class", type(network).__name__), ("cells", ", ".join(cells)), ("parameters", f"{size:,}")),
    ]


def _training(info: Mapping[str, Any], summary: Mapping[str, Any], task: str, data: str) -> list[str]:
    versions = _dict(info.get("versions"))
    rows = [
        ("task", task),
        ("data", data),
        ("seed", info.get("seed")),
        ("steps", summary.get("steps")),
        ("versions at training", ", ".join(f"{name} {version}" for name, version in versions.items())),
        ("versions at sharing", f"python {platform.python_version()}, torch {torch.__version__}"),
    ]
    command = str(summary.get("command") or "")
    return ["## Training", _table(*rows), *([f"```\n{command.replace('```', '')}\n```"] if command else [])]


def _scores(summary: Mapping[str, Any]) -> list[str]:
    found = list(_metrics(summary))
    if not found:
        return []
    rows = "\n".join(f"| {s} | {_line(m)} | {v:.6g} | {_line(how)} |" for s, m, v, how in found)
    return ["## Metrics", f"| split | metric | value | signature |\n|---|---|---|---|\n{rows}"]


def _metrics(summary: Mapping[str, Any]) -> Iterator[tuple[str, str, float, str]]:
    """Yield the split, name, value and signature of each metric."""
    for name, value in summary.items():
        split, _, metric = name.partition("/")
        if metric and isinstance(value, (int, float)) and math.isfinite(value):
            yield split, metric, float(value), str(summary.get(f"{_SIGNATURE}{metric}") or "")


def _cells(network: nn.Module) -> Iterator[nn.Module]:
    from unrolled.cells.base import Cell

    return (module for module in network.modules() if isinstance(module, Cell))


def _table(*rows: tuple[str, Any]) -> str:
    kept = [(name, value) for name, value in rows if value not in (None, "")]
    return "| | |\n|---|---|\n" + "\n".join(f"| {name} | {_line(value)} |" for name, value in kept)


def _line(value: Any) -> str:
    """Return a value as the text of a table's field."""
    return " ".join(str(value).split()).replace("|", "\\|")


def _dict(value: Any) -> dict[str, Any]:
    """Return a part of the information, which may be anything in another's file."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
