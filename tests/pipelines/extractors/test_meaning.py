"""Features mean something: faces are found in faces, speech is loud, and a copy without loss has the same features.

On drawn clips always, and on real ones where they are at hand.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.clips.decode import open_clip
from pipelines.clips.sample import write_sample_clips
from pipelines.extractors import load
from pipelines.extractors.base import Features, FrameExtractor
from tests.clips import Sound, silence, write_clip
from tests.pipelines.extractors.vision.picture_clip import real_clip

Image = NDArray[np.uint8]
REAL_FACES = ("Oz06ZWiO20M/6.mp4", "ravdess_actor01/1.mp4", "interview/1.mp4")
REAL_SPEECH = ("Oz06ZWiO20M/6.mp4", "03bSnISJMiM/1.wav", "ravdess_actor01/1.mp4", "interview/1.mp4")
TILE = 16  # pixels


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Six clips of the sample; the fifth shows no face."""
    folder = tmp_path_factory.mktemp("drawn") / "clips"
    write_sample_clips(folder, num_clips=6)
    return sorted((folder / "Raw").glob("*/*.mp4"))


@pytest.fixture(scope="module")
def face() -> FrameExtractor:
    extractor: FrameExtractor = load("vision", "face")
    return extractor


@pytest.fixture(scope="module")
def librosa_sims() -> FrameExtractor:
    extractor: FrameExtractor = load("audio", "librosa_sims")
    return extractor


@pytest.fixture(scope="module")
def egemaps() -> FrameExtractor:
    pytest.importorskip("opensmile", reason="the extra lnln[opensmile] is not installed")
    extractor: FrameExtractor = load("audio", "egemaps")
    return extractor


