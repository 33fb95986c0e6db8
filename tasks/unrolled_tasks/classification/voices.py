"""Words spoken by a machine in many voices, as a folder to learn from beside people's recordings.

    python -m unrolled_tasks.classification.voices FOLDER 0=zero 1=one 2=two

Few speakers are few examples of how a word may be said. eSpeak NG says it in other accents, pitches, tempi and throats,
with an s that is loud or hardly there, as over a telephone.
What it says is no human voice, and needs no download but one package.
"""

import argparse
import ctypes
import math
import random
import shutil
import sys
import tempfile
import wave
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from unrolled.training.console.terminal import waiting
from unrolled.wording import counted

# Not as people speak: whispers, croaks, and machines that want to sound like machines.
_NO_PERSON = ("robo", "whisper", "croak", "demonic", "announcer", "kaukovalta", "unirobot", "ricishay", "fast", "robot")
_TEMPO = (110, 200)  # words a minute
_PITCH = (15, 75)  # of eSpeak's 0 to 99
_CONSONANTS = (5, 100)  # per cent of eSpeak's own loudness; people's are often softer
_SYNCHRONOUS, _UTF8, _RATE, _PITCHED = 2, 1, 1, 3  # of speak_lib.h


class Voice(NamedTuple):
    """How a word is said.

    An accent and a throat by eSpeak's names, words a minute, pitch from 0 to 99, and the loudness of s, f and z in per
    cent of eSpeak's.
    """

    accent: str
    throat: str
    tempo: int
    pitch: int
    consonants: int = 100


class Speaker:
    """eSpeak NG, as PyPI's `espeakng-loader` brings it along.

    Args:
        language: whose accents are used: "en" has en-US, en-GB-scotland and others.

    Raises:
        ValueError: the package is missing, or eSpeak doesn't know the language.
    """

    def __init__(self, language: str = "en") -> None:
        try:
            loader: Any = import_module("espeakng_loader")
        except ModuleNotFoundError:
            raise ValueError("voices are eSpeak NG's: pip install 'unrolled[voices]'") from None
        # A copy, since how loud consonants are stands in the file of a throat, and throats of ours are written into it.
        self._own = tempfile.TemporaryDirectory(prefix="voices-")
        data = Path(shutil.copytree(loader.get_data_path(), Path(self._own.name) / "espeak-ng-data"))
        spoken = {path.name for path in (data / "lang").rglob("*") if path.is_file()}
        self.accents = sorted(name for name in spoken if name == language or name.startswith(f"{language}-"))
        if not self.accents:
            raise ValueError(f"language={language!r}: eSpeak NG speaks {', '.join(sorted(spoken))}")
        self._folder = data / "voices" / "!v"
        throats = (path.name for path in self._folder.iterdir())
        self.throats = sorted(name for name in throats if not any(split in name.lower() for split in _NO_PERSON))
        self._library = ctypes.CDLL(loader.get_library_path())
        self.rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, str(data.parent).encode(), 0)
        if self.rate <= 0:
            raise ValueError(f"eSpeak NG does not start with its data in {data}")
        self._said = bytearray()
        # Kept, since C keeps no reference to it.
        self._callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)(
            self._hear
        )
        self._library.espeak_SetSynthCallback(self._callback)

    def voices(self, count: int, seed: int) -> list[Voice]:
        """That many voices, each throat before any comes twice; all else is drawn at random."""
        drawn = random.Random(seed)
        throats = drawn.sample(self.throats, len(self.throats))
        least, most = (math.log(share) for share in _CONSONANTS)
        return [
            Voice(
                drawn.choice(self.accents),
                throats[n % len(throats)],
                drawn.randint(*_TEMPO),
                drawn.randint(*_PITCH),
                round(math.exp(drawn.uniform(least, most))),  # as loudness is heard: by ratios
            )
            for n in range(count)
        ]

    def say(self, text: str, voice: Voice) -> bytes:
        """16-bit samples of a text, `rate` a second.

        Raises:
            ValueError: eSpeak doesn't know the voice, or finds nothing to say.
        """
        name = f"{voice.accent}+{self._throat(voice)}"
        if self._library.espeak_SetVoiceByName(name.encode()) != 0:
            raise ValueError(f"eSpeak NG has no voice {name!r}")
        self._library.espeak_SetParameter(_RATE, voice.tempo, 0)
        self._library.espeak_SetParameter(_PITCHED, voice.pitch, 0)
        self._said.clear()
        written = text.encode() + b"\0"
        self._library.espeak_Synth(written, ctypes.c_size_t(len(written)), 0, 0, 0, _UTF8, None, None)
        if not any(self._said):
            raise ValueError(f"{text!r} leaves nothing to say")
        return bytes(self._said)

    def _throat(self, voice: Voice) -> str:
        """The name of a throat with consonants as loud as the voice's."""
        name = f"{voice.throat}-{voice.consonants}"
        plain, own = self._folder / voice.throat, self._folder / name
        if plain.is_file() and not own.exists():
            own.write_bytes(plain.read_bytes() + f"\nconsonants {voice.consonants} {voice.consonants}\n".encode())
        return name

    def _hear(self, samples: Any, count: int, _events: int | None) -> int:
        if samples and count > 0:
            self._said += ctypes.string_at(samples, 2 * count)
        return 0


def write_voices(
    folder: Path, words: Mapping[str, str], *, count: int = 80, language: str = "en", seed: int = 1
) -> int:
    """Writes `folder/train/LABEL/machine_0001.wav`, each label's text by each voice; gives how many files there are.

    The folder appears when it is whole. The seed decides which voices; eSpeak's own noise, such as an s, it doesn't.

    Raises:
        ValueError: a folder that is there, no word, or what `Speaker` refuses.
    """
    if folder.exists():
        raise ValueError(f"{folder} is there already; give another folder, or remove it")
    if not words or count < 1:
        raise ValueError(f"words={dict(words)}, voices={count}: one word and one voice at least")
    speaker = Speaker(language)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for number, voice in enumerate(waiting(speaker.voices(count, seed), "voices")):
            for label, text in words.items():
                path = partial / "train" / label / f"machine_{number:04}.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                with wave.open(str(path), "wb") as file:
                    file.setnchannels(1)
                    file.setsampwidth(2)
                    file.setframerate(speaker.rate)
                    file.writeframes(speaker.say(text, voice))
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return count * len(words)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0, or 2 when what was asked for cannot be done."""
    parser = argparse.ArgumentParser(
        prog="python -m unrolled_tasks.classification.voices",
        description="Write words, spoken by a machine in many voices, into a folder that data=speech reads.",
        epilog="example: python -m unrolled_tasks.classification.voices voices 0=zero 1=one 2=two --voices 80",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="to be made; must not be there")
    parser.add_argument(
        "words", nargs="+", metavar="LABEL=TEXT", help="what is said for a label; or a word that is both"
    )
    parser.add_argument("--voices", type=int, default=80, help="how many (default: %(default)s)")
    parser.add_argument("--language", default="en", help="eSpeak NG's name of it (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="decides which voices (default: %(default)s)")
    options = parser.parse_args(arguments)
    words = {label: text or label for label, _, text in (word.partition("=") for word in options.words)}
    try:
        written = write_voices(
            options.folder, words, count=options.voices, language=options.language, seed=options.seed
        )
    except ValueError as error:
        print(f"voices: {error}", file=sys.stderr)
        return 2
    print(f"{options.folder}: {counted(written, 'recording')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
