"""Errors a user can act on. Every message says what happened, why, and what to do next."""


class Talk3DError(Exception):
    """Base of all errors that are the user's to fix; the command line prints them without a traceback."""


class MediaError(Talk3DError):
    """A video or sound file cannot be read, or is not what the command needs."""


class NoFaceError(MediaError):
    """No face was found where one is needed."""


class NoAudioError(MediaError):
    """There is no usable sound where sound is needed."""


class ModelMissingError(Talk3DError):
    """A pretrained model file is not installed."""


class ArtifactError(Talk3DError):
    """An artifact is of the wrong kind or version, is damaged, or was made from another parent."""


class OutputExistsError(Talk3DError):
    """The output path is taken; nothing is overwritten unless asked."""


class CheckpointError(Talk3DError):
    """Weights or a training state do not fit the network they are loaded into."""


class ConfigError(Talk3DError):
    """A setting is impossible or contradicts another one."""


class ScoringError(Talk3DError):
    """A score would be meaningless, for example on frames that were trained on."""
