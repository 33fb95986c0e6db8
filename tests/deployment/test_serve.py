"""The server of each kind of network: its answers are those of the prediction functions, its limits hold."""

import base64
import io
import math
import socket
import threading
import time
import wave
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

from unrolled import CharacterTokenizer, Processor
from unrolled.checkpoint import Bundle
from unrolled.deployment import classify, sample_text, tag, transcribe, translate
from unrolled.deployment.serving.app import PAGE, try_out
from unrolled.deployment.serving.kinds import KINDS, kind_of
from unrolled.deployment.serving.limits import ServingLimits

Make = Callable[[str], Bundle]
Serve = Callable[..., Any]
TABLE = "time,y\n" + "".join(f"{step},{step % 2}\n" for step in range(12))


def image(width: int = 20, height: int = 10) -> bytes:
    pillow = pytest.importorskip("PIL.Image")
    file = io.BytesIO()
    pillow.effect_noise((width, height), 90).save(file, "PNG")
    return file.getvalue()


def sound(seconds: float = 0.5) -> bytes:
    pytest.importorskip("soundfile")
    file = io.BytesIO()
    samples = (3000 * torch.randn(int(8000 * seconds))).clamp(-32000, 32000).to(torch.int16)
    with wave.open(file, "wb") as opened:
        opened.setnchannels(1)
        opened.setsampwidth(2)
        opened.setframerate(8000)
        opened.writeframes(bytes(samples.view(torch.uint8).tolist()))
    return file.getvalue()


def decoded(url: str, kind: str) -> bytes:
    head, _, content = url.partition(",")
    assert head == f"data:{kind};base64"
    return base64.b64decode(content)


@pytest.mark.parametrize("length", [0, 12])
def test_a_language_model_writes_what_sampling_writes(make: Make, serve: Serve, length: int) -> None:
    made = make("language model")
    with serve(made) as client:
        answer = client.post("/api/sample", {"prompt": "two", "length": length, "seed": 5, "gates": True})
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    *symbols, end = answer.events
    expected = sample_text(made, "two", length=length, generator=torch.Generator().manual_seed(5))
    assert "".join(symbol["text"] for symbol in symbols) == expected
    assert end == {"end": True}
    assert [symbol["given"] for symbol in symbols] == [True] * 4 + [False] * length
    layers = symbols[0]["layers"]
    assert [layer["name"] for layer in layers] == ["layer 1", "layer 2"]
    assert {value["name"] for value in layers[0]["values"]} == {"i", "f", "g", "o", "h", "c"}
    assert layers[0]["first"] == "f"
    assert [len(base64.b64decode(symbol["values"])) for symbol in symbols] == [2 * 6 * 6] * len(symbols)
    assert not any("observer" in vars(module) for module in made.network.modules())


def test_the_bytes_of_a_step_are_its_gates(make: Make, serve: Serve) -> None:
    from unrolled.deployment import stream_text

    made = make("language model")
    with serve(made) as client:
        symbols = client.post("/api/sample", {"prompt": "two", "length": 0, "gates": True}).events[:-1]
    layer = symbols[0]["layers"][1]
    names = [value["name"] for value in layer["values"]]
    for sent, own in zip(symbols, stream_text(made, "two", length=0, recorded=True), strict=True):
        assert own.recording is not None
        for name, low, high in (("f", 0.0, 1.0), ("h", -1.0, 1.0), ("c", -3.0, 3.0)):
            begin = 6 * len(names) + 6 * names.index(name)
            found = torch.tensor(list(base64.b64decode(sent["values"])[begin : begin + 6])) / 255 * (high - low) + low
            expected = own.recording["steps.cells.1"][name][0, 0]
            torch.testing.assert_close(found, expected, atol=(high - low) / 509, rtol=0)


def test_a_translation_is_that_of_translate_with_its_attention(make: Make, serve: Serve) -> None:
    made = make("translation")
    with serve(made) as client:
        found = client.post("/api/translate", {"text": "one  two"}).json
        empty = client.post("/api/translate", {"text": " "}).json
        assert client.post("/api/translate", {"text": "one", "num_beams": 0}).status == 422
        assert client.get("/api/network").json["settings"]["beams"] == 10
    assert found["translations"][0]["text"] == next(iter(translate(made, ["one two"])))
    (piece,) = found["pieces"]
    assert "".join(piece["source"]) == "one two"
    assert [sum(row) for row in piece["weights"]] == pytest.approx([1.0] * (len(piece["written"]) + 1), abs=0.02)
    assert empty == {"translations": [{"text": "", "score": 0.0, "log_probability": 0.0}], "pieces": []}
    with serve(make("translation without attention")) as client:
        assert client.post("/api/translate", {"text": "one"}).json["pieces"][0]["weights"] is None


