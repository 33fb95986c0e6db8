"""Makes audio.json: what librosa 0.11 says about a short sound. Run it where librosa is installed.

python tests/golden/make_audio.py
"""

import json
import math
from pathlib import Path

import librosa
import numpy as np

RATE, WINDOW, FFT, HOP, MELS = 8000, 200, 256, 80, 20


def sound() -> np.ndarray:
    """A rising tone with two overtones and a little of a fixed noise."""
    time = np.arange(1200) / RATE
    noise = np.array([((n * 1103515245 + 12345) % 65536) / 65536 - 0.5 for n in range(1200)])
    tone = sum(np.sin(2 * math.pi * k * (200 * time + 800 * time**2)) / k for k in (1, 2, 3))
    return 0.3 * tone + 0.05 * noise


def rounded(values: np.ndarray) -> list:
    return np.round(np.asarray(values, dtype=np.float64), 6).tolist()


def main() -> None:
    samples = sound()
    # librosa puts a short window into the middle of the transform: so many samples before the frame's own.
    shifted = np.pad(samples, ((FFT - WINDOW) // 2, (FFT - WINDOW) // 2))
    options = {"n_fft": FFT, "hop_length": HOP, "win_length": WINDOW, "window": "hann", "center": False}
    power = np.abs(librosa.stft(shifted, **options)) ** 2
    bank = librosa.filters.mel(sr=RATE, n_fft=FFT, n_mels=MELS, fmin=20.0, fmax=4000.0, dtype=np.float64)
    mels = bank @ power
    decibels = librosa.power_to_db(mels, ref=1.0, amin=1e-12, top_db=None)
    cepstra = librosa.feature.mfcc(S=decibels, n_mfcc=13, dct_type=2, norm="ortho")
    delta = librosa.feature.delta(cepstra, width=5, mode="nearest")
    content = {
        "librosa": librosa.__version__,
        "power": rounded(power.T[::4, ::16]),
        "bank": rounded(bank.T[::8]),
        "decibels": rounded(decibels.T),
        "cepstra": rounded(cepstra.T),
        "delta": rounded(delta.T),
        "delta_of_delta": rounded(librosa.feature.delta(delta, width=5, mode="nearest").T),
    }
    Path(__file__).with_name("audio.json").write_text(json.dumps(content))


if __name__ == "__main__":
    main()
