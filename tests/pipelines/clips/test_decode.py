"""Decoding of clips: any container on one timeline, and hostile or damaged files refused, cut short or counted."""

from __future__ import annotations

import io
import os
import struct
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnln.errors import RefusedError
from pipelines.clips.decode import DecodedClip, open_clip
from pipelines.extractors.base import ClipError, Picture
from pipelines.isolate import Isolated
from tests.clips import (
    Image,
    Sound,
    clicks,
    damaged,
    numbered,
    read_number,
    silence,
    tone,
    truncated,
    write_clip,
    write_empty_tracks,
)
from tests.memory import peak_bytes

BOTH = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".ts")
SOUND_ONLY = (".wav", ".flac", ".mp3", ".m4a", ".ogg")


def opened(path: Path, max_seconds: float = 600.0) -> Any:
    return open_clip(path.read_bytes(), path.name, max_seconds=max_seconds)


def pictures_of(path: Path, rate_hz: float = 25, longest_side: int | None = None) -> list[Picture]:
    with opened(path) as clip:
        return list(clip.pictures(rate_hz, longest_side))


def sound_of(path: Path, rate_hz: int = 16_000) -> Sound:
    with opened(path) as clip:
        return np.asarray(clip.sound(rate_hz))


def shown(path: Path, rate_hz: float = 25) -> list[tuple[float, int]]:
    """(time, number) of every picture of the grid, to the microsecond."""
    return [(round(picture.time, 6), read_number(picture.image)) for picture in pictures_of(path, rate_hz)]


def refusal(path: Path, max_seconds: float = 600.0) -> tuple[str, str]:
    """Stage and reason with which all of a clip's content is refused."""
    with pytest.raises(ClipError) as caught:
        decode_all(path.read_bytes(), max_seconds)
    return caught.value.stage, caught.value.reason


def decode_all(data: bytes, max_seconds: float = 600.0) -> tuple[int, int, bool, int]:
    """(pictures, samples, is_truncated, checksum) of the bytes of a clip."""
    with open_clip(data, "clip", max_seconds=max_seconds) as clip:
        sound = clip.sound(16_000)
        assert sound.ndim == 1 and sound.dtype == np.float32 and np.isfinite(sound).all()
        assert (np.abs(sound) <= 1).all()
        checksum, times = hash(sound.tobytes()), []
        for picture in clip.pictures(10, 64):
            assert picture.image.dtype == np.uint8 and picture.image.shape[2] == 3 and max(picture.image.shape) <= 64
            times.append(picture.time)
            checksum ^= hash(picture.image.tobytes()) + len(times)
        assert times == sorted(set(times)) and clip.seconds <= max_seconds
        return len(times), len(sound), clip.is_truncated, checksum


# One timeline


