"""A made-up corpus of raw clips, so that extraction can be seen on any machine without other data.

    write_sample_clips(Path("clips"), num_clips=12)       # then: lnln extract clips --corpus clips

Drawn faces speak in tones that rise and fall like syllables, and say a sentence whose sentiment is the clip's label.
Mouth and brows show a little of it, and so does the pitch. A clip in six shows soft noise instead of a face, and the
last clip has neither label nor transcript. Nothing in it was recorded: it shows that the path works, and no more.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnln.errors import RefusedError
from pipelines.clips.drawn_faces import DrawnFace, backdrop, draw_face

FEWEST = 6
SIZE = (320, 240)
PICTURE_RATE = 25
SOUND_RATE = 16_000

# Which split a clip is in, by its number.
_MODES = ("train", "valid", "test", "train", "train", "train")
_WITHOUT_FACE = 4  # of every six, the number of the one that shows none

_SUBJECTS = ("the movie", "the story", "the acting", "the music", "the ending", "the whole thing")
_WORDS = {
    -3.0: "terrible", -2.0: "boring", -1.0: "a bit too long", 0.0: "about two hours long", 1.0: "quite good",
    2.0: "really funny", 3.0: "wonderful",
}  # fmt: skip
_OPENINGS = ("", "honestly ", "well ", "you know ")

# Middle (Hz) and loudness of the formants between which a vowel moves as the mouth opens: about those of i and a.
_FORMANTS = ((300.0, 750.0, 1.0), (2200.0, 1200.0, 0.5), (2900.0, 2600.0, 0.25))


@dataclass(frozen=True)
class _Performance:
    """One clip before it is drawn. label: -3 to 3. openings: (syllables,) how wide the mouth opens for each."""

    label: float
    seconds: float
    pitch_hz: float
    openings: NDArray[np.float64]

    def mouth(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """How wide the mouth is open at each time, 0 to 1: an arch for each syllable, and silence at both ends."""
        spoken = np.clip((times - 0.15) / (self.seconds - 0.3), 0, 1 - 1e-9) * len(self.openings)
        arch = np.sin(np.pi * (spoken % 1.0)) ** 2
        return arch * self.openings[spoken.astype(np.int64)]


def write_sample_clips(folder: Path, num_clips: int = 12, seed: int = 0) -> None:
    """Write `num_clips` clips (6 or more) of 1.5 to 3 seconds into `folder`: label.csv and Raw/, as MMSA-FET has them.

    Equal arguments give equal clips with equal packages. RefusedError where the folder holds something already.
    """
    if num_clips < FEWEST:
        raise RefusedError(f"the sample has at least {FEWEST} clips, got {num_clips}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RefusedError(f"{folder} must be a new or an empty folder for the sample clips; give another")
    rows = []
    labels = np.random.default_rng(seed).permutation(np.arange(-3.0, 4.0))
    for number in range(num_clips):
        rng = np.random.default_rng([seed, number])
        label = float(labels[number % len(labels)])
        # Four clips of each made-up video.
        video_id, clip_id = f"sample{number // 4:03d}", str(number % 4 + 1)
        path = folder / "Raw" / video_id / f"{clip_id}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_clip(path, _performance(rng, label), rng, shows_face=number % 6 != _WITHOUT_FACE)
        words, mode = _sentence(rng, label), _MODES[number % len(_MODES)]
        annotation = "Neutral" if label == 0 else "Positive" if label > 0 else "Negative"
        is_last = number == num_clips - 1
        rows.append([video_id, clip_id, *(["", "", "", ""] if is_last else [words, f"{label:g}", annotation, mode])])
    with (folder / "label.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["video_id", "clip_id", "text", "label", "annotation", "mode"])
        writer.writerows(rows)


def _sentence(rng: np.random.Generator, label: float) -> str:
    return f"{rng.choice(_OPENINGS)}{rng.choice(_SUBJECTS)} was {_WORDS[label]}"


def _performance(rng: np.random.Generator, label: float) -> _Performance:
    seconds = float(rng.integers(15, 31)) / 10
    num_syllables = round(seconds * float(rng.uniform(3.5, 4.5)))
    pitch_hz = float(rng.uniform(105, 200)) * 2 ** (label / 18)  # two semitones between neutral and either end
    return _Performance(label, seconds, pitch_hz, rng.uniform(0.5, 1.0, num_syllables))


def _pictures(performance: _Performance, rng: np.random.Generator, shows_face: bool) -> list[NDArray[np.uint8]]:
    """(H, W, 3) uint8 each, `PICTURE_RATE` a second."""
    times = np.arange(round(performance.seconds * PICTURE_RATE)) / PICTURE_RATE
    if not shows_face:
        return [backdrop(rng, SIZE) for _ in times]
    behind = backdrop(rng, SIZE)
    x, y, height = rng.uniform(140, 180), rng.uniform(112, 124), rng.uniform(130, 165)
    skin, hair = int(rng.integers(150, 226)), int(rng.integers(30, 90))
    sway, nod = rng.uniform(0, 2 * np.pi, 2)
    smile = float(np.clip(performance.label / 3 + rng.normal(0, 0.2), -1, 1))
    blink = rng.uniform(0.3, performance.seconds - 0.3)
    pictures = []
    for time, mouth_open in zip(times, performance.mouth(times), strict=True):
        picture = behind.copy()
        face = DrawnFace(
            x=x + 5 * np.sin(2 * np.pi * 0.4 * time + sway),
            y=y + 2 * np.sin(2 * np.pi * 0.9 * time + nod),
            height=height,
            mouth_open=float(mouth_open),
            smile=smile,
            eyes_open=0.0 if abs(time - blink) < 0.08 else 1.0,
            skin=skin,
            hair=hair,
        )
        draw_face(picture, face)
        pictures.append(picture)
    return pictures


def _sound(performance: _Performance, rng: np.random.Generator) -> NDArray[np.float32]:
    """(samples,) in [-1, 1]: harmonics of a falling pitch, loud near formants that move with the mouth, and breath."""
    times = np.arange(round(performance.seconds * SOUND_RATE)) / SOUND_RATE
    mouth = performance.mouth(times)
    pitch = performance.pitch_hz * (1.08 - 0.16 * times / performance.seconds)
    phase = 2 * np.pi * np.cumsum(pitch) / SOUND_RATE
    voice = np.zeros(len(times))
    for harmonic in range(1, 25):
        heights = np.zeros(len(times))
        for closed, opened, loudness in _FORMANTS:
            middle = closed + (opened - closed) * mouth
            heights += loudness * np.exp(-0.5 * ((harmonic * pitch - middle) / (0.12 * middle + 60)) ** 2)
        voice += heights * np.sin(harmonic * phase) / np.sqrt(harmonic)
    sound = voice * mouth
    sound *= 0.4 / np.abs(sound).max()
    sound += rng.normal(0, 0.001, len(times))
    return sound.astype(np.float32)


def _write_clip(path: Path, performance: _Performance, rng: np.random.Generator, shows_face: bool) -> None:
    try:
        import av
    except ImportError as error:
        raise RefusedError(f'sample clips are written with PyAV ({error}); pip install "lnln[media]"') from None
    pictures, sound = _pictures(performance, rng, shows_face), _sound(performance, rng)
    with av.open(str(path), "w") as file:
        video: Any = file.add_stream("libx264", rate=PICTURE_RATE)
        video.width, video.height, video.pix_fmt = *SIZE, "yuv420p"
        # Without a look ahead, for which x264 has a thread of its own: one in some hundred clips differed with it.
        video.options = {"crf": "18", "preset": "ultrafast", "threads": "1", "x264-params": "sync-lookahead=0"}
        audio: Any = file.add_stream("aac", rate=SOUND_RATE, layout="mono")
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, PICTURE_RATE)
            file.mux(video.encode(frame))
            begin, end = (round(place * SOUND_RATE / PICTURE_RATE) for place in (index, index + 1))
            heard = av.AudioFrame.from_ndarray(sound[None, begin:end], format="fltp", layout="mono")
            heard.sample_rate, heard.pts, heard.time_base = SOUND_RATE, begin, Fraction(1, SOUND_RATE)
            file.mux(audio.encode(heard))
        file.mux(video.encode(None))
        file.mux(audio.encode(None))
