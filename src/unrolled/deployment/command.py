"""The command line interface for trained networks, python -m unrolled, with torch alone."""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import tee
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from unrolled.deployment.progress import Progress
from unrolled.wording import counted, refused

if TYPE_CHECKING:
    import torch

    from unrolled.checkpoint import Bundle

RENAMED = {  # former names of options, which are answered with the new ones
    "--diversity": "--diversity-penalty",
    "--groups": "--num-beam-groups",
    "--no-repeat": "--no-repeat-ngram-size",
    "--skip-broken": "--on-error skip",
    "--width": "--num-beams",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, or 2 after an error."""
    options = _parsed(sys.argv[1:] if arguments is None else list(arguments))
    try:
        options.run(options)
        sys.stdout.flush()
    except ValueError as error:
        return _stopped(options, str(error))
    except BrokenPipeError:  # the reader of a pipe, such as head, has ended
        sys.stderr.close()
        return 0
    except OSError as error:
        _forget_output()
        return _stopped(options, refused(error))
    return 0


def _stopped(options: argparse.Namespace, reason: str) -> int:
    print(f"unrolled {options.command}: {reason}", file=sys.stderr)
    return 2


def _forget_output() -> None:
    """Discard output that couldn't be written, so that Python doesn't try to write it again at exit."""
    if sys.stdout is sys.__stdout__:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parsed(arguments: list[str]) -> argparse.Namespace:
    """Parse options between file arguments, too, and print the command's own usage for an unknown option."""
    parser, commands = _parsers()
    command = commands.get(arguments[0]) if arguments else None
    if command is None:
        return parser.parse_args(arguments)  # help, or an error with the list of commands
    for option in (argument.partition("=")[0] for argument in arguments):
        if option in RENAMED:
            command.error(f"{option} is called {RENAMED[option]}")
    return command.parse_intermixed_args(arguments[1:], argparse.Namespace(command=arguments[0]))


def _parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    parser = argparse.ArgumentParser(
        prog="python -m unrolled",
        description="Use a trained recurrent network.",
        epilog="To train and evaluate a network: python -m unrolled train --help, python -m unrolled evaluate --help",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_sample(commands)
    _add_translate(commands)
    _add_caption(commands)
    _add_classify(commands)
    _add_tag(commands)
    _add_inspect(commands)
    return parser, commands.choices


def _add_sample(commands: Any) -> None:
    sample = commands.add_parser(
        "sample",
        help="generate text with a language model",
        description="Generate text with a language model.",
        epilog='example: python -m unrolled sample best.ckpt --prompt "ROMEO:" --length 400 --temperature 0.8',
    )
    sample.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a .ckpt file from training")
    sample.add_argument("--prompt", default="", help="the start of the text (default: none)")
    sample.add_argument("--length", type=int, default=400, help="number of symbols to generate (default: %(default)s)")
    sample.add_argument(
        "--temperature",
        type=float,
        default=0.8,
        help="divisor of the logits; 0 for the most probable symbol (default: %(default)s)",
    )
    sample.add_argument("--top-k", type=int, metavar="K", help="sample from the K most probable symbols")
    sample.add_argument(
        "--top-p", type=float, metavar="P", help="sample from the most probable symbols with total probability P"
    )
    sample.add_argument("--count", type=int, default=1, help="number of texts (default: %(default)s)")
    _add_common(sample)
    sample.set_defaults(run=_sample)


def _add_translate(commands: Any) -> None:
    translate = commands.add_parser(
        "translate",
        help="translate lines of text",
        description="Translate standard input to standard output, line by line and in order.",
        epilog="example: python -m unrolled translate best.ckpt < in.txt > out.txt",
    )
    translate.add_argument(
        "checkpoint", type=Path, nargs="+", metavar="CHECKPOINT", help="a .ckpt file, or several for an ensemble"
    )
    _add_search(translate)
    translate.add_argument(
        "--max-ratio", type=float, default=2.0, help="maximum tokens per source token (default: %(default)s)"
    )
    translate.add_argument("--max-extra", type=int, default=10, help="added to the maximum (default: %(default)s)")
    translate.add_argument("--min-ratio", type=float, default=0.0, help="minimum tokens per source token")
    translate.add_argument(
        "--n-best", type=int, metavar="N", help="print N alternatives: line number, score and text, tab-separated"
    )
    translate.add_argument(
        "--ahead",
        type=int,
        default=512,
        help="lines read before the first output; 1 for interactive use (default: %(default)s)",
    )
    translate.add_argument(
        "--max-length",
        type=int,
        default=128,
        metavar="N",
        help="maximum source tokens; longer lines are split at sentence ends (default: %(default)s)",
    )
    translate.add_argument(
        "--batch-tokens", type=int, default=2048, help="source tokens in a batch (default: %(default)s)"
    )
    _add_common(translate)
    translate.set_defaults(run=_translate)


def _add_caption(commands: Any) -> None:
    caption = commands.add_parser(
        "caption",
        help="describe images",
        description="Print a line for each image: its path and a caption, tab-separated.",
        epilog="example: python -m unrolled caption best.ckpt photo.jpg other.png",
    )
    caption.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a .ckpt file from training")
    caption.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="image files")
    caption.add_argument(
        "--with",
        dest="others",
        type=Path,
        action="append",
        default=[],
        metavar="CHECKPOINT",
        help="another checkpoint for an ensemble (repeatable)",
    )
    _add_search(caption)
    caption.add_argument("--max-length", type=int, default=30, help="maximum number of tokens (default: %(default)s)")
    caption.add_argument(
        "--n-best", type=int, metavar="N", help="print N alternatives: path, score and text, tab-separated"
    )
    caption.add_argument("--batch-size", type=int, default=16, help="images in a batch (default: %(default)s)")
    caption.add_argument(
        "--on-error",
        choices=("raise", "skip"),
        default="raise",
        help="skip: skip unreadable images, and report them",
    )
    _add_pixels(caption)
    _add_common(caption)
    caption.set_defaults(run=_caption)


def _add_search(command: Any) -> None:
    command.add_argument(
        "--num-beams", type=int, default=5, help="beam size; 1 for greedy search (default: %(default)s)"
    )
    command.add_argument(
        "--length-penalty", type=float, default=1.0, help="0 favors short texts (default: %(default)s)"
    )
    command.add_argument(
        "--coverage-penalty", type=float, default=0.0, help="penalty of untranslated words (default: %(default)s)"
    )
    command.add_argument("--no-repeat-ngram-size", type=int, default=0, metavar="N", help="never repeat an N-gram")
    command.add_argument("--num-beam-groups", type=int, default=1, help="groups of a diverse beam search")
    command.add_argument("--diversity-penalty", type=float, default=0.0, help="weight of the difference between groups")
    command.add_argument("--temperature", type=float, help="sample at this temperature instead of searching")


def _add_classify(commands: Any) -> None:
    classify = commands.add_parser(
        "classify",
        help="classify recordings, images or lines of text",
        description="Classify files, or standard input line by line. Prints source, label and probability.",
        epilog="example: python -m unrolled classify best.ckpt one.wav two.flac",
    )
    classify.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a .ckpt file from training")
    classify.add_argument(
        "files", nargs="*", metavar="FILE", help="recordings or images (default: lines of standard input)"
    )
    classify.add_argument("--json", action="store_true", help="print JSON lines with all probabilities")
    classify.add_argument(
        "--ahead", type=int, default=256, help="sources read before the first output; 1 for interactive use"
    )
    classify.add_argument(
        "--on-error",
        choices=("raise", "skip"),
        default="raise",
        help="skip: skip unreadable sources, and report them",
    )
    _add_pixels(classify)
    classify.add_argument(
        "--max-length", type=int, default=10_000, metavar="N", help="maximum steps of a text (default: %(default)s)"
    )
    classify.add_argument(
        "--max-seconds",
        type=float,
        default=3600.0,
        metavar="S",
        help="maximum length of a recording (default: %(default)g)",
    )
    _add_common(classify)
    classify.set_defaults(run=_classify)


def _add_pixels(command: Any) -> None:
    command.add_argument(
        "--max-pixels",
        type=int,
        default=89_478_485,
        metavar="N",
        help="maximum size of an image (default: %(default)s)",
    )


def _add_common(command: Any) -> None:
    command.add_argument("--seed", type=int, help="random seed (default: a new one each time)")
    command.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps … (default: %(default)s)")
    command.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="allow classes of this package in the file, for custom cells (repeatable)",
    )


