"""Errors a person can act on: each message names the flag or file, the value received, and the way out."""


class JaxcatError(Exception):
    """Anything jaxcat refuses or gives up on. The commands print the message without a traceback.

    Attributes:
        exit_status: what the process exits with; 2 when the request was wrong, 1 when the run failed.
    """

    exit_status = 1


class ConfigError(JaxcatError):
    """A flag, a config field or a combination of them that cannot work."""

    exit_status = 2


class DataError(JaxcatError):
    """Images, labels or splits that cannot be used as they are."""

    exit_status = 2


class WeightsError(JaxcatError):
    """A pretrained weights file that is missing, damaged, or of another network."""

    exit_status = 2


class CheckpointError(JaxcatError):
    """A workdir or checkpoint that cannot be written, read, or continued from."""


class OtherFormatError(CheckpointError):
    """A checkpoint that another version of jaxcat wrote, not damaged."""


class TrainingError(JaxcatError):
    """Training cannot go on, for example because the loss is not a number."""


class CacheError(JaxcatError):
    """The cache directory cannot hold what is wanted of it."""


def one_line(error: BaseException, *, most: int = 200) -> str:
    """What an error says, in one line: the system's own words if it has them, else its text, else its kind."""
    text = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= most else text[:most] + "…"
