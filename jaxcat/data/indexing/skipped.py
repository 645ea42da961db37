"""What is skipped among images, and why: train, check, evaluate and predict count it by the same reasons."""

from __future__ import annotations

import enum
import fnmatch
import logging
import re
import stat
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from jaxcat.data.archives import archives
from jaxcat.data.images import heif
from jaxcat.data.images.formats import FORMATS, SUFFIXES, UNREAD_SUFFIXES
from jaxcat.data.images.unread import is_heic, is_image
from jaxcat.data.indexing.rules import INDEX_RULES, RULES
from jaxcat.wording import counted, printable

logger = logging.getLogger(__name__)

EXAMPLES = 3


class Reason(enum.Enum):
    """Why files are skipped, in the order in which reasons are shown; the value completes "3 files skipped: …"."""

    LEFT = "thumbnails, metadata and backups that systems, cameras, network storage and editors leave"
    HIDDEN = "hidden images: their name, or a folder's, begins with a dot"
    UNLABELLED = "images outside the class folders, which have no label"
    BESIDE = "images in folders beside those of the splits"
    OTHER_CLASS = "images of classes that train does not have"
    FORMAT = "images in a format that jaxcat does not read; save them as JPEG or PNG"
    HEIC = f"HEIC images, for which pi-heif must be installed when a run begins: {heif.INSTALL}; or save them as JPEG"
    SUFFIX = "images without the suffix of an image, such as .jpg; rename them"
    SPECIAL = "pipes, devices and other entries that are no regular files"
    OTHER = "files that are no images"


# Folders and files left by systems and programs: patterns as in a shell, compared in lower case. Names in LEFT_EXACTLY
# are compared as they are, because a class may have such a name in lower case.
LEFT_FOLDERS = (
    *("__macosx", ".appledouble", ".trash*", ".spotlight-*", ".fseventsd", ".temporaryitems"),  # macOS
    *("network trash folder", "temporary items"),  # old AppleShare
    *("$recycle.bin", "system volume information", "found.[0-9][0-9][0-9]"),  # Windows
    *("lost+found", ".xvpics", ".thumbnails", ".thumbs", ".thumb", ".comments"),  # Linux and Android
    *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", ".@__thumb", "@__thumb"),  # Synology, QNAP
    *("@sharebin", "@tmp", "@syno*", ".@*", ".streams", ".wdmc", ".wd_tv", ".wdcache", "~snapshot", ".snapshot*"),
    *("*.lrdata", "*.lrcat-data", "[[]originals]", "captureone", "nksc_param"),  # Lightroom, ACDSee, Capture One, Nikon
    *(".picasaoriginals", ".bridgecache*", ".photoslibrary", ".dtrash"),  # Picasa, Bridge, digiKam
    *(".ipynb_checkpoints", "__pycache__", ".git", ".svn", ".hg", ".dvc", ".cache"),  # programs
    *(".stversions", ".stfolder", ".sync", ".dropbox.cache", ".nextcloudsync*"),  # synchronization
)
LEFT_FILES = (
    *("._*", ".ds_store", "icon\r", ".apdisk", ".localized", ".trashed-*", ".pending-*"),  # macOS, Android
    *("thumbs.db*", "ehthumbs*.db", "desktop.ini", "albumartsmall.jpg", "albumart_{*}_*.jpg"),  # Windows
    *("synophoto_thumb*", "synofile_thumb*", "synoindex_media_info", "synophoto_film*", "*@synoeastream*"),  # Synology
    *("zbthumbnail.info", "picasa.ini", ".picasa.ini", "pspbrwse.jbf", "*.thm", ".nomedia", ".directory"),  # programs
    *("*~", "~$*", "*.bak", "*.orig", "*.old", "*_original", "#*#", ".*.sw[a-p]", ".~lock.*"),  # editors' backups
    *("*.tmp", "*.part", "*.partial", "*.crdownload", ".nfs*", ".fuse_hidden*", ".syncthing.*", "~syncthing~*"),
)
LEFT_EXACTLY = frozenset({"RECYCLER", "CANONMSC", "THMBNL", "AVF_INFO"})
CARD, BESIDE_PHOTOGRAPHS = "dcim", frozenset({"misc", "private"})  # on a camera's card, photographs are in DCIM

# The same by stricter rules: FrontPage, macOS's libraries of photographs, NAS, Nextcloud, Kodi, galleries.
ALSO_LEFT_FOLDERS = (
    *("_vti_cnf", "_vti_pvt", "*.photoslibrary", "*.photolibrary", "*.migratedphotolibrary", "*.aplibrary"),
    *("ipod photo cache", "_nas_recycle*", "appdata_oc*", "files_trashbin", "files_versions", "extrathumbs"),
    *("_thumb", "_thumbs", "__thumbs", "_thumbnails"),
)

