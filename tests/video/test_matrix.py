"""Films of every kind that people hand us, each checked against the law of its making: frame k of the reading shows the stored
picture nearest to k / 25 s, upright, and clicks are heard where they were put. And damaged ones: right, or a clear error.

The pictures are tiny and spell out their own time (see `films`).
"""

import shutil
import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from talk3d.errors import MediaError, NoAudioError
from talk3d.video.clock import frames_in
from talk3d.video.look import check_complete, count_frames, probe, require_video
from talk3d.video.read import read_audio, read_frames
from tests.video.films import click_times, clicks, make_film, number_in, set_rotation


@pytest.fixture(autouse=True)
def nothing_lies_beside(tmp_path: Path) -> Iterator[None]:
    """Whatever is read, the folder holds afterwards what the test put there: films, and nothing that is hidden or odd."""
    yield
    left = {path.suffix for path in tmp_path.rglob("*")}
    assert left <= {".mp4", ".mov", ".mkv", ".webm", ".avi", ".ts", ".wav", ".png", ".jpg", ".webp", ".bin", ""}
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".") or path.name.startswith("core")]


def stamps(rate: float | Fraction, seconds: float = 1.0) -> list[int]:
    return [round(1000 * k / rate) for k in range(round(rate * seconds))]


def check_by_law(film: Path, milliseconds: list[int], length: float, rate: float | Fraction = 25) -> None:
    """`length` in seconds: the end of the last picture."""
    shown = [number_in(frame) for frame in read_frames(film)]
    assert len(shown) == count_frames(film) == frames_in(length)
    stored = np.array(milliseconds) - milliseconds[0]
    for k, number in enumerate(shown):
        assert number in stored
        # One millisecond for the rounding of stamps, as containers do it.
        assert abs(number - 40 * k) <= np.abs(stored - 40 * k).min() + 1, (k, number)


# ------------------------------------------------------------------------------------------------- containers and codecs

KINDS: dict[str, dict[str, Any]] = {
    "h264.mp4": {},
    "h264.mov": {"sound_codec": "pcm_s16le"},
    "h264.mkv": {"sound_codec": "flac"},
    "h264.avi": {"sound_codec": "pcm_s16le", "options": {"crf": "20", "bf": "0"}},  # its sound: see below
    "h264.ts": {},
    "h264-444.mp4": {"pixels": "yuv444p"},
    "h264-10bit.mkv": {"pixels": "yuv420p10le"},
    "hevc.mp4": {"codec": "libx265"},
    "hevc-10bit.mov": {"codec": "libx265", "pixels": "yuv420p10le"},
    "hevc-10bit-422.mkv": {"codec": "libx265", "pixels": "yuv422p10le"},
    "vp9.webm": {"codec": "libvpx-vp9", "sound_codec": "libopus", "sound_rate": 48000},
    "vp9.mp4": {"codec": "libvpx-vp9"},
    "av1.mp4": {"codec": "libsvtav1"},
    "av1-10bit.mkv": {"codec": "libsvtav1", "pixels": "yuv420p10le", "sound_codec": "libopus", "sound_rate": 48000},
    "av1.webm": {"codec": "libsvtav1", "sound_codec": "libopus", "sound_rate": 48000},
    "mpeg4.avi": {"codec": "mpeg4", "sound_codec": "pcm_s16le"},
    "mpeg4.mp4": {"codec": "mpeg4"},
    "mjpeg.avi": {"codec": "mjpeg", "pixels": "yuvj420p", "sound_codec": "pcm_s16le"},
    "prores.mov": {"codec": "prores_ks", "pixels": "yuv422p10le", "sound_codec": "pcm_s24le"},
    "ffv1.mkv": {"codec": "ffv1", "pixels": "bgr0", "sound_codec": "pcm_f32le"},
}


@pytest.mark.parametrize("name", KINDS)
def test_containers_and_codecs(tmp_path: Path, name: str) -> None:
    options = {"sound_rate": 16000} | KINDS[name]
    sound = clicks(options["sound_rate"], 1.0, [0.2, 0.7])[None]
    film = make_film(tmp_path / name, stamps(25), sound=sound, **options)
    check_complete(film)
    info = probe(film)
    assert (info.video.width, info.video.height, info.video.rotation) == (96, 96, 0)
    assert not info.video.notes
    assert info.video.fps == pytest.approx(25, rel=0.01)
    check_by_law(film, stamps(25), 1.0)
    # AVI has no times of its own, and FFmpeg expects H.264 to be shown one frame after it is decoded.
    early = 0.04 if name == "h264.avi" else 0.0
    assert click_times(read_audio(film), 16000, 2) == pytest.approx([0.2 - early, 0.7 - early], abs=0.003)


