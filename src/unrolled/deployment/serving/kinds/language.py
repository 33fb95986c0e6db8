"""A language model: it writes text, and shows the odds of each next symbol and its gates."""

from base64 import b64encode
from collections.abc import Generator
from typing import TYPE_CHECKING, Annotated, Any

import torch
from torch import Tensor

from unrolled.checkpoint import Bundle
from unrolled.deployment.sampling import encode_prompt, language_model_of, stream_text
from unrolled.deployment.serving.kinds.base import Kind
from unrolled.deployment.serving.kinds.trials import trial_text
from unrolled.inspection.figures import gate_names, layer_name, retention_name
from unrolled.inspection.recorder import CellRecord, Recording

if TYPE_CHECKING:
    from fastapi import APIRouter

    from unrolled.deployment.serving.service import Service

_MOST_UNITS = 96  # of a layer, which are sent at each step
_LARGEST = {"c": 3.0}  # values beyond it look alike; 1 for others
_HIDDEN = ("projected", "recurrent", "output", "product_")


def _settings(bundle: Bundle) -> dict[str, Any]:
    return {"unit": language_model_of(bundle)[1].unit}


def _add_routes(routes: "APIRouter", service: "Service") -> None:
    from fastapi import Body

    @routes.post("/sample")
    async def sample(
        prompt: Annotated[str, Body()] = "",
        length: Annotated[int, Body(ge=0, le=service.limits.steps)] = 200,
        temperature: Annotated[float, Body(ge=0, le=100, allow_inf_nan=False)] = 0.8,
        top_k: Annotated[int | None, Body(ge=1)] = None,
        top_p: Annotated[float | None, Body(gt=0, le=1)] = None,
        seed: Annotated[int | None, Body(ge=0, lt=2**63)] = None,
        gates: Annotated[bool, Body()] = False,
    ) -> Any:
        """Write text: server-sent events with a symbol each, its probability, the next one's odds, and gates."""
        service.check_text(prompt, "the prompt")
        generator = service.generator
        if seed is not None:
            generator = torch.Generator(generator.device).manual_seed(seed)
        how: dict[str, Any] = {"length": length, "temperature": temperature, "top_k": top_k, "top_p": top_p}
        encode_prompt(language_model_of(service.bundle)[1], prompt)
        return await service.stream(_events(service.bundle, prompt, gates, generator, how))


def _events(
    bundle: Bundle, prompt: str, gates: bool, generator: torch.Generator, how: dict[str, Any]
) -> Generator[dict[str, Any]]:
    shown: Shown | None = None
    for symbol in stream_text(bundle, prompt, recorded=gates, generator=generator, **how):
        found: dict[str, Any] = {"text": symbol.text, "given": symbol.given, "odds": symbol.odds}
        found["probability"] = symbol.probability
        if symbol.recording is not None:
            if shown is None:
                shown = Shown(symbol.recording)
                found["layers"] = shown.layers
            found["values"] = shown.values(symbol.recording)
        yield found


class Shown:
    """Which values of a recorded step are shown, as a byte each.

    Attributes:
        layers: for each layer its name, the names of its values with their largest and least, the values that are shown
            first, and the numbers of the units that are shown.
    """

    def __init__(self, recording: Recording) -> None:
        self.layers = [_layer(record) for record in recording.values()]

    def values(self, recording: Recording) -> str:
        """Return all values of a step, layer by layer, value by value, unit by unit, as base64."""
        parts = [
            _bytes(record[value["name"]][0, 0].flatten()[layer["units"]], value["low"], value["high"])
            for record, layer in zip(recording.values(), self.layers, strict=True)
            for value in layer["values"]
        ]
        return b64encode(bytes(torch.cat(parts).tolist())).decode()


def _layer(record: CellRecord) -> dict[str, Any]:
    gates = gate_names(record)
    names = [name for name in dict.fromkeys((*record.taps, *record.states)) if not name.startswith(_HIDDEN)]
    sizes = {name: record[name][0, 0].numel() for name in names}
    units = sizes[names[0]]
    names = [name for name in names if sizes[name] == units]  # counters and other values are no units
    taken = torch.linspace(0, units - 1, min(units, _MOST_UNITS)).round().long().tolist()
    values: list[dict[str, Any]] = []
    for name in names:
        largest = 1.0 if name in gates else _LARGEST.get(name, 1.0)
        values.append({"name": name, "low": 0.0 if name in gates else -largest, "high": largest})
    first = retention_name(record)
    return {
        "name": layer_name(record),
        "values": values,
        "first": first if first in names else names[0],
        "units": taken,
    }


def _bytes(values: Tensor, low: float, high: float) -> Tensor:
    shares = ((values.float().cpu() - low) / (high - low)).clamp(0.0, 1.0).nan_to_num(0.5)
    return (shares * 255).round().to(torch.uint8)


def _trial(service: "Service") -> object:
    prompt = trial_text(language_model_of(service.bundle)[1])
    return [list(_events(service.bundle, prompt, gates, service.generator, {"length": 2})) for gates in (False, True)]


KIND = Kind("sample", "Write text", language_model_of, _settings, _add_routes, _trial)
