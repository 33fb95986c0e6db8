"""A self-contained HTML page with images, generated captions and references."""

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

from unrolled.training.console.outputs import write_text
from unrolled.training.tasks.seq2seq import GeneratedText
from unrolled.wording import counted
from unrolled_tasks.captioning.data import CaptionData
from unrolled_tasks.captioning.scores import caption_scores, corpus_scores

_SIDE = 160  # maximum side of an image on the page, in pixels

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 74rem; padding: 0 1rem;
       color: #1c1c1c; background: #fafafa }
h1 { font-size: 1.4rem; margin: 0 0 .2rem }
.numbers { color: #555; margin: 0 0 1.5rem }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(21rem, 1fr)); gap: .9rem; align-items: start }
figure { display: flex; gap: .8rem; margin: 0; padding: .7rem; background: #fff; border: 1px solid #e2e2e2;
         border-radius: 8px; break-inside: avoid }
img { width: 112px; height: 112px; object-fit: contain; image-rendering: auto; flex: none; border-radius: 4px;
      background: #f0f0f0 }
figcaption { min-width: 0 }
.written { font-weight: 600; margin: 0 0 .3rem }
ul { margin: 0; padding: 0 0 0 1rem; color: #555; font-size: .86rem } li { margin: 0 0 .15rem }
.score { font-size: .8rem; color: #777; margin-top: .3rem; font-variant-numeric: tabular-nums; overflow-wrap: anywhere }
@media (prefers-color-scheme: dark) {
  body { background: #161616; color: #eaeaea } figure { background: #202020; border-color: #333 }
  .numbers, ul, .score { color: #a5a5a5 } img { background: #2a2a2a } }
"""


def write_gallery(path: Path, generated: Sequence[GeneratedText], data: CaptionData, split: str, most: int) -> None:
    """Writes the page: captions in order of increasing CIDEr-D, at most `most` of them, evenly spaced in that order.

    Args:
        path: path of the page.
        generated: all captions of the split.
        data: the data of the images.
        split: name of the split.
        most: maximum number of images on the page.
    """
    ranked = sorted(zip(caption_scores(generated), generated, strict=True), key=lambda pair: (pair[0], pair[1].example))
    step = max(1, -(-len(ranked) // most))
    shown = ranked[::step]
    numbers = ", ".join(f"{name} {value:.3g}" for name, value in corpus_scores(generated).items() if "un" not in name)
    head = f"{len(shown)} of {counted(len(ranked), 'image')} of the {split} split, worst first by CIDEr-D"
    figures = "\n".join(_figure(score, item, data, split) for score, item in shown)
    page = (
        '<!doctype html>\n<html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>Captions</title>\n<style>{_STYLE}</style>\n<h1>{html.escape(head)}</h1>\n"
        f'<p class="numbers">{html.escape(numbers)}</p>\n<div class="grid">\n{figures}\n</div>\n</html>\n'
    )
    write_text(path, page)


def _figure(score: float, item: GeneratedText, data: CaptionData, split: str) -> str:
    image = data.picture(split, item.example)
    image.thumbnail((_SIDE, _SIDE))
    content = io.BytesIO()
    kind = "PNG" if image.mode == "L" else "JPEG"
    image.save(content, kind)
    encoded = base64.b64encode(content.getvalue()).decode()
    references = "".join(f"<li>{html.escape(text)}</li>" for text in item.references)
    return (
        f'<figure><img alt="" src="data:image/{kind.lower()};base64,{encoded}"><figcaption>'
        f'<p class="written">{html.escape(item.text) or "(nothing)"}</p><ul>{references}</ul>'
        f'<div class="score">CIDEr-D {score:.2f} · {html.escape(Path(item.source).name)}</div></figcaption></figure>'
    )
