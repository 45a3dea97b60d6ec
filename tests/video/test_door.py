"""The process that decodes, seen to crash, hang, lie and run out of memory without harm to this one."""

import gc
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from talk3d.errors import MediaError
from talk3d.video import door, wire
from talk3d.video.look import check_complete, count_frames, probe, require_video
from talk3d.video.read import read_audio, read_frames
from tests.video.films import make_film, number_in, set_rotation

resource = pytest.importorskip("resource")

FRAMES = 300
"""More than fit into the pipe, so that the worker is still busy when half of them are read."""


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_film(tmp_path_factory.mktemp("film") / "film.mp4", [40 * k for k in range(FRAMES)])


@pytest.fixture
def fresh() -> Iterator[None]:
    """For tests that change what workers are started with."""
    door._end_all()
    yield
    door._end_all()


def next_worker(film: Path) -> int:
    """The process that will answer the next request."""
    probe(film)
    return door._idle[-1].process.pid


def lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(process: int, seconds: float = 20) -> bool:
    until = time.monotonic() + seconds
    while lives(process) and time.monotonic() < until:
        time.sleep(0.05)
    return not lives(process)


# ---------------------------------------------------------------------------------------------------------- accidents


@pytest.mark.parametrize(
    ("accident", "said"), [(signal.SIGSEGV, r"crashed \(SIGSEGV\)"), (signal.SIGKILL, "killed"), (signal.SIGXCPU, "minutes")]
)
def test_an_accident_of_the_decoder_is_an_error_of_the_file(film: Path, accident: signal.Signals, said: str) -> None:
    process = next_worker(film)
    frames = read_frames(film)
    assert number_in(next(frames)) == 0
    os.kill(process, accident)
    with pytest.raises(MediaError, match=rf"film\.mp4.*{said}"):
        list(frames)
    assert not lives(process)
    assert sum(1 for _ in read_frames(film)) == FRAMES