_left_folder, _also_left_folder, _left_file = (
    re.compile("|".join(map(fnmatch.translate, patterns))) for patterns in (LEFT_FOLDERS, ALSO_LEFT_FOLDERS, LEFT_FILES)
)

# Where a file begins so, it is text or empty; looking closer takes a tenth of a millisecond, and data sets have many.
_TEXT = re.compile(rb"(?!P[1-7]|GIF8)[\t\n\r -~]*")


class Skipped:
    """Counts the files that are skipped, by reason, with a few examples of each."""

    def __init__(self) -> None:
        self._counts: Counter[Reason] = Counter()
        self._examples: dict[Reason, list[str]] = {}

    def __len__(self) -> int:
        return self._counts.total()

    def count(self, reason: Reason) -> int:
        """The number of files skipped for one reason."""
        return self._counts[reason]

    def add(self, path: Path | str, reason: Reason) -> None:
        """Counts one file; `path` is how it is named to the user."""
        self._counts[reason] += 1
        examples = self._examples.setdefault(reason, [])
        if len(examples) < EXAMPLES:
            examples.append(printable(str(path)))

    def add_file(self, path: Path, reason: Reason | None = None) -> None:
        """Counts a file: under `reason` if it is an image, else under what it is. Reads its first bytes if needed."""
        self.add(path, _why(path, reason))

    def add_folder(self, directory: Path, reason: Reason) -> None:
        """Counts the images below a folder that is skipped as a whole; folders that cannot be listed count as empty."""
        for folder, folders, files in archives.walk(directory):
            for name in sorted(folders):
                if reason is not Reason.LEFT and left_behind(name, siblings=folders, folder=True):
                    self.add_folder(Path(folder, name), Reason.LEFT)
                    folders.remove(name)
            folders.sort()
            for name in sorted(files):
                if Path(name).suffix.lower() in SUFFIXES:
                    self.add(Path(folder, name), Reason.LEFT if left_behind(name) else reason)

    def lines(self) -> list[str]:
        """One line for each reason: the number, the reason and examples."""
        return [self._line(reason) for reason in Reason if self._counts[reason]]

    def _line(self, reason: Reason) -> str:
        count, examples = self._counts[reason], self._examples[reason]
        more = ", …" if count > len(examples) else ""
        return f"{counted(count, 'file')} skipped: {reason.value} ({', '.join(examples)}{more})"

    def warn(self) -> None:
        """Logs the lines as warnings."""
        for line in self.lines():
            logger.warning("%s", line)


def left_behind(name: str, *, siblings: Iterable[str] = (), folder: bool = False, rules: int = INDEX_RULES) -> bool:
    """Whether a file, or a folder, is nobody's photograph by its name and the names beside it."""
    if name in LEFT_EXACTLY:
        return folder
    lower = name.lower()
    if folder and lower in BESIDE_PHOTOGRAPHS:
        return any(sibling.lower() == CARD for sibling in siblings)
    if folder and RULES[rules].stricter and _also_left_folder.match(lower):
        return True
    return (_left_folder if folder else _left_file).match(lower) is not None


def _why(path: Path, reason: Reason | None) -> Reason:
    """Why a file is skipped; `reason` if it is an image that would be read elsewhere."""
    if left_behind(path.name):
        return Reason.LEFT
    suffix = path.suffix.lower()
    try:
        status = archives.stat_file(path)
        if status and not stat.S_ISREG(status.st_mode):
            return Reason.SPECIAL
        with archives.opened(path) as file:
            head = file.read(400)
    except (OSError, ValueError):
        head = b""
    if suffix in SUFFIXES or (not _TEXT.fullmatch(head) and _is_read(path)):
        return reason or (Reason.HEIC if suffix in heif.SUFFIXES else Reason.SUFFIX)
    if suffix in heif.SUFFIXES or is_heic(head):
        return (reason or Reason.SUFFIX) if heif.installed() else Reason.HEIC
    if suffix in UNREAD_SUFFIXES or is_image(head):
        return Reason.FORMAT
    return Reason.LEFT if path.name.startswith(".") else Reason.OTHER


def _is_read(path: Path) -> bool:
    """Whether the content of a file is of a format that jaxcat reads; decodes nothing."""
    try:
        with archives.opened(path) as file, Image.open(file, formats=FORMATS):
            return True
    except Exception:  # Pillow's plugins raise nearly every kind of exception on other content
        return False