def test_a_caption_has_the_picture_and_where_it_looked(make: Make, serve: Serve) -> None:
    pillow = pytest.importorskip("PIL.Image")
    with serve(make("captioning")) as client:
        found = client.post("/api/caption", image()).json
        broken = client.post("/api/caption", b"no image")
    with pillow.open(io.BytesIO(decoded(found["picture"], "image/png"))) as shown:
        assert shown.size == (32, 32)
    assert len(found["weights"]) == len(found["written"]) + 1
    assert 1 <= len(found["captions"]) <= 3
    assert broken.status == 400
    assert "image" in broken.json["error"]


@pytest.mark.parametrize("kind", ["text", "labels", "sound", "pictures", "series"])
def test_a_classification_is_that_of_classify(make: Make, serve: Serve, kind: str) -> None:
    made = make(kind)
    bodies: dict[str, Any] = {"sound": sound, "pictures": image}
    sent: Any = bodies[kind]() if kind in bodies else {"text": "x,y\n1,2\n3,4\n" if kind == "series" else "two"}
    source: Any = sent if kind in bodies else torch.tensor([[1.0, 2], [3, 4]]) if kind == "series" else "two"
    with serve(made) as client:
        found = client.post("/api/classify", sent).json
        settings = client.get("/api/network").json["settings"]
    (expected,) = classify(made, [source])
    assert found["label"] == expected.label
    assert dict(found["probabilities"]) == pytest.approx(expected.values)
    assert settings["reads"] == {"labels": "text"}.get(kind, kind)
    assert settings["channels"] == (["x", "y"] if kind == "series" else [])


def test_a_regression_predicts_numbers(make: Make, serve: Serve) -> None:
    made = make("regression")
    with serve(made) as client:
        found = client.post("/api/classify", {"text": "two"}).json
    (expected,) = classify(made, ["two"])
    assert float(found["numbers"]["size"]) == pytest.approx(expected.values["size"], rel=1e-3)


def test_words_have_the_tags_of_tag(make: Make, serve: Serve) -> None:
    made = make("tagging")
    with serve(made) as client:
        found = client.post("/api/tag", {"text": "it rains .\n\nrains here"}).json["sentences"]
    expected = list(tag(made, ["it rains .", "rains here"]))
    assert [[(word["word"], word["tag"]) for word in words] for words in found] == [
        [(word.word, word.tag) for word in words] for words in expected
    ]


@pytest.mark.parametrize("kind", ["lines", "speech"])
def test_a_transcript_is_that_of_transcribe(make: Make, serve: Serve, kind: str) -> None:
    made, source = make(kind), image(60) if kind == "lines" else sound()
    with serve(made) as client:
        found = client.post("/api/transcribe", source).json
    (expected,) = transcribe(made, [source])
    assert found["text"] == expected.text
    assert found["log_probability"] == pytest.approx(expected.log_probability, abs=1e-4)
    assert [label["frame"] for label in found["labels"]] == [label.frame for label in expected.labels]


@pytest.mark.parametrize("kind", ["forecast", "forecast without intervals"])
def test_a_forecast_has_numbers_and_a_picture(make: Make, serve: Serve, kind: str) -> None:
    from unrolled.deployment.forecasting import forecast, forecaster_of, parse_csv_series

    made = make(kind)
    transform = forecaster_of(made)[1]
    with serve(made) as client:
        found = client.post("/api/forecast", {"text": TABLE, "horizon": 3}).json
        settings = client.get("/api/network").json["settings"]
        refused = client.post("/api/forecast", {"text": TABLE + "12,x\n"})
    series = parse_csv_series(TABLE, "table", transform.columns, transform.frequency)
    levels = [0.1, 0.25, 0.5, 0.75, 0.9] if kind == "forecast" else []
    expected = list(forecast(made, series, horizon=3, quantiles=levels))
    assert [row["forecast"] for row in found["rows"]] == pytest.approx([step.value for step in expected], abs=1e-6)
    assert [row["time"] for row in found["rows"]] == ["12", "13", "14"]
    assert ("q0.9" in found["rows"][0]) == bool(levels)
    ElementTree.fromstring(found["picture"])
    assert found["picture"].count("<polygon") == (2 if levels else 0)
    assert settings == {"horizon": 4, "columns": ["time", "y"], "levels": levels}
    assert refused.status == 400
    assert "line 14" in refused.json["error"]


def test_music_is_a_sound_and_a_picture(make: Make, serve: Serve) -> None:
    pytest.importorskip("pretty_midi")
    with serve(make("music")) as client:
        found = client.post("/api/compose", {"frames": 8, "temperature": 1.0}).json
    assert len(found["frames"]) == 8
    with wave.open(io.BytesIO(decoded(found["sound"], "audio/wav"))) as opened:
        assert opened.getnframes() > 0
    assert decoded(found["picture"], "image/png").startswith(b"\x89PNG")


