"""The dataset file: which pictures and captions, in which sizes.

General keys stand at the top; every one of them but `directory` may be repeated inside a [[directory]] table and
then holds for that folder alone. `settings_of` gives the keys that hold for one folder.
"""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import Field, create_model

from dpnb.schema.base import InputDir, InputFile, Pictures, Section, Ui

Ratio: TypeAlias = Annotated[int | float, Field(gt=0), Ui(step=0.1)]
Side: TypeAlias = Annotated[int, Field(ge=1)]
Pair: TypeAlias = Annotated[list[Side], Field(min_length=2, max_length=2)]
SizeBucket: TypeAlias = Annotated[list[Side], Field(min_length=3, max_length=3)]
_NO_SIZE_BUCKETS = ("size_buckets", (None,))


class Augmentation(Section):
    """Random changes to pictures: a few variants of each are cached, and every example draws one of them anew in each
    epoch, or is changed and encoded anew each time. Masks and control pictures change along; held-out pictures do not
    change."""

    ours: ClassVar[bool] = True

    flip: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of pictures (0 to 1) that are mirrored left to right; 0.5 is usual, 0 for what has a right side."""
    brightness: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Brightness is multiplied by a number from 1 - this to 1 + this; 0.1 is usual."""
    contrast: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Contrast is multiplied by a number from 1 - this to 1 + this; 0.1 is usual."""
    saturation: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Saturation is multiplied by a number from 1 - this to 1 + this; 0.1 is usual."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Colours are turned by up to this part of the colour circle, either way; 0.05 is usual."""
    rotation_degrees: Annotated[float, Field(ge=0, le=180), Ui(unit="degrees")] = 0.0
    """Pictures are rotated by up to this angle, either way; 5 is usual."""
    rotation_probability: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Share of pictures that are rotated at all."""
    cached_variants: Annotated[int, Field(ge=0), Ui(advanced=True)] = 4
    """How many variants of each picture are cached, also for crop = "random"; the cache grows as many times. 0 caches
    none: every example is changed and encoded anew in each epoch, for which steps take longer and the VAE stays on the
    GPU."""


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
    frame_buckets: Annotated[list[Side], Ui(unit="frames", advanced=True, when=_NO_SIZE_BUCKETS)] = [1]
    """Allowed clip lengths; 1 stands for pictures and is always there."""
    recursive: Annotated[bool, Ui(advanced=True, ours=True)] = False
    """Read the folders below a folder too, each with the captions that stand in it."""
    caption_prefix: str = ""
    """Text put before every caption, as it stands (add your own comma and space)."""
    trigger_word: Annotated[str, Ui(ours=True)] = ""
    """A rare word for what is learned: replaces [trigger] in captions, and is put before captions that lack it."""
    metadata_file: Annotated[InputFile | None, Ui(advanced=True, ours=True)] = None
    """Table of pictures and captions in place of .txt files: .csv, .tsv, .jsonl, or .parquet (which needs pyarrow)."""
    image_column: Annotated[str, Ui(advanced=True, ours=True)] = "image"
    """Column of metadata_file that names the picture, counted from the folder."""
    caption_column: Annotated[str, Ui(advanced=True, ours=True)] = "text"
    """Column of metadata_file that holds the caption, or a list of captions in .jsonl and .parquet."""
    skip_empty_caption: bool = True
    """Leave out pictures without a caption; off trains them with an empty one."""
    shuffle_tags: Annotated[bool, Ui(advanced=True)] = False
    """Cache one shuffled order of the tags of each caption (short for cache_shuffle_num = 1)."""
    cache_shuffle_num: Annotated[int, Field(ge=0), Ui(advanced=True)] = 0
    """How many shuffled orders of the tags of each caption to cache; 0 keeps the written order."""
    cache_shuffle_delimiter: Annotated[str, Field(min_length=1), Ui(advanced=True)] = ", "
    """What separates the tags of a caption."""
    keep_first_tags: Annotated[int, Field(ge=0), Ui(unit="tags", advanced=True, ours=True)] = 0
    """How many tags at the beginning of a caption are neither shuffled nor dropped."""
    tag_dropout: Annotated[float, Field(ge=0, lt=1), Ui(advanced=True, ours=True)] = 0.0
    """Share of the tags (0 to 1) that are left out at random. Four variants of each caption are cached, and every
    example draws one of them anew in each epoch; prefix and trigger word stay."""
    caption_dropout: Annotated[float, Field(ge=0, le=1), Ui(advanced=True, ours=True)] = 0.0
    """Share of examples (0 to 1) that are trained with an empty caption, for this folder alone (uncond_fraction in the
    training file is for all)."""
    online_captions: Annotated[bool, Ui(advanced=True, pending="ignored")] = False
    """Read the text of captions from captions.json anew while training, instead of from the cache."""
    shuffle_metadata: Annotated[bool, Ui(advanced=True, pending="ignored")] = True
    """Shuffle the list of files, always in the same way, before examples are dealt into batches."""
    crop: Annotated[Literal["center", "random"], Ui(advanced=True, ours=True)] = "center"
    """Which part of a picture is kept where its shape does not fit the bucket; random caches as many parts of each
    picture as augmentation.cached_variants says, or cuts it anew for every example where that is 0."""
    interpolation: Annotated[Literal["lanczos", "bicubic", "bilinear", "nearest"], Ui(advanced=True, ours=True)] = (
        "lanczos"
    )
    """How pictures are resized."""
    augmentation: Annotated[Augmentation | None, Ui(advanced=True, ours=True)] = None
    """Random changes to pictures."""
    num_repeats: Annotated[int | float, Field(gt=0), Ui(step=1)] = 1
    """How often each example is seen in an epoch; 1.5 shows the first half twice."""


class _Folder(Section):
    """A folder of pictures and their captions (name.jpg with name.txt)."""

    help_from: ClassVar[type[Section]] = DirectorySettings

    path: Pictures
    """Folder with pictures, and captions of the same name in .txt files or all in captions.json. Uncompressed .tar
    files in it are read like folders, and so is one that is named here."""
    mask_path: InputDir | None = None
    """Folder of masks with the names and sizes of the pictures: white is trained in full, black not at all."""
    default_mask_file: Annotated[InputFile | None, Ui(advanced=True)] = None
    """Mask of the pictures that have none of their own; it has their size."""
    control_path: Annotated[InputDir | list[InputDir] | None, Ui(path="dir")] = None
    """Folder of control pictures with the names of the pictures, for models that edit: what the model starts from. A
    list of folders gives each picture several (dpnb's own trainer alone)."""
    loss_weight: Annotated[float, Field(ge=0), Ui(advanced=True, ours=True)] = 1.0
    """How much the pictures of this folder count in the loss; below 1 for regularisation pictures."""


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
                None,
            )
            for name, info in DirectorySettings.model_fields.items()
        },
    )