def _sample(options: argparse.Namespace) -> None:
    from unrolled.deployment.sampling import sample_text

    if options.count < 1:
        raise ValueError(f"--count {options.count}: expected 1 or more")
    generator = _generator(options)
    bundle = _load(options, options.checkpoint)
    how = {name: getattr(options, name) for name in ("length", "temperature", "top_k", "top_p")}
    with Progress("sample") as progress:
        for number in range(options.count):
            if number:
                print("\n" + "─" * 40 + "\n")
            progress.at(f"text {number + 1:,} of {options.count:,} is being generated")
            print(sample_text(bundle, options.prompt, generator=generator, **how), flush=True)


def _translate(options: argparse.Namespace) -> None:
    from unrolled.deployment.translation import alternatives, translate
    from unrolled.generation.search import Search

    named = {name: getattr(options, name) for name in Search._fields if name != "n_best"}
    search = Search(**named, n_best=1 if options.n_best is None else options.n_best).checked()
    generator = _generator(options)
    bundles = [_load(options, path) for path in options.checkpoint]
    lines = _utf8(sys.stdin, "standard input")
    how: dict[str, Any] = {name: getattr(options, name) for name in ("batch_tokens", "ahead", "max_length")}
    with Progress("translate") as progress:
        how |= {"generator": generator, "notice": partial(_report, "translate")}
        how["progress"] = partial(progress.counted, "lines are translated")
        if options.n_best is None:
            for text in translate(bundles, lines, options=search, **how):
                print(_line(text), flush=True)
            return
        for number, row in enumerate(alternatives(bundles, lines, options=search, **how), start=1):
            for candidate in row:
                print(number, f"{candidate.score:.4f}", _line(candidate.text), sep="\t", flush=True)