# ------------------------------------------------------------------------------------------------------------- timing


@pytest.mark.parametrize("rate", [5, 10, 15, Fraction(24000, 1001), 24, Fraction(30000, 1001), 30, 48, 50, 60, 120], ids=str)
def test_rates(tmp_path: Path, rate: float | Fraction) -> None:
    film = make_film(tmp_path / "film.mp4", stamps(rate, 2.0), rate=rate)
    assert require_video(film).fps == pytest.approx(float(rate), rel=0.01)
    check_by_law(film, stamps(rate, 2.0), 2.0, rate)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_variable_rate(tmp_path: Path, suffix: str) -> None:
    """A phone in the dark: everything from 8 to 60 pictures a second, and a pause."""
    gaps = np.random.default_rng(7).integers(17, 120, 25)
    gaps[10] = 400
    milliseconds = [0, *np.cumsum(gaps).tolist()]
    codec = "libvpx-vp9" if suffix == ".webm" else "libx264"
    film = make_film(tmp_path / f"film{suffix}", milliseconds, codec=codec)
    shown = [number_in(frame) for frame in read_frames(film)]
    for k, number in enumerate(shown[:-4]):  # how long the last picture stands is not stored
        assert abs(number - 40 * k) <= np.abs(np.array(milliseconds) - 40 * k).min() + 1
    assert number_in(next(read_frames(film, start=30))) == shown[30]


@pytest.mark.parametrize(
    ("offset", "seconds", "heard"),
    [(0, 3.0, [0.2, 0.7]), (0, 0.75, [0.2, 0.7]), (120, 1.0, [0.08, 0.58]), (440, 1.0, [0.26])],
    ids=["longer", "shorter", "earlier", "much earlier"],
)
def test_sound_that_is_not_as_long_as_the_picture(tmp_path: Path, offset: int, seconds: float, heard: list[float]) -> None:
    sound = clicks(16000, seconds, [0.2, 0.7])[None]
    film = make_film(tmp_path / "film.mkv", stamps(25), offset=offset, sound=sound)
    check_by_law(film, stamps(25), 1.0)
    assert click_times(read_audio(film), 16000, len(heard)) == pytest.approx(heard, abs=0.003)


