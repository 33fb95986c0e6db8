"""Sound: from files to samples, and from samples to frames of features, in torch alone."""

from unrolled.audio.features import AudioFeatures as AudioFeatures
from unrolled.audio.features import Frames as Frames
from unrolled.audio.features import StreamState as StreamState
from unrolled.audio.recordings import MAX_SECONDS as MAX_SECONDS
from unrolled.audio.recordings import ArrivingSamples as ArrivingSamples
from unrolled.audio.recordings import CutOffError as CutOffError
from unrolled.audio.recordings import Recording as Recording
from unrolled.audio.recordings import read_recording as read_recording
from unrolled.audio.recordings import resample as resample
from unrolled.audio.spectra import cosine_transform as cosine_transform
from unrolled.audio.spectra import delta as delta
from unrolled.audio.spectra import mel_filter_bank as mel_filter_bank
from unrolled.audio.spectra import power_spectrum as power_spectrum