def _caption(options: argparse.Namespace) -> None:
    from unrolled.deployment.captioning import CAPTIONS, captions
    from unrolled.deployment.decoding import best_candidate

    if options.max_length < 1:
        raise ValueError(f"--max-length {options.max_length}: expected 1 or more")
    named = {name: getattr(options, name) for name in CAPTIONS._fields if hasattr(options, name) and name != "n_best"}
    search = CAPTIONS._replace(
        **named, n_best=1 if options.n_best is None else options.n_best, max_extra=options.max_length
    ).checked()
    generator = _generator(options)
    bundles = [_load(options, path) for path in (options.checkpoint, *options.others)]
    skipped: list[ValueError] = []
    of = len(options.images)
    with Progress("caption") as progress:
        progress.counted("images have captions", 0, of)
        found = captions(
            bundles,
            options.images,
            options=search,
            batch_size=options.batch_size,
            generator=generator,
            max_pixels=options.max_pixels,
            on_error=skipped.append if options.on_error == "skip" else None,
            progress=lambda done: progress.counted("images have captions", done, of),
        )
        for path, row in zip(options.images, found, strict=True):
            shown = [] if row is None else row if options.n_best else [best_candidate(str(path), row)]
            for candidate in shown:
                score = (f"{candidate.score:.4f}",) if options.n_best else ()
                print(path, *score, _line(candidate.text), sep="\t", flush=True)
    _report_skipped(skipped, counted(len(options.images), "image"), options)


def _report_skipped(skipped: Sequence[ValueError], of: str, options: argparse.Namespace) -> None:
    for error in skipped:
        print(f"unrolled {options.command}: skipped: {error}", file=sys.stderr)
    if skipped:
        print(f"unrolled {options.command}: {len(skipped)} of {of} skipped", file=sys.stderr)


def _line(text: str) -> str:
    return " ".join(text.splitlines())


def _classify(options: argparse.Namespace) -> None:
    from unrolled.deployment.classification import Limits, predictions, reads
    from unrolled.processing.numbers import Scaler

    bundle = _load(options, options.checkpoint)
    wanted = reads(bundle)
    if wanted == "text" and options.files:
        raise ValueError(f"this network classifies text, not files; use: … classify {options.checkpoint} < texts.txt")
    if wanted == "series" or (wanted != "text" and not options.files):
        kind = {"sound": "recordings", "pictures": "pictures"}.get(wanted)
        raise ValueError(
            f"pass {kind} to classify" if kind else "series can be classified only from Python: see classify()"
        )
    # `tee` reads line by line, so that interactive use gets each output before the next line.
    names, sources = tee(options.files or _utf8(sys.stdin, "standard input"))
    skipped: list[ValueError] = []
    skip = skipped.append if options.on_error == "skip" else None
    how: dict[str, Any] = {"ahead": options.ahead, "notice": partial(_report, "classify"), "on_error": skip}
    how["limits"] = Limits(options.max_pixels, options.max_seconds, options.max_length)
    num_classified = 0
    with Progress("classify") as progress:
        how["progress"] = partial(progress.counted, "sources are classified")
        for prediction, name in zip(predictions(bundle, sources, **how), names, strict=False):
            if prediction is None:
                continue
            num_classified += 1
            shown = " ".join(name.split())
            if options.json:
                content = {
                    "source": shown,
                    **({"label": prediction.label} if prediction.label else {}),
                    "values": prediction.values,
                }
                print(json.dumps(content, ensure_ascii=False), flush=True)
            elif isinstance(bundle.processor.target, Scaler):
                print(shown, *bundle.processor.target.format(list(prediction.values.values())), sep="\t", flush=True)
            else:
                print(shown, prediction.label, f"{prediction.probability:.4f}", sep="\t", flush=True)
    _report_skipped(skipped, f"{num_classified + len(skipped)} sources", options)


