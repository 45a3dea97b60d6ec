"""The command line. Each command reads like the method: open what it needs, do one thing, write one artifact.

Nothing heavy is imported before a command runs, so that help appears at once.
"""

from __future__ import annotations

import difflib
import errno
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional, arg

from . import __version__
from .errors import ArtifactError, ConfigError, ModelMissingError, Talk3DError
from .progress import bar

Video = Annotated[Path, arg(metavar="VIDEO")]
Output = Annotated[Path, arg(aliases=["-o"])]
Consent = Literal["self", "permission", "synthetic"]


GROUPS = ("models", "heads", "prior", "bench")
"""Commands of two words."""
REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EMFILE}
"""What the system may have against any command: no room, no right to write."""


def main() -> None:
    """Entry point of `talk3d`."""
    commands: dict[str, Callable[..., None]] = {
        "models install": models_install,
        "models list": models_list,
        "prepare": prepare,
        "personalize": personalize,
        "train": train,
        "import-talker": import_talker,
        "speak": speak,
        "evaluate": evaluate,
        "bench views": bench_views,
        "bench tokens": bench_tokens,
        "bench speed": bench_speed,
        "demo": demo,
        "heads sheet": heads_sheet,
        "prior train": prior_train,
        "prior sample": prior_sample,
        "prior inspect": prior_inspect,
        "prior evaluate": prior_evaluate,
        "prior import": prior_import,
        "bench truth": bench_truth,
    }
    words = sys.argv[1:]
    if words == ["--version"]:
        print(f"talk3d {__version__}")
        return
    if words and words[0] in GROUPS:
        words = [" ".join(words[:2]), *words[2:]]
    try:
        if words and not words[0].startswith("-") and words[0] not in commands:
            raise ConfigError(_no_such(words[0], list(commands)))
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # what is asked to end tidies up as after Ctrl-C
        tyro.extras.subcommand_cli_from_dict(
            commands,
            prog="talk3d",
            args=words,
            description="A 3D talking portrait from one ordinary video of one person. "
            "Only portray people who agreed to it; results are marked as AI-generated.",
        )
    except Talk3DError as error:
        print(f"talk3d: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        print(f"talk3d: the system says no: {error}. Nothing half-written is left.", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        text = "interrupted; nothing half-written is left. The same command goes on from what it had saved."
        print(f"\ntalk3d: {text}", file=sys.stderr)
        sys.exit(130)


def _no_such(command: str, commands: list[str]) -> str:
    """What to say of a command that there is not."""
    group = command.split()[0]
    near = [name for name in commands if name.startswith(f"{group} ")] or difflib.get_close_matches(command, commands)
    meant = f" Did you mean {' or '.join(f'`{name}`' for name in near)}?" if near else ""
    return f"There is no command `{command}`.{meant} `talk3d --help` lists all."


def models_install(wheel: Path | None = None) -> None:
    """Fetch the face detector, landmark, iris and person-mask models (Apache-2.0, 4 MB kept) into the user's cache.

    Args:
        wheel: take them from this downloaded wheel instead of asking the package index.
    """
    from . import frozen

    with bar("Installing models") as report:
        frozen.install_models(lambda text: report(0.0, text), wheel=wheel)
    models_list()


def models_list() -> None:
    """Show which models are installed, and where."""
    from . import frozen

    for status in frozen.list_models():
        state = status.path if status.installed else "not installed"
        print(f"{status.model.name:28} {status.model.purpose:40} {status.model.licence:10} {state}")


def prepare(
    video: Positional[Video],
    /,
    output: Output,
    consent: Consent,
    audio: Path | None = None,
    fps: float | None = None,
    sync: str = "auto",
    seconds: float | None = None,
    face: int | None = None,
    prior: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Turn a video of one talking person into a Capture: aligned frames, masks, head poses, sound.

    Interrupted at any moment, the same command goes on where it was; OUTPUT.preparing holds what is done until then.

    Args:
        video: any film with one clearly visible face and sound; 30 seconds to 5 minutes are best. Or a folder of numbered PNG,
            JPEG or WEBP pictures, with --audio.
        output: folder of the Capture.
        consent: who agreed to be portrayed: the person is you (self), gave you permission, or does not exist (synthetic).
        audio: a sound file to use instead of the video's own sound; it must start with the first frame.
        fps: pictures per second of a folder of pictures, 25 if not given; films know their own.
        sync: auto measures how late the sound is and mends it, keep leaves it, a number says how many frames it is late.
        seconds: keep only the best so many seconds, those with the most poses and mouth shapes; everything by default.
        face: which of several people to portray, as OUTPUT/faces.png numbers them; by default the likeliest speaker.
        prior: a Prior folder instead of the shipped one.
        overwrite: replace an existing Capture.
    """
    from .capture import build
    from .capture.sound import parse_sync
    from .prior.generator import load_prior
    from .video.source import film_or_pictures

    late = parse_sync(sync)
    source = film_or_pictures(video, fps)
    model = load_prior(prior or shipped("prior"))
    with bar("Preparing") as report:
        capture = build.prepare(
            source,
            output,
            canonical=model.canonical_landmarks,
            orbit=model.profile.orbit,
            resolution=model.profile.image_resolution,
            prior_hash=model.hash,
            consent=consent,
            progress=report,
            audio=audio,
            sync=late,
            seconds=seconds,
            face=face,
            overwrite=overwrite,
        )
    for note in capture.report["mended"] + capture.report["warnings"]:
        print(f"note: {note}")
    print(f"{output}: {capture.count} frames, {len(range(*capture.train))} for training, the rest for testing")
    print(capture.report["verdict"])
    print(f"What was checked, with pictures and curves: {capture.path('report.html')}")
    print(f"Next: talk3d personalize {output} -o {output.with_suffix('.subject')}")


def personalize(
    capture: Annotated[Positional[Path], arg(metavar="CAPTURE")],
    /,
    output: Output,
    prior: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Make the prior the person's own: invert a few frames, tune the generator, refine all cameras.

    Args:
        capture: folder made by `talk3d prepare`.
        output: folder of the Subject; OUTPUT.preview.png beside it shows how far it is.
        prior: the Prior folder the Capture was prepared with, if not the shipped one.
        overwrite: replace an existing Subject.
    """
    from .artifacts import Subject, refuse_other
    from .capture.artifact import Capture
    from .capture.frames import working_folder
    from .personalize.preview import preview_of
    from .personalize.subject import PersonalizeConfig
    from .personalize.subject import personalize as make
    from .prior.generator import load_prior

    refuse_other(Subject, output, overwrite)
    clip = Capture.open(capture)
    model = load_prior(prior or shipped("prior"))
    config = PersonalizeConfig()
    with bar("Personalizing") as report, working_folder(output) as cache:
        preview = preview_of(output)
        make(clip, model, config, report, cache, preview).save(output, clip, model, config, overwrite)
    print(f"{output}: how like the person it is, {preview} shows")
    print(f"Next: talk3d train {output} -o {output.with_suffix('.talk3d')} --minutes 30")


def train(
    subject: Annotated[Positional[Path], arg(metavar="SUBJECT")],
    /,
    output: Output,
    minutes: float | None = None,
    steps: int | None = None,
    capture: Path | None = None,
    loss: tuple[str, ...] = (),
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    overwrite: bool = False,
) -> None:
    """Teach the subject to speak from its own video. Interrupted? Run the same command again; it continues.

    OUTPUT.training/preview.png shows every minute how far it is. `torchrun` starts several processes.

    Args:
        subject: folder made by `talk3d personalize`.
        output: the Avatar file, for example me.talk3d.
        minutes: how long to train (default 15, unless steps are given).
        steps: how many steps to train.
        capture: where the Capture lies now, if it was moved.
        loss: weights of losses, as NAME=WEIGHT, where they are not to be the usual ones; a wrong name lists them all.
        precision: of convolutions; auto is bfloat16 where the GPU or CPU multiplies it by itself, which is faster.
        overwrite: replace an existing Avatar.
    """
    from .artifacts import Avatar, refuse_other
    from .bench.views import note_views
    from .capture.artifact import Capture
    from .prior.subject import load_subject
    from .runs import STATE, join
    from .talker.config import TrainConfig
    from .talker.objective import LossWeights
    from .talker.speak import Speaker, save_avatar
    from .talker.train import finish_run, frames_note, run_folder, train_talker

    refuse_other(Avatar, output, overwrite)
    weights = LossWeights.parse(loss)
    person = load_subject(subject)
    if capture is None and not person.capture_path.exists():
        raise ArtifactError(
            f"The Capture that `{subject}` was made from is no longer at `{person.capture_path}`. If it was moved, say where "
            "to with `--capture`."
        )
    clip = Capture.open(capture or person.capture_path)
    clip.require_hash(person.capture_hash, "Subject")
    config = TrainConfig(
        steps=steps, minutes=15.0 if minutes is None and steps is None else minutes, weights=weights, precision=precision
    )
    run = run_folder(output)
    with join() as workers:
        if workers.rank == 0 and (note := frames_note(clip, config)):
            print(f"note: {note}")
        if workers.rank == 0 and (run / STATE).exists():
            print(f"note: goes on with the training in {run}")
        with bar("Training") as report:
            talker = train_talker(person, clip, run, config, lambda part, text: report(part, text), workers)
    if workers.rank:
        return  # of several processes, the first one saves and measures what they learnt together
    save_avatar(output, person, clip, talker, config, overwrite)
    finish_run(run)
    try:
        with bar("Measuring views") as report:
            views = note_views(output, Speaker(output), report)
    except ModelMissingError as error:
        print(f"note: {output} is complete, but it was not measured from which angles it holds up. {error}")
        return
    print(f"{output}: " + (f"trusted for {views.cone}" if views.cone else "not even the front holds; train it longer"))
    print(f"Next: talk3d speak {output} SOUND -o hello.mp4")


def import_talker(
    checkpoint: Annotated[Positional[Path], arg(metavar="CHECKPOINT")],
    /,
    output: Output,
    generator: Path,
    latent: Path,
    cameras: Path,
    angles: Path,
    landmarks: Path,
    extractor: str,
    consent: Consent,
    plane_axes: Literal["eg3d", "aligned"] | None = None,
    overwrite: bool = False,
) -> None:
    """Make an Avatar of a person that was trained with Talk3D. Nothing in the files is run.

    All files are of one person; their licence goes on applying, and Talk3D's is non-commercial. The Avatar moves as in the
    person's film, with generated blinks.

    Args:
        checkpoint: the talker, a .pt file. One ending in _tune.pt is fine if EG3D's super-resolution was tuned, not GFPGAN.
        output: the Avatar file, for example me.talk3d.
        generator: the personalised generator, G_tune.pkl.
        latent: who the person is, inversion_w_person.pt.
        cameras: yaw and pitch of the camera in each frame, inversion_0-0_angles.pt.
        angles: the head's angles in each frame as the talker was told them, angles.pt.
        landmarks: six landmarks in each frame, landmarks.pt.
        extractor: the speech recogniser that the talker hears through, hf:MODEL on the Hugging Face hub; Talk3D's is an XLSR-53
            wav2vec2 for Esperanto with 44 letters. It is fetched when the Avatar speaks, and needs `transformers`.
        consent: who agreed to be portrayed: the person is you (self), gave you permission, or does not exist (synthetic).
        plane_axes: the convention of the tri-planes, only for generators that do not say it.
        overwrite: replace an existing Avatar.
    """
    from .partials import refuse_existing
    from .talker import imported

    refuse_existing(output, overwrite)
    files = imported.Talk3DFiles(checkpoint, generator, latent, cameras, angles, landmarks)
    with bar("Importing"):
        imported.import_talker(files, output, extractor, consent, plane_axes, overwrite)
    print(f"{output}: {imported.LICENCE}")


def speak(
    avatar: Annotated[Positional[Path], arg(metavar="AVATAR")],
    sound: Annotated[Positional[Path], arg(metavar="AUDIO")],
    /,
    output: Output,
    camera: str = "source",
    mark: bool = True,
    seed: int = 0,
    lips: float = 1.0,
    blinks: float = 1.0,
    motion: float = 1.0,
    protocol: Literal["paper", "audio-only"] = "paper",
    plain: bool = False,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    overwrite: bool = False,
) -> None:
    """Let an avatar speak.

    Args:
        avatar: file made by `talk3d train`.
        sound: any file with speech. Or a Capture of the same person: then frames that were not trained on are re-enacted, to
            be scored with `talk3d evaluate`: the Capture's test frames, or all frames if it is of another film.
        output: the .mp4 to write.
        camera: source (as filmed), front, orbit, or YAW,PITCH in degrees.
        mark: write a small "AI-generated" into the picture; the file's metadata says so in any case.
        seed: of the generated blinks.
        lips: how far the mouth moves, 0 to 2: 1 as the sound asks, 1.3 livelier.
        blinks: how far blinks close the eyes, 0 to 1; 0 keeps them open.
        motion: how far the head moves, 0 to 2: 1 as in its film, 0 holds it still.
        protocol: what is taken of a Capture's frames: paper takes sound, blinks and head motion, audio-only their sound alone.
        plain: draw with the plain, slow code that the fast code is tested against.
        device: what draws; auto is a GPU if there is one that PyTorch can use.
        overwrite: replace an existing video.
    """
    from .capture.artifact import Capture
    from .partials import refuse_existing
    from .runs import chosen_device
    from .talker import speak as talker
    from .talker.drive import Camera
    from .video.clock import FPS

    refuse_existing(output, overwrite)
    config = talker.SpeakConfig(Camera.parse(camera), mark, seed, protocol, lips, blinks, motion)
    drive = Capture.open(sound) if sound.is_dir() else None
    speaker = talker.Speaker(avatar, plain, chosen_device(device))
    if speaker.slow and not plain:
        print(f"note: pictures are drawn by the plain code, some three times slower: {speaker.slow}.")
    moves = speaker.motion
    if drive is not None and protocol == "paper":
        moves = speaker.motion_of(drive, *talker.reenacted(speaker, drive))
    if warning := talker.outside_trusted_views(speaker, config.camera, moves):
        print(f"note: {warning}")
    with bar("Speaking") as report:
        count = talker.speak(speaker, sound, output, config, overwrite, lambda done, total: report(done / total, ""), drive)
    print(f"{output}: {count} frames, {count / FPS:.1f} s")


def evaluate(
    result: Annotated[Positional[Path], arg(metavar="RESULT")],
    /,
    truth: Path,
    output: Output,
    compare: tuple[Path, ...] = (),
    frames: tuple[int, int] | None = None,
    shape_predictor: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Score a talking video against the real one, on frames that were not trained on.

    Args:
        result: any talking video, ours or another system's.
        truth: the real video of the same performance, or the Capture it came from.
        output: folder for the report.
        compare: more videos, to be scored beside it.
        frames: first frame of the truth to compare (at 25 a second) and the one after the last; found out by itself as a rule.
        shape_predictor: your own dlib file with 68 points, for the landmark distance that needs one.
        overwrite: replace an existing report.
    """
    import rich

    from .evaluate import report as reports

    with bar("Evaluating") as report:
        scores = reports.evaluate(
            result,
            truth,
            output,
            compare=compare,
            frames=frames,
            predictor=shape_predictor,
            progress=report,
            overwrite=overwrite,
        )
    rich.print(reports.as_table(scores))
    print(f"{output / 'report.html'} shows it all: curves over time, the worst frames, the films side by side.")


def bench_views(
    avatar: Annotated[Positional[Path], arg(metavar="AVATAR")],
    /,
    output: Output,
    truth: Path | None = None,
    prior: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Find out from which angles an avatar holds up, and write that into it: `speak` warns of cameras beyond.

    Args:
        avatar: file made by `talk3d train`.
        output: folder for the report: numbers, curves, a sheet of all views.
        truth: true views of a synthetic person to compare with: a folder with views.npz and views/fIIIII_vK.webp.
        prior: the Prior folder the avatar was made with, if not the shipped one; only the truth needs it.
        overwrite: replace an existing report.
    """
    from .bench import views as bench
    from .prior.generator import load_prior

    with bar("Looking around") as report:
        views, scores = bench.bench_views(avatar, output, truth, load_prior(prior or shipped("prior")), overwrite, report)
    print(bench.table(views, scores))
    print(
        f"{output / 'sheet.png'}: all views; framed red where something fails, amber where only the box of angles ends before"
    )
    print(f"{output / 'views.png'}: every measure from left to right and from below to above")


def bench_tokens(
    avatar: Annotated[Positional[Path], arg(metavar="AVATAR")],
    /,
    truth: Path,
    output: Output,
    frames: int = 100,
    overwrite: bool = False,
) -> None:
    """Find out what each token of an avatar does: exchange one, see what else moves, and where it is attended to.

    Args:
        avatar: file made by `talk3d train`.
        truth: the Capture folder it was trained on; frames of its test part are drawn.
        output: folder for the report: a page, its numbers, attention maps, a sheet of frames.
        frames: how many frames to draw.
        overwrite: replace an existing report.
    """
    from .bench import tokens as bench

    with bar("Exchanging tokens") as report:
        found = bench.bench_tokens(avatar, truth, output, frames, overwrite, report)
    print(bench.table(found))
    print(f"{output / 'report.html'}, {output / 'attention.png'}")


def bench_speed(
    avatar: Annotated[Positional[Path], arg(metavar="AVATAR")],
    /,
    json: Path | None = None,
) -> None:
    """Measure how long frames take, plain and fast in turn: each stage, whole frames, films, memory. Some ten minutes.

    Args:
        avatar: file made by `talk3d train` with the shipped prior.
        json: also write all numbers to this file.
    """
    from .bench import speed as bench
    from .bench.speed_report import table

    with bar("Measuring speed") as report:
        found = bench.bench_speed(avatar, report)
    print(table(found))
    if json is not None:
        json.write_text(found.to_json() + "\n")
        print(json)


def demo(output: Output = Path("out/demo"), minutes: float = 5.0) -> None:
    """Build an avatar from the shipped clip of a synthetic person and let it speak; every stage resumes if interrupted.

    Args:
        output: folder for everything the demo makes.
        minutes: training time of the talker.
    """
    from .demo import run_demo

    with bar("Demo") as report:
        scores = run_demo(output, minutes, report)
    print("Frames of the clip that it did not learn from, spoken again:")
    for sentence in scores.summary[scores.results[0]]:
        print(f"- {sentence}")
    print(f"{output / 'demo.mp4'}: new words, as filmed, from the front, and orbiting; contact-sheet.png shows frames of it")
    print(f"{output / 'report' / 'report.html'}: all scores, curves and pictures")
    print(f"{output / 'views' / 'sheet.png'}: the head from all sides, and where it falls apart")
    print(f"Next: talk3d speak {output / 'paul.talk3d'} SOUND -o hello.mp4, and then a film of your own: see README")


def heads_sheet(output: Output, heads: Path | None = None, count: int = 48, seed: int = 0, overwrite: bool = False) -> None:
    """Draw a gallery of synthetic heads, and everything that is known exactly about one of them.

    Args:
        output: PNG file.
        heads: folder of the head model; default is $TALK3D_HEADS.
        count: how many heads.
        seed: another seed draws other heads.
        overwrite: replace an existing file.
    """
    from .heads.model import HeadPack
    from .heads.sheet import write_sheet

    with bar("Drawing heads") as report:
        write_sheet(HeadPack(heads), output, count, seed, overwrite, report)
    print(f"{output}: {count} heads")


def prior_train(
    output: Output,
    heads: Path | None = None,
    images: Path | None = None,
    start: Path | None = None,
    preset: Literal["mini", "eg3d"] = "mini",
    work: Path | None = None,
    shards: int = 90,
    steps: int = 6000,
    adversarial_steps: int | None = None,
    mirror: bool = True,
    renderers: int = 1,
    tensorboard: bool = False,
    overwrite: bool = False,
) -> None:
    """Train a prior on rendered synthetic heads, or on a data set of pictures. Interrupted? Run the same command again.

    On heads, a supervised phase learns them from their parameters; an adversarial phase may follow. On pictures with
    cameras (EG3D's dataset.json layout) there is the adversarial phase alone. `torchrun` starts several processes.

    Args:
        output: folder of the Prior.
        heads: the head model; default is the environment variable TALK3D_HEADS.
        images: a folder or ZIP in EG3D's layout, to train on instead of heads.
        start: a Prior to start from instead of random weights.
        preset: network and settings for pictures: mini (256 pixels, a CPU) or eg3d (512 pixels, several GPUs for days).
        work: folder for rendered heads and the training state; default is beside the output, OUTPUT.training.
        shards: how many shards of 64 heads to render.
        steps: steps of the supervised phase.
        adversarial_steps: steps of the adversarial phase; default is none on heads, and the preset's on pictures.
        mirror: also use the mirror image of each picture.
        renderers: processes that draw heads while this one trains.
        tensorboard: also write event files for TensorBoard.
        overwrite: replace an existing Prior.
    """
    from .heads.model import HeadPack
    from .partials import refuse_existing
    from .pretrain import make
    from .pretrain.adversarial import AdversarialConfig
    from .pretrain.labelled import LabelledDataset
    from .pretrain.train import PretrainConfig
    from .prior.generator import load_prior

    refuse_existing(output, overwrite)
    if images and heads:
        raise ConfigError("Give either `--heads` or `--images`: a prior learns the ones or the others.")
    begin = load_prior(start).generator if start else None
    folder = work or make.default_work(output)
    with bar("Training the prior") as report:
        if images:
            dataset = LabelledDataset(images, mirror)
            make.from_images(dataset, output, folder, preset, begin, adversarial_steps, tensorboard, report, overwrite)
        else:
            config = PretrainConfig(steps=steps, shards=shards, tensorboard=tensorboard)
            adversarial = AdversarialConfig(steps=adversarial_steps or 0, tensorboard=tensorboard)
            make.from_heads(HeadPack(heads), output, folder, begin, config, adversarial, report, overwrite, renderers)
    if os.environ.get("RANK", "0") == "0" and load_prior(output).landmarks is None:
        print("note: the tracker sees no face in this prior's pictures, so no video can be prepared with it. Train it longer.")


def prior_import(
    checkpoint: Annotated[Positional[Path], arg(metavar="FILE")],
    /,
    output: Output,
    measure_landmarks: bool = False,
    plane_axes: Literal["eg3d", "aligned"] | None = None,
    overwrite: bool = False,
) -> None:
    """Make a Prior of EG3D weights: an official .pkl, or a generator tuned by VIVE3D or Talk3D. Nothing in the file is run.

    Args:
        checkpoint: the file.
        output: folder of the Prior.
        measure_landmarks: also find where the prior's faces have their landmarks, which preparing a video needs; it draws some
            170 pictures and needs the face models.
        plane_axes: the convention of the tri-planes, only for files that do not say it.
        overwrite: replace an existing Prior.
    """
    from .partials import refuse_existing
    from .pretrain.imported import import_prior

    refuse_existing(output, overwrite)
    with bar("Importing") as report:
        import_prior(checkpoint, output, plane_axes, measure_landmarks, report, overwrite)
    if not measure_landmarks:
        print("note: without `--measure-landmarks` no video can be prepared with this prior.")


def prior_sample(
    prior: Annotated[Positional[Path | None], arg(metavar="PRIOR")] = None,
    /,
    output: Output = Path("out/samples"),
    count: int = 64,
    seed: int = 0,
    truncation: float = 1.0,
    overwrite: bool = False,
) -> None:
    """Draw people who do not exist: a sheet, and a film that turns around them and changes one into the next.

    Args:
        prior: folder of a Prior; default is the shipped one.
        output: folder for samples.png and samples.mp4.
        count: people on the sheet.
        seed: another seed draws others.
        truncation: 1 for full variety, 0 for the average person only.
        overwrite: replace existing files.
    """
    from .prior.generator import load_prior
    from .prior.show import sample

    with bar("Sampling") as report:
        sample(load_prior(prior or shipped("prior")), output, count, seed, truncation, overwrite, report)
    print(f"{output / 'samples.png'}, {output / 'samples.mp4'}")


def prior_inspect(prior: Annotated[Positional[Path | None], arg(metavar="PRIOR")] = None, /) -> None:
    """Say what a prior is: sizes, conventions, cost of a picture, licence.

    Args:
        prior: folder of a Prior; default is the shipped one.
    """
    from .prior.generator import load_prior
    from .prior.show import describe

    print(describe(load_prior(prior or shipped("prior"))))


def prior_evaluate(
    prior: Annotated[Positional[Path | None], arg(metavar="PRIOR")] = None,
    /,
    output: Output = Path("out/prior-report"),
    heads: Path | None = None,
    count: int = 24,
    samples: int = 2000,
) -> None:
    """Judge a prior against exact truth: unseen heads inverted and seen from nine views, and how its samples are spread.

    Inverting starts from one view, from five, and from random weights, for comparison. Interrupted? Run it again; heads that
    are done are kept.

    Args:
        prior: folder of a Prior; default is the shipped one.
        output: folder of the report: a table, curves, pictures.
        heads: the head model; default is the environment variable TALK3D_HEADS.
        count: heads inverted from one view; a third of them also from five views, and from random weights.
        samples: how many samples are compared with as many renders; 0 leaves this out.
    """
    from .bench import frechet
    from .bench import prior as bench
    from .heads.model import HeadPack
    from .judges.headnet import load_headnet
    from .prior.generator import load_prior

    if samples:
        frechet.require_enough(samples)
    pack, judged = HeadPack(heads), load_prior(prior or shipped("prior"))
    config = bench.PriorBenchConfig(one_view=count, five_views=-(-count // 3), random_weights=-(-count // 3))
    with bar("Inverting heads") as report:
        results = bench.bench_prior(judged, pack, output, config, report)
    print(bench.table(results))
    if samples:
        known = output / "samples.json"
        spread = json.loads(known.read_text()) if known.exists() else {}
        if spread.get("pictures") != samples:
            with bar("Comparing samples") as report:
                spread = frechet.bench_samples(judged.generator, pack, load_headnet(), samples, report)
            bench.write_json(known, spread)
        print(
            f"Frechet distance of {samples} samples to renders {spread['samples']:.3f}; of other renders {spread['floor']:.3f}"
        )
    print(f"{output / 'curves.png'}, {output / 'sheet.png'}")


def bench_truth(
    output: Output = Path("out/truth"),
    minutes: float = 5.0,
    subjects: tuple[str, ...] = (),
    pack: Path | None = None,
    prior: Path | None = None,
) -> None:
    """Judge the whole path on synthetic people with exact truth: learn each from one film, score it on films of new speech.

    Interrupted? Run it again; what is done is kept.

    Args:
        output: folder for everything; truth.json and sheet.png hold the results.
        minutes: training time of each talker.
        subjects: whom to take; default is everyone in the pack.
        pack: folder of the films and their truth; default is the shipped one.
        prior: a Prior folder instead of the shipped one.
    """
    from .bench import truth as bench
    from .prior.generator import load_prior
    from .talker.config import TrainConfig

    films = pack or shipped("truth")
    names = list(subjects) or bench.people_of(films)
    config = bench.TruthBenchConfig(train=TrainConfig(minutes=minutes))
    with bar("Bench") as report:
        results = bench.bench_truth(load_prior(prior or shipped("prior")), films, names, output, config, report)
    print(bench.table(results))
    print(f"{output / 'truth.json'}, {output / 'sheet.png'}")


def shipped(name: str) -> Path:
    """A file or folder that ships inside the package."""
    return Path(__file__).parent / "assets" / name


if __name__ == "__main__":
    main()
