"""Priors made of other programs' weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..errors import NoFaceError
from ..prior.convert import LICENCE, read_eg3d
from ..prior.generator import save_prior
from ..render.reference import PlaneAxes
from .canonical import measure_canonical


def import_prior(
    checkpoint: Path,
    output: Path,
    plane_axes: PlaneAxes | None,
    measure: bool,
    progress: Callable[[str, float], None],
    overwrite: bool,
) -> None:
    """The story of `talk3d prior import`: read the file, measure canonical landmarks if asked, write the Prior.

    Args:
        checkpoint: an EG3D, VIVE3D or Talk3D generator.
        output: folder of the Prior; it appears when all is done, or not at all.
        plane_axes: for files that do not say how their planes lie.
        measure: whether to measure canonical landmarks; without them, no video can be posed with the prior.
        progress: called with (stage, part done 0..1).
        overwrite: replace an existing Prior.

    Raises:
        CheckpointError: the file is no readable checkpoint, or its weights do not fit.
        NoFaceError: its average face is not recognised as one, so that nothing can be measured.
        ModelMissingError: the face models, which measuring needs, are not installed.
    """
    progress("reading", 0.0)
    foreign = read_eg3d(checkpoint, plane_axes)
    landmarks = None
    if measure:
        progress("measuring landmarks", 0.0)
        try:
            landmarks = measure_canonical(foreign.generator)
        except NoFaceError as error:
            raise NoFaceError(
                f"`{checkpoint.name}` was read, but the tracker recognises its average face as none, so landmarks cannot be "
                "measured and nothing was written. If pictures are all you want, import it without `--measure-landmarks`."
            ) from error
    save_prior(
        output,
        foreign.generator,
        landmarks,
        config={"imported": dict(foreign.provenance)},
        licence=LICENCE,
        overwrite=overwrite,
    )
