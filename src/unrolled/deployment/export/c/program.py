"""A trained network as one C99 file and a header: constant weights, a state, and functions that read step by step."""

import copy
import re
from collections.abc import Sequence

import torch
from torch import nn

import unrolled
from unrolled.checkpoint import Bundle
from unrolled.deployment.export.c.audio import write_features
from unrolled.deployment.export.c.forecasters import FORECASTERS, write_forecaster
from unrolled.deployment.export.c.interface import Interface
from unrolled.deployment.export.c.networks import STEPPED, write_stepped
from unrolled.deployment.export.c.quantization import quantization_cost, quantize
from unrolled.deployment.export.c.source import Source, strings
from unrolled.deployment.export.targets import Export
from unrolled.processing.audio.features import AudioFeatures
from unrolled.processing.labels import LabelEncoder
from unrolled.processing.text.base import Tokenizer
from unrolled.wording import article

_MOST_SYMBOLS = 100_000


def export_c(bundle: Bundle, *, name: str = "network", int8: bool = False) -> Export:
    """Write a classifier, tagger, forecaster or language model as a C99 file and its header.

    The C has the weights as constant arrays, a struct with the state, `NAME_init` and `NAME_step`, and `NAME_predict`
    for what the outputs mean: probabilities, numbers or quantiles. It allocates nothing and needs `math.h` alone. All
    is in float32. With audio features, `NAME_frame` computes frames of samples.

    Args:
        bundle: the network, which reads forward, with pointwise cells, and its processor.
        name: the files' name, and the prefix of all names in them.
        int8: store matrices as 8-bit integers, with a scale for each row. The notes say what that changes.

    Returns:
        The files NAME.c and NAME.h; the notes have the bytes of weights, state and stack.

    Raises:
        ValueError: a name that is no C identifier; a network that C cannot express, such as a bidirectional one, or
            weights that aren't finite.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"name is {name!r}, expected a C name in lower case, such as 'network'")
    exact = copy.deepcopy(bundle.network).cpu().float().eval()
    network = quantize(exact) if int8 else exact
    source = Source(int8=int8)
    with torch.no_grad():
        interface = _written(source, network, bundle)
        if not source.fields:
            source.counter(0, "unused")  # C has no empty struct
        texts = _texts(bundle)
        notes = [_sizes(source, texts)]
        if int8:
            notes.append(quantization_cost(exact, network))
    files = {f"{name}.h": _header(source, interface, texts, notes), f"{name}.c": _definitions(source, texts)}
    return Export({file: _named(text, name).encode() for file, text in files.items()}, tuple(notes))


def _written(source: Source, network: nn.Module, bundle: Bundle) -> Interface:
    if type(network) in FORECASTERS:
        return write_forecaster(source, network)
    if type(network) not in STEPPED:
        known = ", ".join(kind.__name__ for kind in (*STEPPED, *FORECASTERS))
        raise ValueError(f"{article(type(network).__name__)} cannot be written in C; {known} can")
    interface = write_stepped(source, network, bundle.processor)
    features = bundle.processor.source
    if isinstance(features, AudioFeatures):
        sizes = {"RATE": features.rate, **interface.sizes}
        return interface._replace(sizes=sizes, declarations=[write_features(source, features), *interface.declarations])
    return interface


def _texts(bundle: Bundle) -> dict[str, list[str]]:
    """Return the names of what is read and predicted: the array's name → its strings."""
    source, target = bundle.processor
    found: dict[str, list[str]] = {}
    for name, side in (("symbols", source), ("labels", target)):
        if isinstance(side, Tokenizer) and side.size <= _MOST_SYMBOLS:
            found[name] = side.symbols(range(side.size))
        elif isinstance(side, LabelEncoder):
            found[name] = side.labels
    return found


def _sizes(source: Source, texts: dict[str, list[str]]) -> str:
    sizes = {"weights": source.weight_bytes, "state": source.state_bytes, "arrays on the stack": source.stack_bytes}
    sizes |= {name: sum(len(text.encode()) + 1 for text in each) for name, each in texts.items()}
    return ", ".join(f"{name} {size:,} bytes" for name, size in sizes.items())


def _header(source: Source, interface: Interface, texts: dict[str, list[str]], notes: Sequence[str]) -> str:
    fields = [f"  {field.type} {field.name}[{field.size}];" for field in source.fields]
    about = "\n * ".join([f"$: {interface.about}, written by unrolled {unrolled.__version__}.", *notes])
    lines = [f"/* {about}", " * One state is one sequence. */", "#ifndef $$_H", "#define $$_H", ""]
    lines += ["#ifdef __cplusplus", 'extern "C" {', "#endif", ""]
    lines += [f"#define $$_{name} {size}" for name, size in interface.sizes.items()]
    lines += ["", "/* What is known of the steps so far. */", "typedef struct {", *fields, "} $_state;", ""]
    lines += [f"extern const char *const $_{name}[{len(each)}];" for name, each in texts.items()]
    lines += ["", "/* Sets the state before the first step of a sequence. */", "void $_init($_state *state);"]
    lines += [f"\n{declaration}" for declaration in interface.declarations]
    lines += ["", "#ifdef __cplusplus", "}", "#endif", "", "#endif", ""]
    return "\n".join(lines)


def _definitions(source: Source, texts: dict[str, list[str]]) -> str:
    functions = [source.init(), *source.functions]
    parts = ['#include "$.h"\n\n#include <math.h>', *(strings(name, each) for name, each in texts.items())]
    parts += [*source.arrays, *(helper.strip() for helper in source.helpers()), *functions]
    return "\n\n".join(parts) + "\n"


def _named(text: str, name: str) -> str:
    return text.replace("$$", name.upper()).replace("$", name)
