"""Synthetic recordings of words in many voices, as additional training data.

    python -m unrolled_tasks.classification.voices FOLDER 0=zero 1=one 2=two

Recordings of few speakers contain few pronunciations of a word. eSpeak NG synthesizes words in other accents, voices,
pitches and tempos, and with loud or soft sibilants, as over a telephone. It needs one package and no other download.
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

from unrolled.training.console.terminal import track_progress
from unrolled.wording import counted

# Voices unlike human speech: whispers, croaks and robots.
_NO_PERSON = ("robo", "whisper", "croak", "demonic", "announcer", "kaukovalta", "unirobot", "ricishay", "fast", "robot")
_TEMPO = (110, 200)  # words per minute
_PITCH = (15, 75)  # in eSpeak's range of 0 to 99
_CONSONANTS = (5, 100)  # percent of eSpeak's default loudness; human consonants are often softer
_SYNCHRONOUS, _UTF8, _RATE, _PITCHED = 2, 1, 1, 3  # of speak_lib.h


class Voice(NamedTuple):
    """Parameters of a synthetic voice.

    Attributes:
        accent: eSpeak's name of the accent.
        throat: eSpeak's name of the voice variant.
        tempo: words per minute.
        pitch: 0 to 99.
        consonants: loudness of s, f and z in percent of eSpeak's default.
    """

    accent: str
    throat: str
    tempo: int
    pitch: int
    consonants: int = 100


class Speaker:
    """Synthesizes speech with eSpeak NG, from the package `espeakng-loader`.

    Args:
        language: language whose accents are used: "en" has en-US, en-GB-scotland and others.

    Raises:
        ValueError: the package is missing, or eSpeak has no such language.
    """

    def __init__(self, language: str = "en") -> None:
        try:
            loader: Any = import_module("espeakng_loader")
        except ModuleNotFoundError:
            raise ValueError("voices need eSpeak NG: pip install 'unrolled[voices]'") from None
        # A copy, since the loudness of consonants is set in the file of a throat, and new throats are written to it.
        self._own = tempfile.TemporaryDirectory(prefix="voices-")
        data = Path(shutil.copytree(loader.get_data_path(), Path(self._own.name) / "espeak-ng-data"))
        spoken = {path.name for path in (data / "lang").rglob("*") if path.is_file()}
        self.accents = sorted(name for name in spoken if name == language or name.startswith(f"{language}-"))
        if not self.accents:
            raise ValueError(f"language={language!r}: eSpeak NG has {', '.join(sorted(spoken))}")
        self._folder = data / "voices" / "!v"
        throats = (path.name for path in self._folder.iterdir())
        self.throats = sorted(name for name in throats if not any(part in name.lower() for part in _NO_PERSON))
        self._library = ctypes.CDLL(loader.get_library_path())
        self.rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, str(data.parent).encode(), 0)
        if self.rate <= 0:
            raise ValueError(f"eSpeak NG does not start with its data in {data}")
        self._samples = bytearray()
        # Stored in an attribute, since C holds no reference to it.
        self._callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)(
            self._receive
        )
        self._library.espeak_SetSynthCallback(self._callback)

    def voices(self, count: int, seed: int) -> list[Voice]:
        """Draws voices. Every throat occurs once before any occurs twice; the other parameters are random."""
        drawn = random.Random(seed)
        throats = drawn.sample(self.throats, len(self.throats))
        least, most = (math.log(share) for share in _CONSONANTS)
        return [
            Voice(
                drawn.choice(self.accents),
                throats[n % len(throats)],
                drawn.randint(*_TEMPO),
                drawn.randint(*_PITCH),
                round(math.exp(drawn.uniform(least, most))),  # log-uniform, as loudness is perceived
            )
            for n in range(count)
        ]

    def synthesize(self, text: str, voice: Voice) -> bytes:
        """Returns the 16-bit samples of a text at the sampling rate `rate`.

        Raises:
            ValueError: eSpeak has no such voice, or the text contains no speech.
        """
        name = f"{voice.accent}+{self._throat(voice)}"
        if self._library.espeak_SetVoiceByName(name.encode()) != 0:
            raise ValueError(f"eSpeak NG has no voice {name!r}")
        self._library.espeak_SetParameter(_RATE, voice.tempo, 0)
        self._library.espeak_SetParameter(_PITCHED, voice.pitch, 0)
        self._samples.clear()
        encoded = text.encode() + b"\0"
        self._library.espeak_Synth(encoded, ctypes.c_size_t(len(encoded)), 0, 0, 0, _UTF8, None, None)
        if not any(self._samples):
            raise ValueError(f"{text!r} contains nothing to speak")
        return bytes(self._samples)

    def _throat(self, voice: Voice) -> str:
        """Returns the name of a throat with the voice's loudness of consonants, and writes its file if needed."""
        name = f"{voice.throat}-{voice.consonants}"
        plain, own = self._folder / voice.throat, self._folder / name
        if plain.is_file() and not own.exists():
            own.write_bytes(plain.read_bytes() + f"\nconsonants {voice.consonants} {voice.consonants}\n".encode())
        return name

    def _receive(self, samples: Any, count: int, _events: int | None) -> int:
        if samples and count > 0:
            self._samples += ctypes.string_at(samples, 2 * count)
        return 0


def write_voices(
    folder: Path, words: Mapping[str, str], *, count: int = 80, language: str = "en", seed: int = 1
) -> int:
    """Writes `folder/train/LABEL/machine_0001.wav`, each label's text in each voice. Returns the number of files.

    The folder is created atomically. The seed determines the voices, but not eSpeak's noise, as in an s.

    Raises:
        ValueError: the folder exists, there is no word or voice, or an error of `Speaker`.
    """
    if folder.exists():
        raise ValueError(f"{folder} already exists; give another folder, or remove it")
    if not words or count < 1:
        raise ValueError(f"words={dict(words)}, voices={count}: give at least one word and one voice")
    speaker = Speaker(language)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for number, voice in enumerate(track_progress(speaker.voices(count, seed), "voices")):
            for label, text in words.items():
                path = partial / "train" / label / f"machine_{number:04}.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                with wave.open(str(path), "wb") as file:
                    file.setnchannels(1)
                    file.setsampwidth(2)
                    file.setframerate(speaker.rate)
                    file.writeframes(speaker.synthesize(text, voice))
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return count * len(words)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command. Returns the exit status: 0, or 2 for wrong input."""
    parser = argparse.ArgumentParser(
        prog="python -m unrolled_tasks.classification.voices",
        description="Synthesize words in many voices and write them to a folder for data=speech.",
        epilog="example: python -m unrolled_tasks.classification.voices voices 0=zero 1=one 2=two --voices 80",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="output folder; must not exist")
    parser.add_argument(
        "words", nargs="+", metavar="LABEL=TEXT", help="the spoken text for a label, or a word that is both"
    )
    parser.add_argument("--voices", type=int, default=80, help="number of voices (default: %(default)s)")
    parser.add_argument("--language", default="en", help="language code of eSpeak NG (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the voices (default: %(default)s)")
    options = parser.parse_args(arguments)
    words = {label: text or label for label, _, text in (word.partition("=") for word in options.words)}
    try:
        count = write_voices(options.folder, words, count=options.voices, language=options.language, seed=options.seed)
    except ValueError as error:
        print(f"voices: {error}", file=sys.stderr)
        return 2
    print(f"{options.folder}: {counted(count, 'recording')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