@pytest.mark.parametrize("kind", ["handwriting", "strokes"])
def test_handwriting_is_a_picture(make: Make, serve: Serve, kind: str) -> None:
    with serve(make(kind)) as client:
        found = client.post("/api/write", {"text": "ab ba", "bias": 1.0}).json
        if kind == "handwriting":
            assert client.post("/api/write", {"text": "ab " * 200}).status == 413
            assert client.post("/api/write", {"text": "Q"}).status == 400
    ElementTree.fromstring(found["picture"])
    assert "<path" in found["picture"]


def test_a_drawing_is_a_picture(make: Make, serve: Serve) -> None:
    with serve(make("drawing")) as client:
        assert decoded(client.post("/api/draw", {"num": 2}).json["picture"], "image/png").startswith(b"\x89PNG")
        again = client.post("/api/redraw", image()).json
    assert math.isfinite(again["bound"])
    assert decoded(again["picture"], "image/png").startswith(b"\x89PNG")


def test_every_kind_has_its_page_and_other_networks_are_refused(make: Make) -> None:
    for kind in KINDS:
        assert (PAGE / f"{kind.name}.html").is_file()
        assert (PAGE / f"{kind.name}.js").is_file()
    with pytest.raises(ValueError, match="there is no page for a Linear from CharacterTokenizer to NoneType"):
        kind_of(Bundle(torch.nn.Linear(2, 2), Processor(CharacterTokenizer("ab")), {}))
    for name in ("upload", "seconds"):
        with pytest.raises(ValueError, match=f"{name}=0: expected a number above 0"):
            ServingLimits(**{name: 0})  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="seconds=nan: expected"):
        ServingLimits(seconds=float("nan"))


NETWORKS = (
    "language model",
    "translation without attention",
    "captioning",
    "text",
    "sound",
    "pictures",
    "series",
    "tagging",
    "lines",
    "speech",
    "forecast",
    "music",
    "handwriting",
    "strokes",
    "drawing",
)


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_kind_has_a_trial_prediction(make: Make, kind: str) -> None:
    for package in ("PIL", "soundfile", "pretty_midi"):
        pytest.importorskip(package)
    try_out(make(kind), ServingLimits(), torch.Generator())


def test_the_page_needs_nothing_from_elsewhere(make: Make, serve: Serve) -> None:
    for path in PAGE.iterdir():
        content = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in content, path
        assert "https://" not in content, path
    with serve(make("language model")) as client:
        page = client.get("/")
        assert page.headers["content-type"].startswith("text/html")
        assert b"<h1>Write text</h1>" in page.body
        for name, kind in (("style.css", "text/css"), ("sample.js", "text/javascript"), ("icon.svg", "image/svg")):
            assert client.get(f"/page/{name}").headers["content-type"].startswith(kind)
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "access-control-allow-origin" not in page.headers
        assert client.get("/page/../app.py").status == 404


def test_foreign_pages_and_names_are_refused(make: Make, serve: Serve) -> None:
    with serve(make("language model")) as client:
        own = f"127.0.0.1:{client.port}"
        for headers in (
            {"Host": "evil.example"},
            {"Host": "127.0.0.1.evil.example"},
            {"Host": ""},
            {"Host": "[::1"},
            {"Host": own, "Origin": "http://evil.example"},
            {"Host": own, "Origin": "null"},
            {"Host": own, "Origin": f"http://localhost:{client.port}"},
        ):
            refused = client.post("/api/sample", {"length": 1}, **headers)
            assert refused.status == 403, headers
            assert refused.json["error"]
        for headers in (
            {"Host": f"localhost:{client.port}"},
            {"Host": "[::1]:80"},
            {"Host": "192.168.3.4"},
            {"Host": own, "Origin": f"http://{own}"},
        ):
            assert client.post("/api/sample", {"length": 1}, **headers).status == 200, headers


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({"prompt": "Q"}, 400, "'Q'"),
        ({"prompt": "o" * 51}, 413, "51 characters"),
        ({"length": 21}, 422, "length: input should be less than or equal to 20"),
        ({"length": "many"}, 422, "length: input should be a valid integer"),
        ({"temperature": -1}, 422, "temperature: "),
        ({"temperature": float("nan")}, 422, "temperature: "),
        ({"top_p": 0}, 422, "top_p: "),
        ([1], 422, "field required"),
        (b"{", 422, "the request is not valid JSON"),
        (b"\xff", 400, "parsing the body"),
        (b"x" * 2001, 413, "2,000 bytes"),
    ],
)
def test_a_wrong_request_is_told_in_a_sentence(make: Make, serve: Serve, body: Any, status: int, told: str) -> None:
    with serve(make("language model"), text=50, steps=20, upload=2000) as client:
        refused = client.post("/api/sample", body, **{"Content-Type": "application/json"})
        assert (refused.status, list(refused.json)) == (status, ["error"])
        assert told in refused.json["error"]
        assert "Traceback" not in refused.json["error"]
        assert client.post("/api/sample", {"length": 1}).status == 200


