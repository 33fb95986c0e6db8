"""Take a picture of the page of a trained network: `python docs/screenshots.py CHECKPOINT PICTURE.png --text "ROMEO:"`.

The page of a language model writes after the text; that of a translator translates it.
"""

import argparse
import io
import threading
import time
from pathlib import Path

from browser import Browser

from unrolled import load_bundle
from unrolled.deployment.serving.app import create_app
from unrolled.deployment.serving.limits import ServingLimits
from unrolled.deployment.serving.server import listen

_COLORS = 256  # of a picture, which keeps it small


def sample(browser: Browser, text: str) -> None:
    """Write 240 symbols, and look at one of them."""
    browser.enter("#prompt", text)
    browser.run("document.querySelector('#seed').value = 1")
    browser.run("document.querySelector('#length').value = 240")
    browser.run("document.querySelector('form').requestSubmit()")
    browser.wait("document.querySelector('#status').textContent.includes('written')")
    browser.run("document.querySelector('#text').focus()")
    browser.press("End")
    for _ in range(40):
        browser.press("ArrowLeft")


def translate(browser: Browser, text: str) -> None:
    """Translate, and look at a symbol in the middle."""
    browser.enter("#text", text)
    browser.run("document.querySelector('form').requestSubmit()")
    browser.wait("document.querySelector('#pieces canvas')")
    browser.run("document.querySelector('.written').focus()")
    for _ in range(browser.run("document.querySelectorAll('.written span').length") // 2):
        browser.press("ArrowRight")


def take(checkpoint: str, text: str, *, width: int, dark: bool) -> bytes:
    """Serve a checkpoint, use its page, and return the picture of the whole page as PNG."""
    import uvicorn
    from PIL import Image

    bundle = load_bundle(checkpoint)
    app = create_app(bundle, limits=ServingLimits(seconds=600.0))  # the first request may compile kernels
    with listen("127.0.0.1", 0) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        with Browser(width, 900, dark=dark, timeout=600.0) as browser:
            browser.open(f"http://127.0.0.1:{listening.getsockname()[1]}/")
            browser.wait("document.querySelector('#facts').textContent")
            kind = browser.run("document.querySelector('main').id")
            {"sample": sample, "translate": translate}[kind](browser, text)
            height = browser.run("document.documentElement.scrollHeight")
            browser.look(width, height, dark=dark)
            time.sleep(0.5)  # until it is drawn
            picture = browser.picture()
            if browser.errors:
                raise ValueError(f"the page has errors: {browser.errors}")
        server.should_exit = True
        thread.join()
    small = Image.open(io.BytesIO(picture)).convert("RGB").quantize(_COLORS, dither=Image.Dither.NONE)
    found = io.BytesIO()
    small.save(found, "PNG", optimize=True)
    return found.getvalue()


def main() -> None:
    """Take a picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--text", required=True, help="what is typed")
    parser.add_argument("--width", type=int, default=1000)
    parser.add_argument("--dark", action="store_true")
    options = parser.parse_args()
    options.picture.write_bytes(take(options.checkpoint, options.text, width=options.width, dark=options.dark))
    print(options.picture)


if __name__ == "__main__":
    main()
