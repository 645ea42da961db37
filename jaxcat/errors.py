"""Errors that a user can act on: each message names the flag or file, the value received, and what to do."""


class JaxcatError(Exception):
    """Base class of the errors that jaxcat raises for its user. The commands print the message without a traceback.

    Attributes:
        exit_status: exit status of the process: 2 if the request was wrong, 1 if the run failed.
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
    """A checkpoint that is not damaged but was written by another version of jaxcat, in another format."""


class TrainingError(JaxcatError):
    """Training cannot go on, for example because the loss is not a number."""


class CacheError(JaxcatError):
    """Files in the cache directory that cannot be written, kept, read or removed."""


class EngineError(JaxcatError):
    """An engine for bottlenecks that is not installed, or that cannot convert or run the network."""


class ExportError(JaxcatError):
    """An exported file that cannot be written, or that does not compute what jaxcat computes."""


def one_line(error: BaseException) -> str:
    """The operating system's message for an error, else its text, else its type: one line, cut after 300 characters."""
    text = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:300] + "…"