@pytest.mark.parametrize("suffix", BOTH)
def test_pictures_and_sound_of_any_container_agree_to_a_millisecond(suffix: str, tmp_path: Path) -> None:
    path = write_clip(tmp_path / f"1{suffix}", seconds=2, sound=clicks(2, 16_000, [0.52, 1.6]))
    with opened(path) as clip:
        assert clip.has_sound and clip.has_picture and not clip.is_truncated
        assert 2 <= clip.seconds <= 2.2
        sound = clip.sound(16_000)
        begins: dict[int, float] = {}
        for picture in clip.pictures(1000):
            begins.setdefault(read_number(picture.image), picture.time)
        assert not clip.is_truncated
    assert list(begins) == list(range(50))
    for number, after in ((13, 0), (40, 27_000)):
        loud = np.abs(sound[after // 2 if after else 0 : None if after else 16_000])
        click = (int(np.argmax(loud > 0.45 * loud.max())) + after // 2) / 16_000
        assert click == pytest.approx(begins[number], abs=0.0015), suffix


@pytest.mark.parametrize("suffix", BOTH)
def test_a_grid_of_the_files_own_rate_has_each_picture_once(suffix: str, tmp_path: Path) -> None:
    path = write_clip(tmp_path / f"1{suffix}", rate=30, seconds=2, sound=None)
    with opened(path) as clip:
        assert not clip.has_sound and clip.sound(16_000).shape == (0,)
        assert clip.seconds == pytest.approx(2, abs=0.03)
    assert shown(path, 30) == [(round(number / 30, 6), number) for number in range(60)]
    assert [number for _, number in shown(path, 10)] == list(range(0, 60, 3))


@pytest.mark.parametrize(
    ("suffix", "has_cover"), [*((suffix, False) for suffix in SOUND_ONLY), (".mp3", True), (".m4a", True)]
)
def test_sound_files_have_no_picture_though_they_may_have_a_cover(suffix: str, has_cover: bool, tmp_path: Path) -> None:
    container = "mp4" if suffix == ".m4a" else None
    expected = tone(1.5)
    path = write_clip(tmp_path / f"1{suffix}", size=None, sound=expected, cover=has_cover, container=container)
    with opened(path) as clip:
        assert clip.has_sound and not clip.has_picture and not list(clip.pictures(5))
        sound = clip.sound(16_000)
        assert np.array_equal(clip.sound(16_000), sound)
    assert 24_000 <= len(sound) <= 25_100
    middle = slice(4_000, 20_000)
    assert np.abs(sound[middle] - expected[0][middle]).max() < (0.05 if suffix in (".mp3", ".m4a", ".ogg") else 1e-4)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_sound_that_begins_late_is_preceded_by_silence(suffix: str, tmp_path: Path) -> None:
    path = write_clip(tmp_path / f"1{suffix}", seconds=2, sound=tone(1.0), sound_start=0.4)
    sound = sound_of(path)
    assert np.abs(sound[: 6_400 - 16]).max() < 0.02
    assert np.abs(sound[6_400 : 6_400 + 160]).max() > 0.3
    assert 1.4 * 16_000 <= len(sound) <= 1.4 * 16_000 + 1024
    assert shown(path)[:2] == [(0, 0), (0.04, 1)]


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_pictures_that_begin_late_keep_their_times(suffix: str, tmp_path: Path) -> None:
    path = write_clip(tmp_path / f"1{suffix}", picture_start=0.3)
    # The picture of 0.3 s appears within the step that begins at 0.28 s; before that there is none.
    assert shown(path)[:4] == [(0.28, 0), (0.32, 0), (0.36, 1), (0.4, 2)]
    assert shown(path, 5)[:3] == [(0.2, 0), (0.4, 2), (0.6, 7)]
    assert len(sound_of(path)) >= 16_000


def test_gaps_in_the_sound_are_silent_and_what_follows_keeps_its_time(tmp_path: Path) -> None:
    expected = tone(2.0)
    path = write_clip(tmp_path / "1.mkv", seconds=2, sound=expected, audio_codec="pcm_f32le", gap=(0.6, 1.2))
    sound = sound_of(path)
    filled = expected[0].copy()
    filled[9_600:19_200] = 0
    assert np.array_equal(sound, filled)


def test_rounded_times_make_no_gaps(tmp_path: Path) -> None:
    # 1152 samples of 44.1 kHz are 26.12 ms, and Matroska says 26.
    expected = tone(3.0, 44_100)
    path = write_clip(tmp_path / "1.mkv", size=None, sound=expected, sound_rate=44_100, audio_codec="flac")
    assert np.abs(sound_of(path, 44_100) - expected[0]).max() < 1e-4


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".mp3"])
def test_what_encoders_put_before_the_sound_is_dropped(suffix: str, tmp_path: Path) -> None:
    size = None if suffix == ".mp3" else (96, 64)
    path = write_clip(tmp_path / f"1{suffix}", size=size, sound=clicks(1, 48_000, [0.25]), sound_rate=48_000)
    sound = sound_of(path, 48_000)
    assert np.argmax(np.abs(sound) > 0.3) / 48_000 == pytest.approx(0.25, abs=0.0015)


# In any order


def test_sound_and_pictures_can_be_asked_for_in_any_order(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "1.mp4", seconds=2)
    expected_numbers, expected_sound = shown(path), sound_of(path)

    def numbers(pictures: Iterator[Picture]) -> list[tuple[float, int]]:
        return [(round(picture.time, 6), read_number(picture.image)) for picture in pictures]

    with opened(path) as clip:
        assert np.array_equal(clip.sound(16_000), expected_sound)
        assert numbers(clip.pictures(25)) == expected_numbers
        assert np.array_equal(clip.sound(16_000), expected_sound)
    with opened(path) as clip:
        pictures = clip.pictures(25)
        first = [next(pictures) for _ in range(20)]
        assert np.array_equal(clip.sound(16_000), expected_sound)
        assert numbers(iter(first)) + numbers(pictures) == expected_numbers
    with opened(path) as clip:
        assert numbers(clip.pictures(25)) == expected_numbers
        with pytest.raises(AssertionError, match="once"):
            next(clip.pictures(25))


def test_only_what_is_asked_for_is_decoded(tmp_path: Path) -> None:
    with opened(write_clip(tmp_path / "1.mp4")) as clip:
        tracks = clip._tracks
        clip.sound(16_000)
        assert tracks.sound.num_frames and not tracks.picture.num_frames
        next(clip.pictures(25))
        assert 0 < tracks.picture.num_frames < 25


def test_the_first_sound_and_the_first_picture_track_are_taken(tmp_path: Path) -> None:
    import av

    first, second = (
        write_clip(tmp_path / "1.mkv"),
        write_clip(tmp_path / "2.mkv", sound=tone(1.0, hz=100), size=(32, 32)),
    )
    path = tmp_path / "both.mkv"
    with av.open(str(path), "w") as file, av.open(str(first)) as one, av.open(str(second)) as other:
        added = {
            (number, stream.index): file.add_stream_from_template(stream)
            for number, source in enumerate((one, other))
            for stream in source.streams
        }
        for number, source in enumerate((one, other)):
            for packet in source.demux():
                if packet.size:
                    packet.stream = added[number, packet.stream_index]
                    file.mux(packet)
    assert np.array_equal(sound_of(path), sound_of(first))
    assert pictures_of(path)[0].image.shape == (64, 96, 3)


# The grid of pictures


@settings(max_examples=60, deadline=None)
@given(
    milliseconds=st.lists(st.integers(0, 2500), min_size=1, max_size=12, unique=True).map(sorted),
    rate=st.sampled_from([1.0, 5.0, 7.3, 25.0, 29.97, 30.0, 60.0, 100.0]),
    has_sound=st.booleans(),
)
def test_the_picture_on_screen_is_the_last_that_has_begun(
    tmp_path_factory: pytest.TempPathFactory, milliseconds: list[int], rate: float, has_sound: bool
) -> None:
    path = tmp_path_factory.mktemp("grid") / "1.mkv"
    times = [time / 1000 for time in milliseconds]
    sound = silence(0.1) if has_sound else None
    write_clip(path, times=times, size=(32, 16), sound=sound, video_codec="ffv1", audio_codec="pcm_s16le")
    start = 0 if has_sound else milliseconds[0]
    begins = [time - start for time in milliseconds]
    ends = begins[-1] + 40  # one picture of 25 Hz
    expected = []
    for step in range(int((ends + 1) * rate / 1000) + 2):
        here, after = (int(Fraction(k * 1000) / Fraction(rate) + Fraction(1, 2)) for k in (step, step + 1))
        on_screen = [number for number, time in enumerate(begins) if time <= here]
        if on_screen and here < ends:
            expected.append((round(step / rate, 6), on_screen[-1]))
        elif not on_screen and here < begins[0] < after:
            expected.append((round(step / rate, 6), 0))
    assert shown(path, rate) == expected


def test_variable_rates_of_mp4_too(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "1.mp4", times=[0, 0.1, 0.5, 0.52, 1.0], sound=None)
    assert shown(path, 10)[:11] == [(k / 10, number) for k, number in enumerate([0, 1, 1, 1, 1, 2, 3, 3, 3, 3, 4])]


def test_a_single_picture_is_shown_once_at_the_least(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "1.mkv", times=[0.0], sound=None)
    assert shown(path, 1) == [(0, 0)] and shown(path, 50) == [(0, 0), (0.02, 0)]


# What pictures look like


def patches(number: int, size: tuple[int, int]) -> Image:
    """Red, green, blue and white quarters, from the upper left to the lower right."""
    width, height = size
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = 255, 0, 0
    image[: height // 2, width // 2 :] = 0, 255, 0
    image[height // 2 :, : width // 2] = 0, 0, 255
    image[height // 2 :, width // 2 :] = 255, 255, 255
    return image


def corners(image: Image) -> str:
    """The colours of the quarters, e.g. `rg/bw`."""
    height, width = image.shape[:2]
    names = {(1, 0, 0): "r", (0, 1, 0): "g", (0, 0, 1): "b", (1, 1, 1): "w", (0, 0, 0): "k"}
    found = [
        names[tuple(int(value > 127) for value in image[y, x])]  # type: ignore[index]
        for y in (height // 4, 3 * height // 4)
        for x in (width // 4, 3 * width // 4)
    ]
    return "{}{}/{}{}".format(*found)


@pytest.mark.parametrize(
    ("rotation", "is_mirrored", "expected"),
    [
        (0, False, "rg/bw"),
        (90, False, "gw/rb"),
        (-90, False, "br/wg"),
        (180, False, "wb/gr"),
        (0, True, "gr/wb"),
        (90, True, "wg/br"),
        (-90, True, "rb/gw"),
        (180, True, "bw/rg"),
    ],
)
def test_rotated_and_mirrored_pictures_are_upright(
    rotation: int, is_mirrored: bool, expected: str, tmp_path: Path
) -> None:
    path = write_clip(tmp_path / "1.mp4", size=(96, 64), draw=patches, rotation=rotation, is_mirrored=is_mirrored)
    image = pictures_of(path, 5)[0].image
    assert corners(image) == expected
    assert image.shape == ((96, 64, 3) if abs(rotation) == 90 else (64, 96, 3))
    assert image.flags.c_contiguous
    assert max(pictures_of(path, 5, 48)[0].image.shape) == 48


@pytest.mark.parametrize("rotation", [0, 90, -90, 180])
def test_upright_is_what_another_reader_says(rotation: int, tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    path = write_clip(tmp_path / "1.mp4", size=(96, 64), draw=patches, rotation=rotation)
    capture = cv2.VideoCapture(str(path))
    is_read, theirs = capture.read()
    capture.release()
    assert is_read
    ours = pictures_of(path, 5)[0].image
    assert ours.shape == theirs.shape and corners(ours) == corners(theirs[:, :, ::-1])
    assert np.abs(ours.astype(int) - theirs[:, :, ::-1]).mean() < 4


@pytest.mark.parametrize(
    ("codec", "pixel_format"),
    [
        ("libx264", "yuv444p"),
        ("libx264", "yuv422p10le"),
        ("libx264rgb", "rgb24"),
        ("ffv1", "yuv410p"),
        ("ffv1", "yuva420p"),
        ("ffv1", "gbrp16le"),
        ("ffv1", "bgr0"),
        ("rawvideo", "yuyv422"),
        ("mjpeg", "yuvj420p"),
        ("png", "rgba"),
        ("prores_ks", "yuv422p10le"),
    ],
)
def test_pixel_formats_come_out_as_rgb(codec: str, pixel_format: str, tmp_path: Path) -> None:
    path = tmp_path / ("1.mov" if codec == "png" else "1.mkv")
    write_clip(path, draw=patches, video_codec=codec, pixel_format=pixel_format, times=[0])
    image = pictures_of(path, 1)[0].image
    assert corners(image) == "rg/bw" and np.abs(image.astype(int) - patches(0, (96, 64))).mean() < 12


def test_grey_and_animated_pictures(tmp_path: Path) -> None:
    grey = write_clip(tmp_path / "1.mkv", video_codec="ffv1", pixel_format="gray", sound=None)
    assert [number for _, number in shown(grey)] == list(range(25))
    animated = write_clip(tmp_path / "1.gif", video_codec="gif", pixel_format="rgb8", sound=None)
    assert len(pictures_of(animated)) == 25


@pytest.mark.parametrize(
    ("size", "longest_side", "expected"),
    [
        ((96, 64), None, (64, 96)),
        ((96, 64), 48, (32, 48)),
        ((64, 96), 48, (48, 32)),
        ((96, 64), 200, (64, 96)),
        ((98, 34), 33, (11, 33)),
        ((640, 2), 64, (1, 64)),
        ((96, 64), 1, (1, 1)),
    ],
)
def test_pictures_are_shrunk_and_never_enlarged(
    size: tuple[int, int], longest_side: int | None, expected: tuple[int, int], tmp_path: Path
) -> None:
    path = write_clip(tmp_path / "1.mkv", size=size, video_codec="ffv1", times=[0, 0.5])
    assert {picture.image.shape for picture in pictures_of(path, 5, longest_side)} == {(*expected, 3)}


def test_shrinking_averages(tmp_path: Path) -> None:
    def stripes(number: int, size: tuple[int, int]) -> Image:
        image = np.zeros((size[1], size[0], 3), np.uint8)
        image[:, ::2] = 255
        return image

    path = write_clip(tmp_path / "1.mkv", size=(128, 128), draw=stripes, video_codec="ffv1", pixel_format="gray")
    assert np.abs(pictures_of(path, 1, 16)[0].image.astype(int) - 127).max() <= 3


def test_images_cannot_be_written_to_since_they_may_be_shown_twice(tmp_path: Path) -> None:
    first, second = pictures_of(write_clip(tmp_path / "1.mkv", times=[0, 1.0]), 5)[:2]
    assert first.image is second.image
    with pytest.raises(ValueError, match="read-only"):
        first.image[0, 0] = 0


# What sound sounds like


@pytest.mark.parametrize(
    "codec", ["pcm_u8", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le"]
)
def test_sample_formats_have_one_scale(codec: str, tmp_path: Path) -> None:
    expected = tone(1.0, loudness=0.8)
    path = write_clip(tmp_path / "1.mov", size=None, sound=expected, audio_codec=codec)
    assert np.abs(sound_of(path) - expected[0]).max() < (0.01 if codec == "pcm_u8" else 1e-4)


def test_stereo_is_the_mean_and_surround_is_weighted(tmp_path: Path) -> None:
    left, right = tone(1.0, hz=440), tone(1.0, hz=660)
    path = write_clip(tmp_path / "1.wav", size=None, sound=np.concatenate([left, right]))
    assert np.abs(sound_of(path) - (left[0] + right[0]) / 2).max() < 1e-4
    for number, weight in enumerate([0.7071, 0.7071, 1.0, 0.0, 0.5, 0.5]):
        channels = np.zeros((6, 16_000), np.float32)
        channels[number] = left
        for suffix in (".flac", ".wav"):
            path = write_clip(tmp_path / f"6{suffix}", size=None, sound=channels)
            assert np.abs(sound_of(path) - left[0] * weight / 3.4142).max() < 1e-3, (number, suffix)


def test_six_channels_without_names_are_taken_for_the_usual_ones(tmp_path: Path) -> None:
    channels = np.zeros((6, 16_000), np.float32)
    channels[3] = 0.9  # low frequencies
    channels[2] = tone(1.0)
    path = write_clip(tmp_path / "1.avi", size=None, sound=channels, audio_codec="pcm_s16le")
    assert np.abs(sound_of(path) - tone(1.0)[0] / 3.4142).max() < 1e-3


@pytest.mark.parametrize("to_hz", [8_000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
def test_resampling_moves_and_changes_nothing_that_both_rates_can_hold(rate: int, to_hz: int, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "1.wav", size=None, sound=tone(1.0, rate, 500), sound_rate=rate)
    sound = sound_of(path, to_hz)
    assert len(sound) == to_hz
    middle = slice(to_hz // 10, -to_hz // 10)
    assert np.abs(sound[middle] - tone(1.0, to_hz, 500)[0][middle]).max() < 2e-3


@pytest.mark.parametrize("num", [1, 2, 100])
def test_very_short_sound(num: int, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "1.wav", size=None, sound=np.full((1, num), 0.5, np.float32))
    assert len(sound_of(path, 16_000)) == num
    assert len(sound_of(path, 48_000)) == 3 * num and len(sound_of(path, 1_000)) == max(1, round(num / 16))


def test_samples_that_are_no_numbers_are_silent_and_counted(tmp_path: Path) -> None:
    sound = tone(1.0)
    sound[0, 100], sound[0, 200], sound[0, 300] = np.nan, np.inf, 1e30
    path = write_clip(tmp_path / "1.wav", size=None, sound=sound, audio_codec="pcm_f32le")
    with opened(path) as clip:
        decoded = clip.sound(16_000)
        assert clip.is_truncated
    assert (decoded[[100, 200, 300]] == [0, 0, 1]).all()
    sound[0, [100, 200, 300]] = 0, 0, 1
    assert np.array_equal(decoded, sound[0])


# The same content in another file


def recoded(data: bytes, to: Path) -> Path:
    """The decoded frames of a clip, unchanged, in codecs that lose nothing."""
    import av

    with av.open(io.BytesIO(data)) as source, av.open(str(to), "w") as file:
        parts = []
        for stream in source.streams:
            if stream.type == "video":
                video = file.add_stream("ffv1", rate=stream.average_rate)
                video.width, video.height, video.pix_fmt = stream.width, stream.height, stream.pix_fmt
                video.codec_context.time_base = stream.time_base
                parts.append((stream, video))
            elif stream.type == "audio":
                parts.append((stream, file.add_stream("pcm_f32le", rate=stream.rate, layout=stream.layout.name)))
        added = {stream.index: target for stream, target in parts}
        for packet in source.demux(*[stream for stream, _ in parts]):
            for frame in packet.decode():
                file.mux(added[packet.stream.index].encode(frame))
        for _, target in parts:
            file.mux(target.encode(None))
    return to


def assert_equal_content(first: Path, second: Path) -> None:
    ours, theirs = pictures_of(first, 10, 320), pictures_of(second, 10, 320)
    assert [picture.time for picture in ours] == [picture.time for picture in theirs]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(ours, theirs, strict=True))
    for rate in (16_000, 44_100):
        assert np.array_equal(sound_of(first, rate), sound_of(second, rate))


@pytest.mark.parametrize("rate", [25, 30, Fraction(30_000, 1001)])
def test_a_lossless_copy_has_equal_pictures_and_sound(rate: float | Fraction, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "1.mp4", seconds=2, rate=rate, sound=tone(2.0, 44_100), sound_rate=44_100)
    assert_equal_content(path, recoded(path.read_bytes(), tmp_path / "copy.mkv"))


def real_clips() -> Path:
    beside = Path(__file__).resolve().parents[3] / "shared" / "data" / "media"
    path = Path(os.environ.get("LNLN_MEDIA") or beside) / "Raw"
    if not path.is_dir():
        pytest.skip(f"no real clips at {path.parent}; set LNLN_MEDIA")
    return path


@pytest.mark.slow
def test_real_clips_decode_whole_and_a_lossless_copy_is_equal(tmp_path: Path) -> None:
    paths = sorted(real_clips().glob("*/*"))
    assert paths
    for path in paths:
        with opened(path) as clip:
            sound = clip.sound(16_000)
            times = [picture.time for picture in clip.pictures(10, 320)]
            assert clip.has_sound and not clip.is_truncated
            assert len(sound) / 16_000 == pytest.approx(clip.seconds, abs=0.1)
            if clip.has_picture:
                assert times == [k / 10 for k in range(len(times))] and len(times) / 10 >= clip.seconds - 0.2
    short = real_clips() / "Oz06ZWiO20M" / "6.mp4"
    if short.exists():
        assert_equal_content(short, recoded(short.read_bytes(), tmp_path / "copy.mkv"))


# The file itself


def test_the_clip_as_a_file(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "1.mp4")
    with open_clip(path.read_bytes(), "视频/1 x.mp4", max_seconds=10) as clip:
        assert clip.name == "视频/1 x.mp4"
        with clip.file() as file:
            assert file.suffix == ".mp4" and file.read_bytes() == path.read_bytes()
        assert not file.parent.exists()
        assert clip.sound(16_000).size


def test_names_play_no_part(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "1.mp4").rename(tmp_path / "1.wav")
    assert len(shown(path)) == 25


def test_metadata_that_is_no_utf8_does_not_matter(tmp_path: Path) -> None:
    import av

    path = tmp_path / "1.avi"
    write_clip(path)
    with av.open(str(path)) as source, av.open(str(tmp_path / "2.avi"), "w") as file:
        file.metadata["title"] = "TITELTITEL"
        added = {stream.index: file.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.size:
                packet.stream = added[packet.stream_index]
                file.mux(packet)
    data = (tmp_path / "2.avi").read_bytes()
    assert b"TITELTITEL" in data
    assert decode_all(data.replace(b"TITELTITEL", b"TIT\xff\xfeTITEL"))[:3] == decode_all(data)[:3]


@pytest.mark.slow
def test_memory_stays_small_however_many_pictures_there_are(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "1.mp4", seconds=6, size=(640, 360), video_codec="mpeg4", pixel_format="yuv420p")
    code = """
        from pipelines.clips.decode import open_clip
        data = Path(sys.argv[1]).read_bytes()
        def look():
            with open_clip(data, "1.mp4", max_seconds=60) as clip:
                return clip.sound(16_000).size, sum(picture.image[0, 0, 0] >= 0 for picture in clip.pictures(25))
        look()
        begin()
        assert look()[1] == 150
        end()
    """
    assert peak_bytes(code, path) < 15e6  # all pictures: 104 MB; one: 0.7 MB


# Refused


def test_refusals_say_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "1.mp4"
    path.write_bytes(b"")
    assert refusal(path) == ("file", "is empty")
    for content in (b"x", b"no media at all\n" * 100, bytes(10_000), "中文".encode() * 50):
        path.write_bytes(content)
        assert refusal(path) == ("file", "cannot be opened as a media file (Invalid data found when processing input)")
    whole = write_clip(tmp_path / "2.mp4")
    assert refusal(truncated(whole, 0.5, path))[0] == "file"
    assert refusal(write_empty_tracks(path)) == ("decode", "has neither sound nor picture")


def test_files_that_are_no_clips_are_refused(tmp_path: Path) -> None:
    import av

    picture = tmp_path / "1.png"
    with av.open(str(picture), "w", format="image2") as file:
        stream = file.add_stream("png")
        stream.width, stream.height, stream.pix_fmt = 32, 32, "rgb24"
        file.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(1, (32, 32)), format="rgb24")))
        file.mux(stream.encode(None))
    assert refusal(picture)[0] == "file"
    subtitles = tmp_path / "1.srt"
    subtitles.write_text("1\n00:00:00,000 --> 00:00:01,000\nhello\n\n" * 50)
    assert refusal(subtitles)[0] == "file"


def test_without_pyav_the_install_line_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(RefusedError, match=r"pip install 'lnln\[media\]'"), open_clip(b"x", "1.mp4", max_seconds=1):
        pass


@pytest.mark.parametrize("suffix", [*BOTH, ".wav", ".mp3", ".ogg"])
def test_clips_that_are_too_long_are_refused_before_anything_is_decoded(suffix: str, tmp_path: Path) -> None:
    size = (96, 64) if suffix in BOTH else None
    path = write_clip(tmp_path / f"1{suffix}", seconds=3, size=size, sound=tone(3.0))
    with pytest.raises(ClipError) as caught, opened(path, max_seconds=2.5):
        pass
    assert (caught.value.stage, caught.value.reason) == ("decode", "is longer than 2.5 seconds (clips.max_seconds)")
    with opened(path, max_seconds=3.2) as clip:
        assert clip.sound(16_000).size >= 48_000


def test_a_jump_in_the_times_does_not_fill_the_memory(tmp_path: Path) -> None:
    sound = tone(1.0)
    path = write_clip(tmp_path / "1.mkv", times=[0, 1e6], sound=sound)
    assert refusal(path) == ("decode", "is longer than 600 seconds (clips.max_seconds)")
    path = write_clip(tmp_path / "1.mkv", sound_start=1e6)
    assert refusal(path) == ("decode", "is longer than 600 seconds (clips.max_seconds)")


def wave(rate: int, num_channels: int = 1, block: int = 2, data: bytes = bytes(2000)) -> bytes:
    """A WAVE file whose header says so."""
    head = struct.pack("<HHIIHH", 1, num_channels, rate, rate * block & 0xFFFFFFFF, block, 16)
    body = b"WAVEfmt " + struct.pack("<I", len(head)) + head + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("rate", [0, 1, 7, 999, 192_001, 2**31 - 1, 2**32 - 1])
def test_absurd_sample_rates_are_refused(rate: int, tmp_path: Path) -> None:
    path = tmp_path / "1.wav"
    path.write_bytes(wave(rate))
    assert refusal(path)[0] in ("decode", "file")
    path.write_bytes(wave(8_000))
    assert decode_all(path.read_bytes())[1] == 2_000


@pytest.mark.parametrize(("num_channels", "block"), [(0, 2), (255, 510), (65_535, 2), (1, 0), (2, 65_535)])
def test_absurd_channels_are_refused_or_read(num_channels: int, block: int, tmp_path: Path) -> None:
    path = tmp_path / "1.wav"
    path.write_bytes(wave(8_000, num_channels, block))
    try:
        decode_all(path.read_bytes())
    except ClipError as error:
        assert error.stage in ("file", "decode")


@pytest.mark.parametrize("size", [(8256, 16), (16, 8256)])
@pytest.mark.parametrize("suffix", [".mkv", ".avi"])
def test_huge_pictures_are_refused(size: tuple[int, int], suffix: str, tmp_path: Path) -> None:
    path = write_clip(tmp_path / f"1{suffix}", size=size, video_codec="mjpeg", pixel_format="yuvj420p", times=[0])
    assert refusal(path) == ("decode", f"has pictures of {size[0]} x {size[1]} pixels; no side may be above 8192")


def test_a_header_that_lies_about_the_size_takes_no_memory(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "1.mov", size=(64, 64), video_codec="png", pixel_format="rgb24", times=[0], sound=None)
    data = path.read_bytes()
    header = data.index(b"IHDR") + 4
    # A picture of 8000 x 8000 within a track of 64 x 64; the checksum of PNG chunks is not looked at.
    hostile = data[:header] + struct.pack(">II", 8000, 8000) + data[header + 8 :]
    with pytest.raises(ClipError, match="neither sound nor picture"):
        decode_all(hostile)


# Files that name others


def playlists(target: Path) -> dict[str, bytes]:
    """Small files that make FFmpeg open `target`, by format."""
    return {
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{target}\n#EXT-X-ENDLIST\n".encode(),
        "hls with an address": f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nfile://{target}\n#EXT-X-ENDLIST\n".encode(),
        "concat": f"ffconcat version 1.0\nfile '{target}'\n".encode(),
        "dash": (
            '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
            'mediaPresentationDuration="PT2S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period>'
            f'<AdaptationSet contentType="video"><Representation id="0" bandwidth="1"><BaseURL>{target}</BaseURL>'
            "</Representation></AdaptationSet></Period></MPD>"
        ).encode(),
        "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
        b"a=rtpmap:96 H264/90000\n",
    }


@pytest.mark.parametrize("kind", ["hls", "hls with an address", "concat", "dash", "sdp"])
def test_files_that_name_others_do_not_open_them(kind: str, tmp_path: Path) -> None:
    secret = write_clip(tmp_path / "secret.ts", seconds=2)
    path = tmp_path / "1.mp4"
    path.write_bytes(playlists(secret)[kind])
    assert refusal(path)[0] == "file"


def test_ffmpeg_alone_would_open_them(tmp_path: Path) -> None:
    import av

    secret = write_clip(tmp_path / "secret.ts", seconds=2)
    for kind, suffix in (("hls", ".m3u8"), ("concat", ".txt")):
        path = tmp_path / f"1{suffix}"
        path.write_bytes(playlists(secret)[kind])
        with av.open(str(path), options={"safe": "0"} if kind == "concat" else {}) as container:
            assert container.streams.video, kind


class NamedBytes(io.BytesIO):
    """FFmpeg takes a playlist for one by its name too, which it is never told."""

    name = "1.m3u8"


@pytest.mark.parametrize("lock", ["format_whitelist", "protocol_whitelist", "io_open", "none"])
@pytest.mark.parametrize("kind", ["hls", "concat"])
def test_each_lock_holds_by_itself(kind: str, lock: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import av

    if (kind, lock) == ("concat", "io_open"):
        return  # FFmpeg's concat opens files in its own way
    secret = write_clip(tmp_path / "secret.ts", seconds=2)
    path = tmp_path / "1.mp4"
    path.write_bytes(playlists(secret)[kind].replace(str(secret).encode(), b"secret.ts"))
    monkeypatch.chdir(tmp_path)
    av_open = av.open

    def less_careful(file: Any, *, options: dict[str, str], io_open: Any, **others: Any) -> Any:
        options = {name: value for name, value in options.items() if name == lock}
        io_open = io_open if lock == "io_open" else None
        return av_open(NamedBytes(file.getvalue()), options=options, io_open=io_open, **others)

    monkeypatch.setattr(av, "open", less_careful)
    if lock == "none":
        assert decode_all(path.read_bytes())[0] > 10, "without them it is read"
    else:
        assert refusal(path)[0] == "file"


# Damage


@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".avi", ".ts", ".wav", ".flac"])
def test_what_is_left_of_a_truncated_file_is_used_and_counted(suffix: str, tmp_path: Path) -> None:
    size = (96, 64) if suffix in BOTH else None
    whole = write_clip(tmp_path / f"1{suffix}", seconds=2, size=size, sound=tone(2.0))
    path = truncated(whole, 0.6, tmp_path / f"2{suffix}")
    with opened(whole) as clip:
        assert not clip.is_truncated
    with opened(path) as clip:
        sound, numbers = clip.sound(16_000), [read_number(picture.image) for picture in clip.pictures(25)]
        assert clip.is_truncated
    assert 0.3 * 32_000 < len(sound) < 0.9 * 32_000
    if size:
        assert 0.3 * 50 < len(numbers) < 0.9 * 50
        assert sorted(numbers) == numbers


def test_a_truncated_mp4_whose_index_comes_first(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "1.mp4", seconds=2, options={"movflags": "faststart"})
    num_pictures, num_samples, is_truncated, _ = decode_all(truncated(whole, 0.6, tmp_path / "2.mp4").read_bytes())
    assert is_truncated and 5 <= num_pictures <= 18 and 8_000 < num_samples < 28_000


def test_damage_within_is_passed_over_and_counted(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "1.mkv", seconds=2, video_options={"g": "10"})
    data = bytearray(whole.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 300] = bytes(300)
    num_pictures, num_samples, is_truncated, _ = decode_all(bytes(data))
    assert is_truncated and num_pictures >= 10 and num_samples >= 16_000


def test_a_clip_of_which_nothing_can_be_decoded_is_refused(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "1.mov", video_codec="png", pixel_format="rgb24", sound=None, times=[0, 0.5])
    data = path.read_bytes().replace(b"IHDR", b"XXXX")
    path.write_bytes(data)
    assert refusal(path) == ("decode", "has neither sound nor picture that can be decoded")
    path = write_clip(tmp_path / "2.mov", video_codec="png", pixel_format="rgb24", times=[0, 0.5])
    num_pictures, num_samples, is_truncated, _ = decode_all(path.read_bytes().replace(b"IHDR", b"XXXX"))
    assert num_pictures == 0 and num_samples >= 16_000 and is_truncated


def decode_damaged(data: bytes) -> tuple[Any, ...]:
    """What comes of it, in a child; ClipError as its stage."""
    try:
        return decode_all(data, max_seconds=30)
    except ClipError as error:
        assert error.reason and "0x" not in error.reason and "/" not in error.reason.replace("Input/output", "")
        return (error.stage, error.reason)


@pytest.mark.slow
def test_damaged_bytes_give_something_or_a_clip_error_and_nothing_else(tmp_path: Path) -> None:
    sources = [
        write_clip(tmp_path / "1.mp4", options={"movflags": "faststart"}),
        write_clip(tmp_path / "2.mp4", video_options={"g": "5"}, options={"movflags": "frag_keyframe"}, rotation=90),
        write_clip(tmp_path / "1.mkv", sound=tone(1.0).repeat(2, 0)),
        write_clip(tmp_path / "1.webm"),
        write_clip(tmp_path / "1.avi"),
        write_clip(tmp_path / "1.ts"),
        write_clip(tmp_path / "1.wav", size=None),
        write_clip(tmp_path / "1.flac", size=None),
        write_clip(tmp_path / "1.mp3", size=None, cover=True),
        write_clip(tmp_path / "1.ogg", size=None),
    ]
    outcomes: list[tuple[Any, ...]] = []
    with Isolated() as isolated:
        for seed in range(6):
            for source in sources:
                # Half of them in the headers, where most is decided.
                data = source.read_bytes()
                hit = damaged(data[: 2000 if seed % 2 else None], seed, num=4 * 4**seed % 300) + (
                    data[2000:] if seed % 2 else b""
                )
                outcomes.append(isolated.call(decode_damaged, hit, timeout_seconds=60))
        assert isolated.call(decode_damaged, hit, timeout_seconds=60) == outcomes[-1]
    refused = [outcome for outcome in outcomes if len(outcome) == 2]
    counted = [outcome for outcome in outcomes if len(outcome) == 4 and outcome[2]]
    assert len(outcomes) == 60 and len(refused) >= 5 and len(counted) >= 5, (refused, counted)


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = write_clip(tmp_path / "1.mp4", options={"movflags": "faststart"}).read_bytes()
    capfd.readouterr()
    for seed in range(3):
        decode_damaged(damaged(data, seed, 50, start=0.3))
    decode_damaged(data[: len(data) // 2])
    assert capfd.readouterr() == ("", "")


def test_a_decoded_clip_is_a_clip() -> None:
    from pipelines.extractors.base import Clip

    def takes(clip: Clip) -> None: ...

    def gives(clip: DecodedClip) -> None:
        takes(clip)  # mypy looks

    assert callable(gives)