@pytest.fixture(params=["librosa_sims mfcc_0", "egemaps Loudness_sma3"])
def loudness(request: pytest.FixtureRequest) -> Callable[[Path], tuple[NDArray[np.float64], NDArray[np.float32]]]:
    """Of a file: (T,) times and (T,) loudness, as one extractor has it."""
    name, column = request.param.split()
    extractor: FrameExtractor = request.getfixturevalue(name)
    index = list(extractor.columns).index(column)

    def measure(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        features = extract(extractor, path)
        return features.times, features.values[:, index]

    return measure


def extract(extractor: FrameExtractor, path: Path) -> Features:
    with open_clip(path.read_bytes(), path.name, max_seconds=60) as clip:
        return extractor.extract(clip)


def hits(face: FrameExtractor, path: Path) -> float:
    """The share of pictures in which there is a face."""
    features = extract(face, path)
    return float(features.values[:, 0].mean()) if len(features.values) else 0.0


def pictures_of(path: Path, num: int = 6) -> list[Image]:
    """`num` pictures at most, 10 a second, at most 320 pixels a side."""
    with open_clip(path.read_bytes(), path.name, max_seconds=60) as clip:
        return [picture.image for picture in clip.pictures(10, 320)][:num]


def sound_of(path: Path, rate: int = 16_000) -> Sound:
    """(1, samples)"""
    with open_clip(path.read_bytes(), path.name, max_seconds=60) as clip:
        return clip.sound(rate)[None]


def shuffled(image: Image, rng: np.random.Generator) -> Image:
    """The same pixels, in tiles that are each elsewhere."""
    height, width = (side // TILE * TILE for side in image.shape[:2])
    tiles = image[:height, :width].reshape(height // TILE, TILE, width // TILE, TILE, 3).swapaxes(1, 2)
    mixed = rng.permutation(tiles.reshape(-1, TILE, TILE, 3)).reshape(tiles.shape)
    return np.ascontiguousarray(mixed.swapaxes(1, 2).reshape(height, width, 3))


def write_pictures(path: Path, images: list[Image]) -> Path:
    """A clip of these, 10 a second, and no sound."""
    height, width = images[0].shape[:2]
    return write_clip(
        path, seconds=len(images) / 10, rate=10, size=(width, height), draw=lambda i, size: images[i], sound=None
    )


def check_hits(face: FrameExtractor, clips: list[Path], folder: Path) -> None:
    """Most pictures of `clips` have a face, and few of the same pixels in another order, or of noise."""
    rng = np.random.default_rng(0)
    mixed, noise = [], []
    for path in clips:
        assert hits(face, path) >= 0.9, path
        images = [shuffled(image, rng) for image in pictures_of(path)]
        mixed.append(hits(face, write_pictures(folder / "mixed.mkv", images)))
        snow = [rng.integers(0, 256, image.shape, np.uint8) for image in images]
        noise.append(hits(face, write_pictures(folder / "noise.mkv", snow)))
    assert np.mean(mixed) <= 0.2 and np.mean(noise) <= 0.2, (mixed, noise)


def test_faces_are_found_in_faces_and_not_in_noise(face: FrameExtractor, drawn: list[Path], tmp_path: Path) -> None:
    check_hits(face, [drawn[0], drawn[3]], tmp_path)
    assert hits(face, drawn[4]) == 0


@pytest.mark.slow
def test_real_faces_are_found_and_not_noise(face: FrameExtractor, tmp_path: Path) -> None:
    check_hits(face, [real_clip(name) for name in REAL_FACES], tmp_path)


def check_loudness(
    measure: Callable[[Path], tuple[NDArray[np.float64], NDArray[np.float32]]], speech: Sound, folder: Path
) -> None:
    """Speech is louder than silence, than itself far away, and just where it is in a clip."""
    speech = speech[:, : 2 * 16_000]
    seconds = speech.shape[1] / 16_000

    def file(sound: Sound, ending: str = "mkv") -> Path:
        return write_clip(folder / f"sound.{ending}", size=None, sound=sound)

    of_speech, of_silence = (measure(file(sound))[1].mean() for sound in (speech, silence(seconds)))
    assert of_speech > measure(file(speech * np.float32(0.1)))[1].mean() > of_silence
    assert measure(file(speech, "wav"))[1].mean() == pytest.approx(of_speech)
    times, values = measure(file(np.concatenate([silence(1.0), speech, silence(1.0)], axis=1)))
    # A window is 0.1 s at most.
    is_speech = (times > 1.1) & (times < 0.9 + seconds)
    is_silence = (times < 0.9) | (times > 1.1 + seconds)
    assert is_speech.sum() > 10 and is_silence.sum() > 50
    assert np.median(values[is_speech]) > values[is_silence].max()


def test_speech_is_louder_than_silence(
    loudness: Callable[[Path], tuple[NDArray[np.float64], NDArray[np.float32]]], drawn: list[Path], tmp_path: Path
) -> None:
    check_loudness(loudness, sound_of(drawn[0]), tmp_path)


def test_speech_of_espeak_is_louder_than_silence(
    loudness: Callable[[Path], tuple[NDArray[np.float64], NDArray[np.float32]]], tmp_path: Path
) -> None:
    program = shutil.which("espeak-ng") or pytest.skip("espeak-ng is not installed")
    path = tmp_path / "spoken.wav"
    subprocess.run([program, "-w", str(path), "this was a wonderful movie, and I liked it a lot"], check=True)
    check_loudness(loudness, sound_of(path), tmp_path)


@pytest.mark.parametrize("name", REAL_SPEECH)
def test_real_speech_is_louder_than_silence(
    loudness: Callable[[Path], tuple[NDArray[np.float64], NDArray[np.float32]]], name: str, tmp_path: Path
) -> None:
    check_loudness(loudness, sound_of(real_clip(name)), tmp_path)


def write_copy(path: Path, to: Path, audio_codec: str) -> Path:
    """What a player would show and play of `path`, as FFV1 and `audio_codec`, in Matroska."""
    import av

    with av.open(str(path)) as source, av.open(str(to), "w") as copy:
        picture, heard = source.streams.video[0], source.streams.audio[0]
        video: Any = copy.add_stream("ffv1", rate=picture.average_rate)
        video.width, video.height, video.pix_fmt = picture.width, picture.height, picture.pix_fmt
        for key in ("color_range", "colorspace", "color_primaries", "color_trc"):
            setattr(video.codec_context, key, getattr(picture.codec_context, key))
        video.codec_context.time_base = Fraction(1, 90_000)
        audio: Any = copy.add_stream(audio_codec, rate=heard.rate, layout=heard.layout)
        frames = sorted(source.decode(picture, heard), key=lambda frame: float(frame.pts * frame.time_base))
        for frame in frames:
            is_picture = isinstance(frame, av.VideoFrame)
            if is_picture:
                frame.pts, frame.time_base = round(frame.pts * frame.time_base * 90_000), Fraction(1, 90_000)
                frame.pict_type = 0
            copy.mux((video if is_picture else audio).encode(frame))
        copy.mux([*video.encode(None), *audio.encode(None)])
    return to


def check_copy(face: FrameExtractor, librosa_sims: FrameExtractor, path: Path, folder: Path) -> Path:
    """Features of `path` and of a copy without loss are the same to the last bit. Returns the copy."""
    copy = write_copy(path, folder / "copy.mkv", "pcm_f32le")
    for extractor in (face, librosa_sims):
        of_path, of_copy = extract(extractor, path), extract(extractor, copy)
        np.testing.assert_array_equal(of_copy.times, of_path.times)
        np.testing.assert_array_equal(of_copy.values, of_path.values)
        assert of_copy.counts == of_path.counts and len(of_path.values) >= 8
    return copy


def test_a_copy_without_loss_has_equal_features(
    face: FrameExtractor, librosa_sims: FrameExtractor, drawn: list[Path], tmp_path: Path
) -> None:
    copy = check_copy(face, librosa_sims, drawn[0], tmp_path)
    # FLAC keeps whole numbers, and AAC decodes to fractions: what it makes of them is the same again.
    first = write_copy(copy, tmp_path / "first.mkv", "flac")
    again = write_copy(first, tmp_path / "again.mkv", "flac")
    assert np.abs(sound_of(first) - sound_of(copy)).max() <= 2**-15, "16 bits"
    np.testing.assert_array_equal(extract(librosa_sims, again).values, extract(librosa_sims, first).values)
    np.testing.assert_array_equal(extract(face, again).values, extract(face, drawn[0]).values)


def test_a_sound_that_begins_late_is_copied_in_place(
    face: FrameExtractor, librosa_sims: FrameExtractor, drawn: list[Path], tmp_path: Path
) -> None:
    images = pictures_of(drawn[0], 10)
    path = write_clip(
        tmp_path / "late.mp4", rate=10, size=(320, 240), draw=lambda i, size: images[i], sound_start=0.2,
        sound=sound_of(drawn[0])[:, :12_800],
    )  # fmt: skip
    check_copy(face, librosa_sims, path, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL_FACES)
def test_a_copy_of_a_real_clip_has_equal_features(
    face: FrameExtractor, librosa_sims: FrameExtractor, name: str, tmp_path: Path
) -> None:
    check_copy(face, librosa_sims, real_clip(name), tmp_path)