def test_sound_that_starts_later_than_the_picture(tmp_path: Path) -> None:
    film, rate = tmp_path / "film.mkv", 16000
    with av.open(str(film), "w") as container:
        video = container.add_stream("ffv1", rate=25)
        video.width = video.height = 96
        audio = container.add_stream("pcm_s16le", rate=rate, layout="mono")
        for k in range(25):
            frame = av.VideoFrame(96, 96, "yuv420p")
            frame.pts, frame.time_base = k, Fraction(1, 25)
            container.mux(video.encode(frame))
        frame = av.AudioFrame.from_ndarray((clicks(rate, 0.5, [0.1]) * 32767).astype(np.int16)[None], "s16", "mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, rate * 3 // 10, Fraction(1, rate)
        container.mux(audio.encode(frame))
    heard = read_audio(film)
    assert click_times(heard, rate, 1) == pytest.approx([0.4], abs=0.002)
    assert not heard[: rate // 4].any()


@pytest.mark.parametrize(
    ("codec", "rate", "channels", "suffix"),
    [
        ("aac", 44100, 2, ".mp4"), ("aac", 48000, 6, ".mp4"), ("aac", 8000, 1, ".mp4"), ("mp3", 44100, 2, ".mkv"),
        ("libopus", 48000, 2, ".webm"), ("pcm_s16le", 11025, 1, ".avi"), ("pcm_f32le", 96000, 2, ".mkv"),
    ],
)  # fmt: skip
def test_sound_of_any_rate(tmp_path: Path, codec: str, rate: int, channels: int, suffix: str) -> None:
    sound = np.repeat(clicks(rate, 1.0, [0.2, 0.7])[None], channels, axis=0)
    video = {"codec": "libvpx-vp9"} if suffix == ".webm" else {"codec": "mpeg4"}
    film = make_film(tmp_path / f"film{suffix}", stamps(25), sound=sound, sound_codec=codec, sound_rate=rate, **video)
    info = probe(film).audio
    assert (info.rate, info.channels) == (rate, channels)
    assert click_times(read_audio(film), 16000, 2) == pytest.approx([0.2, 0.7], abs=0.003)
    assert len(read_audio(film)) == pytest.approx(16000, abs=2000)


def test_of_several_sound_tracks_the_first_is_heard(tmp_path: Path) -> None:
    film = make_film(tmp_path / "film.mkv", stamps(25), sound=clicks(16000, 1.0, [0.4])[None], sound_tracks=3)
    assert probe(film).audio.tracks == 3
    assert click_times(read_audio(film), 16000, 1) == pytest.approx([0.4], abs=0.003)


# ------------------------------------------------------------------------------------------------------------- shapes


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_turned_films(tmp_path: Path, degrees: int, suffix: str) -> None:
    """Numbers can be read from upright pictures only; the size tells 90 from 270 no less than the number does."""
    stored = make_film(tmp_path / f"stored{suffix}", stamps(25), size=(120, 96), turned=degrees)
    film = set_rotation(stored, tmp_path / f"film{suffix}", degrees)
    info = require_video(film)
    assert (info.width, info.height, info.rotation) == ((120, 96) if degrees == 180 else (96, 120)) + (degrees,)
    assert next(read_frames(film)).shape == (info.height, info.width, 3)
    check_by_law(film, stamps(25), 1.0)
    assert [number_in(frame) for frame in read_frames(stored)] != [number_in(frame) for frame in read_frames(film)]


@pytest.mark.parametrize(("aspect", "shown"), [(Fraction(2), 192), (Fraction(1, 2), 48), (Fraction(3, 2), 144)], ids=str)
def test_pixels_that_are_not_square(tmp_path: Path, aspect: Fraction, shown: int) -> None:
    film = make_film(tmp_path / "film.mkv", stamps(25), aspect=aspect)
    info = require_video(film)
    assert (info.width, info.height) == (shown, 96)
    assert next(read_frames(film)).shape == (96, shown, 3)
    if shown != 48:  # numbers are four pixels high there, and a half of one is too little
        check_by_law(film, stamps(25), 1.0)


@pytest.mark.parametrize(
    ("size", "codec", "pixels"),
    [
        ((24, 2), "ffv1", "bgr0"), ((96, 160), "libx264", "yuv420p"), ((160, 96), "libx264", "yuv420p"),
        ((97, 95), "libx264", "yuv444p"), ((101, 51), "ffv1", "yuv420p"), ((1920, 1080), "mpeg4", "yuv420p"),
        ((3840, 2160), "mpeg4", "yuv420p"), ((2160, 3840), "mjpeg", "yuvj420p"),
    ],
    ids=str,
)  # fmt: skip
def test_sizes(tmp_path: Path, size: tuple[int, int], codec: str, pixels: str) -> None:
    few = stamps(25, 1.0 if size[0] < 1000 else 0.16)
    film = make_film(tmp_path / "film.mkv", few, size=size, codec=codec, pixels=pixels)
    assert next(read_frames(film)).shape == (size[1], size[0], 3)
    check_by_law(film, few, len(few) / 25)


def test_a_cover_is_no_film(tmp_path: Path) -> None:
    film = tmp_path / "song.mp4"
    with av.open(str(film), "w") as container:
        cover = container.add_stream("png", rate=1)
        cover.width = cover.height = 96
        cover.pix_fmt = "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        audio = container.add_stream("aac", rate=16000, layout="mono")
        container.mux(cover.encode(av.VideoFrame(96, 96, "rgb24")))
        container.mux(cover.encode(None))
        frame = av.AudioFrame.from_ndarray(clicks(16000, 1.0, [0.4])[None], "fltp", "mono")
        frame.sample_rate, frame.pts, frame.time_base = 16000, 0, Fraction(1, 16000)
        container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    with av.open(str(film)) as container:  # the canary: there is a picture track
        assert container.streams.video
    assert probe(film).video is None
    assert click_times(read_audio(film), 16000, 1) == pytest.approx([0.4], abs=0.003)


# ------------------------------------------------------------------------------------------------------ light and halves


def test_interlaced_films_are_made_whole(tmp_path: Path) -> None:
    """A bar that moves between the halves of a picture has combed edges; made whole, it is as straight as a standing one."""
    film = tmp_path / "film.mp4"
    with av.open(str(film), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"x264-params": "bff=1:interlaced=1", "crf": "10"})
        video.width, video.height, video.pix_fmt = 128, 64, "yuv420p"
        for k in range(20):
            picture = np.full((64, 128, 3), 40, np.uint8)
            picture[1::2, 4 * k : 4 * k + 16] = 220  # the first half
            picture[0::2, 4 * k + 2 : 4 * k + 18] = 220  # the second, 20 ms later
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))

    def combs(picture: np.ndarray) -> float:
        rows = picture.astype(float)[..., 0]
        return float(np.abs(rows[1:-1] - (rows[:-2] + rows[2:]) / 2).mean())

    info = require_video(film)
    assert info.interlaced
    assert "interlaced" in info.notes[0]
    frames = list(read_frames(film))
    with av.open(str(film)) as container:
        stored = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == count_frames(film) == 20
    # The first picture has none before it.
    assert max(map(combs, frames[1:])) < 0.1 * min(map(combs, stored))
    places = [float(np.nonzero(frame[32, :, 0] > 130)[0].mean()) for frame in frames[1:]]
    assert places == pytest.approx([4 * k + 7.5 for k in range(1, 20)], abs=0.6)
    later = list(read_frames(film, start=9, stop=12))
    assert np.abs(np.array(later, int) - np.array(frames[9:12], int)).mean() < 1