def _add_tag(commands: Any) -> None:
    tagging = commands.add_parser(
        "tag",
        help="tag the words of sentences",
        description="Tag the words of standard input: a sentence on each line, with spaces between words.",
        epilog="example: echo 'It rains .' | python -m unrolled tag best.ckpt",
    )
    tagging.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a .ckpt file from training")
    tagging.add_argument("--json", action="store_true", help="print a JSON object for each sentence")
    tagging.add_argument(
        "--batch-size", type=int, default=1, help="sentences read before the first output (default: %(default)s)"
    )
    _add_common(tagging)
    tagging.set_defaults(run=_tag)


def _tag(options: argparse.Namespace) -> None:
    from unrolled.deployment.tagging import tag

    bundle = _load(options, options.checkpoint)
    for words in tag(bundle, _utf8(sys.stdin, "standard input"), batch_size=options.batch_size):
        if options.json:
            columns = {name: [getattr(each, name) for each in words] for name in ("word", "tag", "probability")}
            content = {"words": columns["word"], "tags": columns["tag"], "probabilities": columns["probability"]}
            print(json.dumps(content, ensure_ascii=False), flush=True)
        else:
            print(*(f"{each.word}\t{each.tag}" for each in words), "", sep="\n", flush=True)


def _add_inspect(commands: Any) -> None:
    inspect = commands.add_parser(
        "inspect",
        help="write a report on what happens inside a network",
        description="Run a network on one source, and write its gates, gradients and memory as one HTML page.",
        epilog='example: python -m unrolled inspect best.ckpt --text "It rains ." --out report.html',
    )
    inspect.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a .ckpt file from training")
    inspect.add_argument(
        "file",
        nargs="?",
        metavar="FILE",
        help="what the network reads: a text, a recording, an image, or a series as .csv or .tsv with a row for each "
        "step (default for a language model: a sample)",
    )
    inspect.add_argument("--text", help="what the network reads, instead of FILE")
    inspect.add_argument("--out", type=Path, default=Path("report.html"), help="the page (default: %(default)s)")
    inspect.add_argument(
        "--find",
        action="append",
        default=[],
        metavar="REGEX",
        help="search for units that are active where this matches the text (repeatable)",
    )
    _add_common(inspect)
    inspect.set_defaults(run=_inspect)


def _inspect(options: argparse.Namespace) -> None:
    from unrolled import durable
    from unrolled.deployment.inspecting.report import inspection_report
    from unrolled.deployment.inspecting.sources import open_source

    if options.file is not None and options.text is not None:
        raise ValueError(f"--text and {options.file}: pass one of both")
    generator = _generator(options)
    bundle = _load(options, options.checkpoint)
    source = options.text if options.file is None else open_source(bundle, options.file)
    with Progress("inspect") as progress:
        progress.at("the network is being inspected")
        name = str(options.checkpoint)
        written = inspection_report(bundle, source, find=options.find, name=name, generator=generator)
    durable.replace(options.out, lambda partial: partial.write_text(written, encoding="utf-8"))
    print(f"{options.out}: {written.count('<figure')} figures")


def _report(command: str, text: str) -> None:
    print(f"unrolled {command}: {text}", file=sys.stderr)


def _utf8(stream: TextIO, name: str) -> Iterator[str]:
    """Yield the lines of a stream, split at line feeds only, as wc counts them."""
    for number, line in enumerate(stream.buffer, start=1):
        try:
            yield line.decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"{name}, line {number}: not UTF-8 ({error.reason} at byte {error.start})") from None


# The following functions import torch when they are called, so that --help and option errors don't need it.


def _generator(options: argparse.Namespace) -> "torch.Generator":
    import torch

    try:
        generator = torch.Generator(torch.device(options.device))
    except RuntimeError as error:
        raise ValueError(f"--device {options.device}: {str(error).splitlines()[0]}") from None
    generator.seed() if options.seed is None else generator.manual_seed(options.seed)
    return generator


def _load(options: argparse.Namespace, path: Path) -> "Bundle":
    from unrolled.checkpoint import TRUSTED, load_bundle

    trusted = (*TRUSTED, *(f"{package.rstrip('.')}." for package in options.trust))
    return load_bundle(path, trusted=trusted, device=options.device)