def test_other_paths_and_methods_are_told(make: Make, serve: Serve) -> None:
    with serve(make("language model")) as client:
        assert client.get("/nothing").json == {"error": "there is no GET /nothing here"}
        assert client.get("/api/sample").status == 405
        assert client.post("/api/classify", {"text": "one"}).status == 404


def test_a_body_without_a_length_is_limited_while_it_arrives(make: Make, serve: Serve) -> None:
    with serve(make("pictures"), upload=2000) as client:
        connection = client.open()
        connection.request(
            "POST",
            "/api/classify",
            iter([b"x" * 1500] * 2),
            encode_chunked=True,
            headers={"Transfer-Encoding": "chunked"},
        )
        response = connection.getresponse()
        assert response.status == 413
        assert b"2,000 bytes" in response.read()
        assert client.post("/api/classify", b"").status == 400


def test_a_body_that_does_not_arrive_is_given_up(make: Make, serve: Serve) -> None:
    with serve(make("pictures"), seconds=0.3) as client, socket.create_connection(("127.0.0.1", client.port)) as one:
        one.sendall(b"POST /api/classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nx")
        assert b" 408 " in one.recv(4096)


def test_a_long_recording_and_a_large_image_are_refused(make: Make, serve: Serve) -> None:
    with serve(make("sound"), recording=0.2) as client:
        assert "max_seconds=0.2" in client.post("/api/classify", sound()).json["error"]
    with serve(make("pictures"), pixels=100) as client:
        assert client.post("/api/classify", image()).status == 400


def slow(made: Bundle, seconds: float) -> Bundle:
    """A network each of whose steps takes a while."""
    network: Any = made.network
    step = network.step

    def stepped(*arguments: Any) -> Any:
        time.sleep(seconds)
        return step(*arguments)

    network.step = stepped
    return made


def test_one_request_computes_at_a_time_and_too_many_are_refused(make: Make, serve: Serve) -> None:
    with serve(slow(make("language model"), 0.02), waiting=1) as client:
        answers: list[Any] = []
        ask = lambda: answers.append(client.post("/api/sample", {"length": 20}))  # noqa: E731
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
            time.sleep(0.05)
        for thread in threads:
            thread.join()
        assert sorted(answer.status for answer in answers) == [200, 200, 503, 503]
        refused = next(answer for answer in answers if answer.status == 503)
        assert refused.headers["retry-after"] == "1"
        assert "2 requests are before this one" in refused.json["error"]
        assert client.post("/api/sample", {"length": 1}).status == 200


def test_time_is_limited(make: Make, serve: Serve) -> None:
    with serve(slow(make("language model"), 0.05), seconds=0.3) as client:
        *_, last = client.post("/api/sample", {"length": 100}).events
        assert "took longer than 0.3 seconds" in last["error"]
        assert client.post("/api/sample", {"length": 1}).status == 200
    made = make("translation")
    slow(Bundle(made.network.decoder, made.processor, {}), 0.1)  # pyright: ignore[reportArgumentType]
    with serve(made, seconds=0.2) as client:
        refused = client.post("/api/translate", {"text": "one two three"})
        assert refused.status == 503
        assert "took longer than 0.2 seconds" in refused.json["error"]
        assert refused.headers["retry-after"] == "1"


def test_a_client_that_leaves_ends_its_request(make: Make, serve: Serve) -> None:
    with serve(slow(make("language model"), 0.02), waiting=0) as client:
        connection = client.open()
        connection.request("POST", "/api/sample", b'{"length": 1000}', {"Content-Type": "application/json"})
        connection.getresponse().read(100)
        assert client.post("/api/sample", {"length": 1}).status == 503
        connection.close()
        ends = time.monotonic() + 20
        while (status := client.post("/api/sample", {"length": 1}).status) == 503 and time.monotonic() < ends:
            time.sleep(0.05)
        assert status == 200


def test_a_mistake_of_the_server_is_no_traceback(make: Make, serve: Serve) -> None:
    made = make("text")
    made.network.forward = lambda *arguments: 1 / 0  # pyright: ignore[reportAttributeAccessIssue]
    with serve(made) as client:
        refused = client.post("/api/classify", {"text": "one"})
        assert refused.status == 500
        assert refused.json == {"error": "the server made a mistake; its terminal says more"}