NITS = np.array([0, 5, 20, 100, 203, 400, 700, 1000])
SKIN = np.array([0.9, 0.55, 0.4])
WIDE_FROM_NARROW = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
"""Of ITU-R BT.2087: what a colour of BT.709 is in BT.2020."""


def signal_of(light: np.ndarray, transfer: str) -> np.ndarray:
    """BT.2020 light [..., 3] in cd/m2 as the numbers 0..1 that stand for it, by the formulas of ITU-R BT.2100."""
    if transfer == "pq":
        root = (light / 10_000) ** 0.1593017578125
        return ((0.8359375 + 18.8515625 * root) / (1 + 18.6875 * root)) ** 78.84375
    luminance = (light / 1000) @ [0.2627, 0.6780, 0.0593]
    scene = light / 1000 / np.maximum(luminance ** (0.2 / 1.2), 1e-9)[..., None]
    high = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), high)


@pytest.mark.parametrize(("transfer", "code"), [("pq", 16), ("hlg", 18)])
def test_hdr_is_brought_into_the_range_of_a_screen(tmp_path: Path, transfer: str, code: int) -> None:
    """Steps of grey and of skin, of known light, against the law in `tone_cube`'s first lines."""
    colours = np.stack([NITS[:, None] * np.ones(3), NITS[:, None] * SKIN])  # of BT.709
    signal = signal_of(colours @ WIDE_FROM_NARROW.T, transfer)
    picture = np.round(signal * 65535).astype(np.uint16).repeat(16, axis=1).repeat(32, axis=0)
    film = tmp_path / "film.mkv"
    with av.open(str(film), "w") as container:
        video = container.add_stream("ffv1", rate=25)
        video.width, video.height, video.pix_fmt = 128, 64, "yuv444p10le"
        context = video.codec_context
        context.color_trc, context.color_primaries, context.colorspace = code, 9, 9
        for k in range(4):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb48le").reformat(format="yuv444p10le", dst_colorspace=9)
            frame.pts, frame.time_base = k, Fraction(1, 25)
            frame.color_trc, frame.color_primaries, frame.colorspace = code, 9, 9
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    info = require_video(film)
    assert info.transfer == transfer
    assert transfer.upper() in info.notes[0]
    frames = list(read_frames(film))
    assert len(frames) == 4

    light, top = colours / 203, 1000 / 203
    most = light.max(axis=-1, keepdims=True)
    shown = light * (1 + most / top**2) / (1 + most)
    expected = 255 * np.where(shown <= 0.0031308, 12.92 * shown, 1.055 * shown ** (1 / 2.4) - 0.055)
    for frame in (frames[0], frames[-1]):
        seen = frame[16::32, 8::16].astype(float)
        assert np.abs(seen - expected).max() < 5
        assert np.ptp(seen[0], axis=-1).max() <= 2  # grey stays grey
    # The canary: read as if it were ordinary, it is another picture.
    with av.open(str(film)) as container:
        plain = next(container.decode(video=0)).to_ndarray(format="rgb24")[16::32, 8::16].astype(float)
    assert np.abs(plain - expected).max() > 12


