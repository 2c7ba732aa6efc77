"""The dataset file: which pictures and captions, in which sizes.

General keys stand at the top; every one of them but `directory` may be repeated inside a [[directory]] table and
then holds for that folder alone. `settings_of` gives the keys that hold for one folder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from pydantic import Field, create_model

from dpnb.schema.base import InputDir, Section, Ui

Ratio: TypeAlias = Annotated[int | float, Field(gt=0)]
Side: TypeAlias = Annotated[int, Field(ge=1)]
Pair: TypeAlias = Annotated[list[Side], Field(min_length=2, max_length=2)]
SizeBucket: TypeAlias = Annotated[list[Side], Field(min_length=3, max_length=3)]
_NO_SIZE_BUCKETS = ("size_buckets", (None,))


class DirectorySettings(Section):
    """The keys that hold for a folder: the dataset file's own, or the folder's where it says otherwise."""

    resolutions: Annotated[
        list[Annotated[int | float, Field(ge=1)]] | list[Pair] | None, Ui(unit="px", when=_NO_SIZE_BUCKETS)
    ] = None
    """Target areas as square sides, such as [512, 768]; a pair [1280, 720] means the area of that picture. Every
    picture is trained at every resolution."""
    enable_ar_bucket: Annotated[bool, Ui(when=_NO_SIZE_BUCKETS)] = False
    """Group pictures by aspect ratio (width / height), so that little is cropped; off crops each to a square."""
    min_ar: Annotated[Ratio | None, Ui(unit="width / height", when=("enable_ar_bucket", (True,)))] = None
    """Aspect ratio of the narrowest bucket; 0.5 is twice as high as wide."""
    max_ar: Annotated[Ratio | None, Ui(unit="width / height", when=("enable_ar_bucket", (True,)))] = None
    """Aspect ratio of the widest bucket; 2.0 is twice as wide as high."""
    num_ar_buckets: Annotated[int | None, Field(ge=1), Ui(when=("enable_ar_bucket", (True,)))] = None
    """How many buckets from min_ar to max_ar, evenly spaced in logarithm."""
    ar_buckets: Annotated[list[Ratio] | list[Pair] | None, Ui(advanced=True, when=("enable_ar_bucket", (True,)))] = (
        None
    )
    """Explicit aspect ratios, as numbers or [width, height] pairs; replaces min_ar, max_ar and num_ar_buckets."""
    size_buckets: Annotated[list[SizeBucket] | None, Ui(unit="px, px, frames", advanced=True)] = None
    """Exact buckets [width, height, frames]; replaces resolutions and aspect ratios."""
    frame_buckets: Annotated[list[Side], Ui(unit="frames", advanced=True)] = [1]
    """Allowed clip lengths; 1 stands for pictures and is always there."""
    caption_prefix: str = ""
    """Text put before every caption, as it stands (add your own comma and space)."""
    trigger_word: str = ""
    """A rare word for what is learned: replaces [trigger] in captions, and is put before captions that lack it."""
    skip_empty_caption: bool = True
    """Leave out pictures without a caption; off trains them with an empty one."""
    shuffle_tags: Annotated[bool, Ui(advanced=True)] = False
    """Cache one shuffled order of the tags of each caption (short for cache_shuffle_num = 1)."""
    cache_shuffle_num: Annotated[int, Field(ge=0), Ui(advanced=True)] = 0
    """How many shuffled orders of the tags of each caption to cache; 0 keeps the written order."""
    cache_shuffle_delimiter: Annotated[str, Field(min_length=1), Ui(advanced=True)] = ", "
    """What separates the tags of a caption."""
    num_repeats: Annotated[int | float, Field(gt=0)] = 1
    """How often each example is seen in an epoch; 1.5 shows the first half twice."""


class _Folder(Section):
    """A folder of pictures and their captions (name.jpg with name.txt)."""

    path: InputDir
    """Folder with pictures, and captions of the same name in .txt files or all in captions.json."""


if TYPE_CHECKING:

    class Directory(DirectorySettings, _Folder):
        """A folder, with the general keys that it says for itself; at run time those are None unless it does."""

else:
    # A folder may say each general key for itself: the same fields, unset by default.
    Directory = create_model(
        "Directory",
        __base__=_Folder,
        __doc__=_Folder.__doc__,
        __module__=__name__,
        **{
            name: (
                Annotated[(info.annotation | None, *info.metadata, Ui(advanced=True))],
                Field(default=None, description=info.description),
            )
            for name, info in DirectorySettings.model_fields.items()
        },
    )


class Dataset(DirectorySettings):
    """The dataset file."""

    directory: Annotated[list[Directory], Field(min_length=1)]
    """The folders to train on."""


def settings_of(dataset: Dataset, directory: Directory) -> DirectorySettings:
    """The keys that hold for one folder: its own where set, the dataset's elsewhere."""
    values: dict[str, Any] = {}
    for name in DirectorySettings.model_fields:
        own = getattr(directory, name, None)
        values[name] = getattr(dataset, name) if own is None else own
    return DirectorySettings.model_construct(**values)