class Dataset(DirectorySettings):
    """The dataset file."""

    subsample_ratio: Annotated[float | None, Field(gt=0, le=1), Ui(advanced=True)] = None
    """Train on this share of the batches alone, drawn once; for a quick look."""
    drop_last: Annotated[bool, Ui(advanced=True, ours=True)] = True
    """Leave out buckets that hold less than one global batch; off trains them with a smaller batch."""

    directory: Annotated[list[Directory], Field(min_length=1)]
    """The folders to train on."""


def settings_of(dataset: Dataset, directory: Directory) -> DirectorySettings:
    """The keys that hold for one folder: its own where set, the dataset's elsewhere."""
    values: dict[str, Any] = {}
    for name in DirectorySettings.model_fields:
        own = getattr(directory, name, None)
        values[name] = getattr(dataset, name) if own is None else own
    return DirectorySettings.model_construct(**values)


def is_random(settings: DirectorySettings) -> bool:
    """Whether anything about the pictures of a folder is left to chance."""
    asked = settings.augmentation or Augmentation()
    rotated = asked.rotation_degrees and asked.rotation_probability
    chances = (asked.flip, asked.brightness, asked.contrast, asked.saturation, asked.hue, rotated)
    return settings.crop == "random" or any(chances)


def cached_variants(settings: DirectorySettings) -> int:
    """How many variants of each picture of a folder are cached: 1 where nothing about them is random, and 0 where each
    example is encoded anew while training."""
    return (settings.augmentation or Augmentation()).cached_variants if is_random(settings) else 1


def with_trigger_word(dataset: Dataset, trigger_word: str) -> Dataset:
    """A dataset that names no trigger word has that of the training file."""
    return dataset if dataset.trigger_word else dataset.model_copy(update={"trigger_word": trigger_word})