# ------------------------------------------------------------------------------------------------------------- damage


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Undamaged films of a second, by kind."""
    folder = tmp_path_factory.mktemp("whole")
    kinds = {
        "mp4": {}, "mkv": {}, "webm": {"codec": "libvpx-vp9", "sound_codec": "libopus", "sound_rate": 48000},
        "avi": {"codec": "mpeg4", "sound_codec": "pcm_s16le"},
    }  # fmt: skip
    return {
        kind: make_film(
            folder / f"film.{kind}", stamps(25),
            sound=clicks(options.get("sound_rate", 16000), 1.0, [0.2])[None], **options,
        )
        for kind, options in kinds.items()
    }  # fmt: skip


def right_or_refused(path: Path) -> list[int]:
    """All readers; the numbers of the frames that were read before an error, or all."""
    shown: list[int] = []
    read = (probe, check_complete, count_frames, read_audio, lambda p: shown.extend(map(number_in, read_frames(p, stop=200))))
    said = []
    for reader in read:
        try:
            reader(path)
        except MediaError as error:
            said.append(str(error))
    assert all(path.name in text and text.endswith(".") for text in said), said
    return shown


@pytest.mark.parametrize("part", [0.02, 0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("kind", ["mp4", "mkv", "webm", "avi"])
def test_cut_off(whole: dict[str, Path], tmp_path: Path, kind: str, part: float) -> None:
    data = whole[kind].read_bytes()
    path = tmp_path / f"cut.{kind}"
    path.write_bytes(data[: int(part * len(data))])
    # What there is of a cut film is right, up to the last picture, which may be half there. Pictures are not stored in the
    # order in which they are shown, so near the cut some are missing.
    shown = right_or_refused(path)[:-1]
    assert shown == sorted(shown)
    assert all(number % 40 == 0 and abs(number - 40 * k) <= 80 for k, number in enumerate(shown))
    assert shown[:-5] == stamps(25)[: len(shown[:-5])]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("place", ["header", "data"])
@pytest.mark.parametrize("kind", ["mp4", "mkv", "webm", "avi"])
def test_flipped_bytes(whole: dict[str, Path], tmp_path: Path, kind: str, place: str, seed: int) -> None:
    data = bytearray(whole[kind].read_bytes())
    rng = np.random.default_rng(seed)
    low, high = (0, 400) if place == "header" else (len(data) // 4, 3 * len(data) // 4)
    for at in rng.integers(low, high, 12):
        data[at] ^= int(rng.integers(1, 256))
    path = tmp_path / f"flipped.{kind}"
    path.write_bytes(data)
    right_or_refused(path)


def test_a_wrong_ending_does_no_harm(whole: dict[str, Path], tmp_path: Path) -> None:
    for kind, ending in (("mp4", "avi"), ("mkv", "mp4"), ("avi", "wav"), ("webm", "png")):
        path = tmp_path / f"{kind}.{ending}"
        shutil.copy(whole[kind], path)
        check_by_law(path, stamps(25), 1.0)


@pytest.mark.parametrize("content", [b"", b"\0", b"words, words\n" * 1000, b"\0" * 100_000, bytes(range(256)) * 64], ids=len)
def test_what_is_no_film(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "thing.mp4"
    path.write_bytes(content)
    assert right_or_refused(path) == []
    with pytest.raises(MediaError, match=r"thing\.mp4"):
        probe(path)


def test_an_mp4_without_its_index(whole: dict[str, Path], tmp_path: Path) -> None:
    data = whole["mp4"].read_bytes()
    path = tmp_path / "noindex.mp4"
    path.write_bytes(data[: data.index(b"moov") - 4])
    with pytest.raises(MediaError, match="cannot be read"):
        probe(path)
    path.write_bytes(data.replace(b"moov", b"junk"))
    with pytest.raises(MediaError, match=r"noindex\.mp4"):
        list(read_frames(path))


# Bombs: small files that ask for much.


def bomb_in_a_picture(folder: Path) -> Path:
    """A PNG of 15000x15000 in a few bytes: not yet too large for FFmpeg."""
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 15000, 15000, 8, 2, 0, 0, 0))
    pictures = folder / "pictures"
    pictures.mkdir()
    (pictures / "1.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 1_000_000, 9)) + chunk(b"IEND", b"")
    )
    return pictures


def bomb_in_a_jpeg(folder: Path) -> Path:
    film = make_film(folder / "bomb.avi", stamps(25), codec="mjpeg", pixels="yuvj420p")
    data = bytearray(film.read_bytes())
    at = 0
    while (at := data.find(b"\xff\xc0\x00\x11\x08", at + 1)) > 0:
        data[at + 5 : at + 9] = struct.pack(">HH", 15000, 15000)
    film.write_bytes(data)
    return film


def bomb_in_the_shape_of_pixels(folder: Path) -> Path:
    return make_film(folder / "bomb.mp4", stamps(25), size=(1200, 96), aspect=Fraction(50))


def picture_for_ever(folder: Path) -> Path:
    """The last picture comes after 300 years."""
    film = make_film(folder / "bomb.mkv", [0, 40, 80])
    milliseconds = [0, 40, 10**13]
    with av.open(str(film)) as old, av.open(str(folder / "ever.mkv"), "w") as new:
        track = new.add_stream_from_template(old.streams.video[0])
        for packet, time in zip((p for p in old.demux(video=0) if p.size), milliseconds, strict=True):
            packet.stream, packet.pts, packet.dts = track, time, time
            new.mux(packet)
    return folder / "ever.mkv"


def sound_of_no_rate(folder: Path) -> Path:
    path = folder / "bomb.wav"
    body = b"\0\1" * 2000
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 0x7FFFFFF0, 0, 2, 16)
    data = struct.pack("<4sI", b"data", len(body)) + body
    path.write_bytes(struct.pack("<4sI4s", b"RIFF", 4 + len(form) + len(data), b"WAVE") + form + data)
    return path


def test_sound_is_finite(tmp_path: Path) -> None:
    """Files of floats may hold anything; what is a little too loud is left as it is."""
    path = tmp_path / "wild.wav"
    samples = np.tile(np.array([0.5, np.nan, np.inf, -np.inf, 3e38, -0.25, 1.25, 0.0], "<f4"), 1000)
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, 1, 16000, 64000, 4, 32)
    data = struct.pack("<4sI", b"data", samples.nbytes) + samples.tobytes()
    path.write_bytes(struct.pack("<4sI4s", b"RIFF", 4 + len(form) + len(data), b"WAVE") + form + data)
    heard = read_audio(path).reshape(1000, 8)
    assert np.isfinite(heard).all()
    assert np.abs(heard).max() <= 8
    assert np.array_equal(heard[:, [0, 1, 5, 6, 7]], np.tile(np.float32([0.5, 0, -0.25, 1.25, 0]), (1000, 1)))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (bomb_in_a_picture, r"1\.png` declares pictures of 15000x15000 pixels, more than"),
        (bomb_in_a_jpeg, r"bomb\.avi"),
        (bomb_in_the_shape_of_pixels, r"60000x96 pixels, more than"),
        (picture_for_ever, "one picture for .* Its times are damaged"),
        (sound_of_no_rate, "2147483632 samples per second"),
    ],
)
def test_small_files_that_ask_for_much(tmp_path: Path, make: Callable[[Path], Path], said: str) -> None:
    path = make(tmp_path)
    read = read_audio if path.suffix == ".wav" else lambda p: list(read_frames(p))
    with pytest.raises(MediaError, match=said) as caught:
        read(path)
    assert not isinstance(caught.value, NoAudioError)


def test_a_length_that_nothing_has(whole: dict[str, Path], tmp_path: Path) -> None:
    """Headers that declare a day: what is there is read, and `check_complete` says that the rest is missing."""
    data = bytearray(whole["mkv"].read_bytes())
    at = data.index(b"\x44\x89\x88") + 3  # Duration, in milliseconds, as a double
    data[at : at + 8] = struct.pack(">d", 86_400_000.0)
    path = tmp_path / "day.mkv"
    path.write_bytes(data)
    assert require_video(path).duration == 86_400
    assert [number_in(frame) for frame in read_frames(path)] == stamps(25)
    with pytest.raises(MediaError, match="cut off"):
        check_complete(path)