def test_silence_is_an_error_of_the_file(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = next_worker(film)
    frames = read_frames(film)
    next(frames)
    os.kill(process, signal.SIGSTOP)
    monkeypatch.setattr(door, "PATIENCE", 0.3)
    with pytest.raises(MediaError, match=r"film\.mp4.*long time"):
        list(frames)
    assert not lives(process)


def test_a_worker_that_shows_signs_of_life_is_waited_for(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signs of life alone do not go on for ever."""
    worker = door._Worker()
    try:
        worker.request("look", {"shown": "film", "path": str(film), "fps": 25}, {})
        read, write = os.pipe()
        with os.fdopen(read, "rb", 0) as answers, os.fdopen(write, "wb", 0) as lines, worker.output:
            worker.output = answers
            for _ in range(3):
                lines.write(b"".join(wire.packed({"kind": "alive"})))
            lines.write(b"".join(wire.packed({"kind": "found", "found": {"a": 1}})))
            assert worker.receive() == {"a": 1}
            monkeypatch.setattr(door, "PATIENCE_FOR_RESULTS", 0.2)

            def go_on() -> None:
                for kind in ["alive"] * 40 + ["done"]:
                    lines.write(b"".join(wire.packed({"kind": kind})))
                    time.sleep(0.05)

            signs = threading.Thread(target=go_on)
            signs.start()
            with pytest.raises(MediaError, match="long time"):
                worker.receive()
            signs.join()
    finally:
        worker.end()


def test_memory_is_limited(tmp_path: Path, fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    large = make_film(tmp_path / "large.mkv", [0, 40, 80], size=(2400, 1600), codec="ffv1", pixels="yuv444p")
    monkeypatch.setattr(door, "MEMORY", 48 << 20)
    with pytest.raises(MediaError, match=r"large\.mkv"):
        list(read_frames(large))
    door._end_all()
    monkeypatch.undo()
    assert [number_in(frame) for frame in read_frames(large)] == [0, 40, 80]


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux tells the limits of other processes")
def test_what_a_worker_may_use(film: Path) -> None:
    process = next_worker(film)
    assert resource.prlimit(process, resource.RLIMIT_FSIZE) == (0, 0)
    assert resource.prlimit(process, resource.RLIMIT_CORE) == (0, 0)
    assert door.MEMORY < resource.prlimit(process, resource.RLIMIT_AS)[1] < 2 * door.MEMORY
    # It may go on for as long as it works: the limit moves with it.
    assert 0 < resource.prlimit(process, resource.RLIMIT_CPU)[0] < 600
    assert resource.prlimit(os.getpid(), resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux sets the limits of other processes")
def test_a_long_film_may_take_long(tmp_path: Path) -> None:
    """A worker that computes for longer than its limit, but gives results meanwhile, is given more time."""
    stored = make_film(tmp_path / "stored.mp4", [40 * k for k in range(30)], size=(2400, 1600), codec="mpeg4")
    large = set_rotation(stored, tmp_path / "large.mp4", 90)  # turning is work
    process = next_worker(large)
    frames = read_frames(large)
    next(frames)
    hard = resource.prlimit(process, resource.RLIMIT_CPU)[1]
    resource.prlimit(process, resource.RLIMIT_CPU, (1, hard))
    assert sum(1 for _ in frames) == 29
    ticks = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
    assert sum(map(int, ticks)) > os.sysconf("SC_CLK_TCK")  # the canary: it did take longer


# ---------------------------------------------------------------------------------------------------------- many readers


def test_workers_are_used_again_and_two_readers_do_not_meet(film: Path) -> None:
    process = next_worker(film)
    for _ in range(3):
        probe(film)
        assert door._idle[-1].process.pid == process
    for k, (one, other) in enumerate(zip(read_frames(film, stop=40), read_frames(film, start=100, stop=140), strict=True)):
        assert (number_in(one), number_in(other)) == (40 * k, (40 * k + 4000) % 4096)
    assert len(door._idle) <= door.IDLE


def test_an_abandoned_reader_gives_its_worker_back(film: Path) -> None:
    process = next_worker(film)
    frames = read_frames(film)
    next(frames)
    assert process not in [worker.process.pid for worker in door._idle]
    del frames
    gc.collect()
    assert process in [worker.process.pid for worker in door._idle]
    assert [number_in(frame) for frame in read_frames(film, stop=3)] == [0, 40, 80]


def test_errors_do_not_cost_a_worker(film: Path, tmp_path: Path) -> None:
    process = next_worker(film)
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(film.read_bytes()[:3000])
    for _ in range(3):
        with pytest.raises(MediaError, match=r"bad\.mp4"):
            probe(bad)
    assert next_worker(film) == process


def test_a_reader_outlives_the_thread_that_began_it(film: Path, fresh: None) -> None:
    begun: list[Iterator[np.ndarray]] = []
    thread = threading.Thread(target=lambda: begun.append(read_frames(film)) or next(begun[0]))
    thread.start()
    thread.join()
    assert [number_in(frame) for frame in begun[0]] == [40 * k % 4096 for k in range(1, FRAMES)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_copy_of_this_process_has_workers_of_its_own(film: Path) -> None:
    process = next_worker(film)
    child = os.fork()
    if child == 0:
        good = door._idle == [] and sum(1 for _ in read_frames(film)) == FRAMES
        door._end_all()
        os._exit(0 if good else 1)
    assert sum(1 for _ in read_frames(film)) == FRAMES
    assert os.waitpid(child, 0)[1] == 0
    assert lives(process)


READER = """
import sys, time
from talk3d.video import door
from talk3d.video.look import probe
from talk3d.video.read import read_frames
probe(sys.argv[1])
process = door._idle[-1].process.pid
frames = read_frames(sys.argv[1])
next(frames)
assert not door._idle
print(process, flush=True)
for frame in frames: time.sleep(0.05)
"""


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_orphan_is_left(film: Path, end: signal.Signals) -> None:
    program = [sys.executable, "-c", READER, str(film)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as reader:
        process = int(reader.stdout.readline())
        assert lives(process)
        reader.send_signal(end)
        reader.wait()
    assert gone(process)


# ---------------------------------------------------------------------------------------------------------- lies


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack("<IQ", 1 << 31, 0) + b"{}",
        struct.pack("<IQ", 2, 0) + b"[]",
        struct.pack("<IQ", 3, 0) + b"nul",
        struct.pack("<IQ", 200_000, 0) + b"[" * 200_000,
        b"".join(wire.packed({"kind": "strange"})),
        b"".join(wire.packed({"kind": "found", "found": 3})),
        struct.pack("<IQ", 2, 1 << 62) + b"{}",
        b"".join(wire.packed({"kind": "array"}, np.zeros((4, 4), np.int64))),
    ],
)
def test_a_worker_that_lies_is_not_believed(said: bytes) -> None:
    worker = door._Worker()
    try:
        worker.shown = "film.mp4"
        read, write = os.pipe()
        with os.fdopen(read, "rb", 0) as answers, os.fdopen(write, "wb", 0) as lines, worker.output:
            worker.output = answers
            threading.Thread(target=lambda: (lines.write(said), lines.close())).start()
            worker.process.kill()
            with pytest.raises(MediaError, match=r"film\.mp4"):
                worker.receive()
    finally:
        worker.end()


@pytest.mark.parametrize(
    ("shape", "dtype", "size"),
    [
        ([4, 4, 3], "uint8", 47),
        ([4, 4, 4], "uint8", 64),
        ([4, -4], "uint8", 16),
        ([1 << 20, 1 << 20], "uint8", 1 << 40),
        ([4], "object", 32),
        ([4, 4], "float32", 64),
        ("ab", "uint8", 2),
        ([2.0, 2.0], "uint8", 4),
        ([], "uint8", 1),
    ],
)
def test_only_frames_and_sound_are_received(shape: object, dtype: str, size: int) -> None:
    with pytest.raises(ValueError, match="announced"):
        wire.empty_array({"shape": shape, "dtype": dtype}, size)


@pytest.mark.parametrize("array", [np.zeros((4, 5, 3), np.uint8), np.ones((4, 5), np.uint8), np.ones(7, np.float32)])
def test_what_is_packed_can_be_received(array: np.ndarray) -> None:
    head, body = wire.packed({"kind": "array"}, array)
    length, size = wire.HEADER.unpack(head[: wire.HEADER.size])
    assert len(head) == wire.HEADER.size + length
    empty = wire.empty_array(json.loads(head[wire.HEADER.size :]), size)
    assert (empty.shape, empty.dtype) == (array.shape, array.dtype)
    assert bytes(body) == array.tobytes()


# ---------------------------------------------------------------------------------------------------------- the world


PLAYLISTS = {
    "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:60\n#EXTINF:12,\n{film}\n#EXT-X-ENDLIST\n",
    "list.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:60\n#EXTINF:12,\nfile:{film}\n#EXT-X-ENDLIST\n",
    "http.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:60\n#EXTINF:12,\nhttp://127.0.0.1:9/film.mp4\n#EXT-X-ENDLIST\n",
    "data.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:60\n#EXTINF:12,\ndata:video/mp4;base64,AAAA\n#EXT-X-ENDLIST\n",
    "list.ffconcat": "ffconcat version 1.0\nfile {film}\n",
    "list.mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet '
    'mimeType="video/mp4"><Representation id="1"><BaseURL>{film}</BaseURL></Representation></AdaptationSet></Period></MPD>',
    "list.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_files_that_name_other_files_are_refused(film: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(PLAYLISTS[name].format(film=film))
    if name == "list.m3u8":  # the canary: FFmpeg left to itself follows it
        with av.open(str(path)) as container:
            assert next(container.decode(video=0)).width == 96
    for read in (probe, require_video, check_complete, count_frames, lambda p: list(read_frames(p)), read_audio):
        with pytest.raises(MediaError, match=name):
            read(path)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    "name", ["http:film.mp4", "concat:a|b.mp4", "-i.mp4", "%d.mp4", "naïve 映画.mp4", os.fsdecode(b"\xff\xfe.mp4")]
)
def test_a_name_is_only_a_name(film: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).write_bytes(film.read_bytes())
    monkeypatch.chdir(tmp_path)
    assert number_in(next(read_frames(name, start=2))) == 80
    assert require_video(name).width == 96


def test_pipes_and_devices_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    for path in (tmp_path / "pipe.mp4", Path("/dev/zero")):
        with pytest.raises(MediaError, match="no ordinary file"):
            probe(path)


def test_nothing_is_imported_from_the_folder_of_the_film(film: Path, tmp_path: Path) -> None:
    for module in ("av", "numpy", "json"):
        (tmp_path / f"{module}.py").write_text("open('harm', 'w').close()")
    program = "import sys\nfrom talk3d.video.look import probe\nprint(probe(sys.argv[1]).video.width)"
    here = os.environ | {"PYTHONPATH": str(Path(door.__file__).parents[2])}
    command = [sys.executable, "-P", "-c", program, str(film)]
    done = subprocess.run(command, cwd=tmp_path, env=here, capture_output=True, text=True)
    assert done.stdout == "96\n", done.stderr
    assert not (tmp_path / "harm").exists()


def test_a_decoder_that_cannot_start_says_so(film: Path, fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="could not be started"):
        probe(film)
