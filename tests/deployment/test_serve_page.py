"""Pages in a real browser: what is typed, pressed and pointed at has its effect, and the console stays empty."""

import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from unrolled.checkpoint import Bundle
from unrolled.deployment import sample_text, translate

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "docs"))

from browser import Browser, program

pytestmark = pytest.mark.skipif(program() is None, reason="there is no Chromium")

Make = Callable[[str], Bundle]
Serve = Callable[..., Any]
CONTROL = 2  # the modifier of a key


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as one:
        yield one


@pytest.fixture(autouse=True)
def _quiet(browser: Browser) -> Iterator[None]:
    browser.errors.clear()
    browser.look(1280, 900)
    yield
    assert browser.errors == []


def fits(browser: Browser) -> bool:
    """Whether nothing is cut off at the right, on a wide and on a narrow window, in light and dark."""
    found = True
    for width, dark in ((1280, False), (400, True)):
        browser.look(width, 900, dark=dark)
        found &= browser.run("document.documentElement.scrollWidth <= innerWidth")
    return found


def test_a_text_is_written_with_its_odds_and_gates(browser: Browser, make: Make, serve: Serve) -> None:
    made = make("language model")
    with serve(made) as client:
        browser.open(client.address)
        browser.wait("document.querySelectorAll('#odds dt').length === 8")
        browser.enter("#prompt", "two")
        browser.wait("document.querySelectorAll('#text span.given').length === 3")  # the odds follow what is typed
        before = browser.run("document.querySelector('#odds').textContent")
        browser.run("document.querySelector('#length').value = 20, document.querySelector('#seed').value = 5")
        browser.press("Enter", modifiers=CONTROL)
        browser.wait("document.querySelector('#status').textContent === '20 characters written'")
        expected = sample_text(made, "two", length=20, generator=torch.Generator().manual_seed(5))
        assert browser.run("document.querySelector('#text').textContent") == expected
        assert browser.run("document.querySelector('#odds').textContent") != before
        browser.run("document.querySelector('#text').focus()")
        browser.press("End")
        browser.press("ArrowLeft")
        assert browser.run("document.querySelector('#text [aria-current]').dataset.number") == "21"
        assert "symbol 22" in browser.run("document.querySelector('#here').textContent")
        colored = "[...document.querySelectorAll('#text span')].filter((span) => span.style.background).length"
        assert browser.run(colored) == 23
        browser.move("#gates", 0.5, 0.9, click=True)  # the row of a unit
        assert browser.run("document.querySelector('#unit').value") == "5"
        drawn = "new Set(document.querySelector('#gates').getContext('2d').getImageData(0, 20, 200, 14).data).size > 5"
        browser.wait(drawn)
        assert fits(browser)


def test_a_translation_is_shown_with_its_attention(browser: Browser, make: Make, serve: Serve) -> None:
    made = make("translation")
    with serve(made) as client:
        browser.open(client.address)
        browser.wait("document.querySelector('#facts').textContent")
        browser.enter("#text", "one two")
        browser.press("Tab")
        browser.press("Tab")
        browser.press("Enter")
        browser.wait("document.querySelector('#pieces canvas')")
        assert browser.run("document.querySelector('#best').textContent") == next(iter(translate(made, ["one two"])))
        browser.move("#pieces canvas", 0.6, 0.7)
        browser.wait("document.querySelector('.here').textContent.includes('←')")
        shaded = "[...document.querySelectorAll('.source span')].some((span) => span.style.background)"
        assert browser.run(shaded)
        assert fits(browser)


def test_a_microphone_is_classified(browser: Browser, make: Make, serve: Serve) -> None:
    pytest.importorskip("soundfile")
    with serve(make("sound")) as client:
        browser.open(client.address)
        browser.wait("!document.querySelector('#speak').hidden")
        browser.move("#record", click=True)
        browser.wait("document.querySelectorAll('#bars dt').length === 2")  # while it records
        browser.move("#record", click=True)
        browser.wait(
            "document.querySelector('#record').textContent === 'Record' && !document.querySelector('#sound').hidden"
        )
        assert browser.run("document.querySelector('#label').textContent") in ("a", "b")
        browser.wait("!document.querySelector('#record').disabled")


def test_files_are_uploaded(browser: Browser, make: Make, serve: Serve, tmp_path: Path) -> None:
    pillow = pytest.importorskip("PIL.Image")
    file = io.BytesIO()
    pillow.effect_noise((20, 10), 90).save(file, "PNG")
    (tmp_path / "one.png").write_bytes(file.getvalue())
    (tmp_path / "two.png").write_bytes(b"no picture")
    with serve(make("captioning")) as client:
        browser.open(client.address)
        browser.wait("document.querySelector('#facts').textContent")
        browser.upload("#file", str(tmp_path / "one.png"))
        browser.wait("!document.querySelector('#result').hidden")
        assert browser.run("document.querySelector('#picture').naturalWidth") == 32
        assert fits(browser)
        browser.upload("#file", str(tmp_path / "two.png"))
        browser.wait("document.querySelector('#status').classList.contains('error')")
        assert "image" in browser.run("document.querySelector('#status').textContent")
        browser.errors[:] = [error for error in browser.errors if "400" not in error]  # the browser names the answer


def test_a_pasted_table_is_forecast(browser: Browser, make: Make, serve: Serve) -> None:
    with serve(make("forecast")) as client:
        browser.open(client.address)
        browser.wait("document.querySelector('#facts').textContent")
        browser.enter("#table", "time,y\n" + "".join(f"{step},{step % 2}\n" for step in range(12)))
        browser.press("Enter", modifiers=CONTROL)
        browser.wait("document.querySelectorAll('#picture polygon').length === 2")
        assert browser.run("document.querySelectorAll('#rows tbody tr').length") == 4
        assert fits(browser)


@pytest.mark.parametrize(
    ("kind", "typed", "shown"),
    [
        ("text", {"#text": "two"}, "document.querySelectorAll('#bars dt').length === 2"),
        ("series", {"#text": "x,y\n1,2\n3,4"}, "document.querySelectorAll('#bars dt').length === 2"),
        ("regression", {"#text": "two"}, "document.querySelectorAll('#numbers tr').length === 1"),
        ("tagging", {"#text": "it rains ."}, "document.querySelectorAll('#sentences small').length === 3"),
        ("handwriting", {"#text": "ab"}, "document.querySelector('#picture path')"),
        ("music", {}, "document.querySelector('#picture').naturalWidth > 0"),
        ("drawing", {}, "document.querySelector('#picture').naturalWidth > 0"),
    ],
)
def test_other_pages_show_their_answers(
    browser: Browser, make: Make, serve: Serve, kind: str, typed: dict[str, str], shown: str
) -> None:
    with serve(make(kind)) as client:
        browser.open(client.address)
        browser.wait("document.querySelector('#facts').textContent")
        for place, text in typed.items():
            browser.enter(place, text)
        browser.run("document.querySelector('form').requestSubmit()")
        browser.wait(shown)
        assert fits(browser)
