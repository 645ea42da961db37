"""Words of messages: a number with its noun, a name as it can be shown, and the setting that somebody meant."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable, Sequence


def counted(number: int, one: str, several: str = "") -> str:
    """A number with its noun: `1 image`, `2 images`, `1,234 images`; `several` is an irregular plural."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def gigabytes(size: int) -> str:
    """A number of bytes in GB, or in MB below 100 of them: `1.2 GB`, `7.0 MB`."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def first_few(names: Sequence[str], most: int = 5) -> str:
    """The first of many names, in one line: `a, b, c, …`."""
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def first_to_last(names: Sequence[str]) -> str:
    """Names in their order, such as blocks of a network, by the ends: `mixed0 … mixed10`; a single name as it is."""
    return names[0] if names[0] == names[-1] else f"{names[0]} … {names[-1]}"


def printable(name: str) -> str:
    """A file's name as it can be shown: undecodable bytes, line breaks and control characters are escaped.

    For each name that is put into a message. Spaces of other scripts stay, and the joiners that emoji and words of
    Persian and Indian languages have.
    """
    return "".join(c if _is_shown(c) else _escaped(c) for c in name)


def without_controls(message: str) -> str:
    """A whole message with what would control a terminal escaped: only line breaks stay.

    For messages that are printed, as they may quote a name, or another program, without `printable`.
    """
    return re.sub(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", lambda found: _escaped(found[0]), message)


def is_printable(name: str) -> bool:
    """Whether a name can be shown as it is."""
    return all(map(_is_shown, name))


def as_it_looks(name: str) -> str:
    """A name without what is hardly seen: joiners, spaces at its ends, and which kind of space is between words."""
    return " ".join(re.sub("[\u200c\u200d]", "", name).split())


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _is_shown(character: str) -> bool:
    return character.isprintable() or character in "\u200c\u200d" or unicodedata.category(character) == "Zs"


# What other programs call a setting, or part of its name → the setting.
ALSO_CALLED = {
    **dict.fromkeys(("lr", "rate", "base_lr", "head_lr"), "optim.learning_rate"),
    **dict.fromkeys(("opt", "optim", "optimizer"), "optim.name"),
    **dict.fromkeys(("scheduler", "lr_scheduler", "lr_schedule"), "optim.schedule"),
    **dict.fromkeys(("wd", "decay"), "optim.weight_decay"),
    **dict.fromkeys(("alpha", "l2", "ridge", "lambda", "regularization", "regularisation"), "optim.penalty"),
    **dict.fromkeys(("warmup", "warmup_steps"), "optim.warmup_epochs"),
    **dict.fromkeys(("clip", "grad_clip", "clip_grad", "gradient_clip", "max_grad_norm"), "optim.clip_norm"),
    **dict.fromkeys(("bs", "batch"), "batch_size"),
    **dict.fromkeys(("epoch", "num_epochs", "n_epochs", "max_epochs"), "epochs"),
    **dict.fromkeys(("data", "data_dir", "data_path", "dataset", "root", "images", "image_dir"), "data.dir"),
    **dict.fromkeys(("imgsz", "img_size", "image", "resolution", "input_size"), "data.image_size"),
    **dict.fromkeys(("aug", "augmentation", "augmentations"), "data.augment"),
    **dict.fromkeys(("reprob", "random_erasing", "erasing", "cutout"), "data.erase"),
    **dict.fromkeys(("val_split", "validation_split", "val_fraction", "test_size"), "data.validation_fraction"),
    **dict.fromkeys(("arch", "model", "network", "architecture", "model_name"), "model.backbone"),
    **dict.fromkeys(("pretrained", "checkpoint"), "model.weights"),
    **dict.fromkeys(("dropout_rate", "drop", "drop_rate"), "model.dropout"),
    **dict.fromkeys(("precision", "amp", "fp16", "bf16"), "model.dtype"),
    **dict.fromkeys(("early_stopping", "early_stop"), "stop.patience"),
    **dict.fromkeys(("random_seed", "random_state"), "seed"),
    **dict.fromkeys(("ema", "ema_decay", "model_ema", "polyak", "averaging"), "optim.average"),
    **dict.fromkeys(
        ("gradient_accumulation", "gradient_accumulation_steps", "accumulation_steps", "grad_accum", "accumulation"),
        "optim.accumulate",
    ),
    **dict.fromkeys(("gradient_checkpointing", "checkpointing", "rematerialization"), "model.remat"),
    **dict.fromkeys(("lr_find", "lr_finder", "auto_lr_find", "find_lr"), "optim.find_learning_rate"),
    **dict.fromkeys(("mixup", "cutmix"), "optim.mix"),
    **dict.fromkeys(("smoothing", "ls"), "optim.label_smoothing"),
    **dict.fromkeys(("layer_wise_lr_decay", "layerwise_lr_decay", "llrd", "lr_decay"), "optim.layer_decay"),
    **dict.fromkeys(("class_weights", "balanced"), "optim.class_weight"),
}


def meant(name: str, settings: Iterable[str]) -> str:
    """The setting that a wrong name probably means: one of that last part, else of a similar name; "" if none is."""
    settings, last = list(settings), name.lower().rpartition(".")[2]
    of_that_key = [setting for setting in settings if setting.rpartition(".")[2] == last]
    if len(of_that_key) == 1:
        return of_that_key[0]
    if ALSO_CALLED.get(last) in settings:
        return ALSO_CALLED[last]
    near = difflib.get_close_matches(name, settings, n=1)
    keys = {setting.rpartition(".")[2]: setting for setting in settings}
    return near[0] if near else next((keys[key] for key in difflib.get_close_matches(last, keys, n=1, cutoff=0.8)), "")


def not_one_of(value: str, allowed: Iterable[str]) -> str:
    """What is wrong with a value that must be one of `allowed`, or "" if it is one of them."""
    allowed = tuple(allowed)
    return "" if value in allowed else f"must be one of {', '.join(allowed)}{did_you_mean(value, allowed)}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error message that suggests the most similar known name, or "" if there is none."""
    known = list(known)
    near = _nearest_number(name, known) or difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _nearest_number(name: str, known: Sequence[str]) -> list[str]:
    """The known name that differs only in the number at its end, by the least: mixed10 for mixed12; [] if none does."""
    stem = re.sub(r"[0-9]+$", "", name)
    numbers = {each: each.removeprefix(stem) for each in known if stem and each.startswith(stem)}
    alike = [each for each, number in numbers.items() if re.fullmatch("[0-9]{1,9}", number)]
    asked = name.removeprefix(stem)
    return sorted(alike, key=lambda each: abs(int(numbers[each]) - int(asked)))[:1] if asked else []
