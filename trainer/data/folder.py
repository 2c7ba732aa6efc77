"""What a [[directory]] asks of its examples, beyond the plan: what filling the cache and loading share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from dpnb.dataset.beside import Beside
from dpnb.dataset.bucket import Size
from dpnb.dataset.captions import thinned
from dpnb.dataset.controls import controls_of
from dpnb.dataset.masks import masks_of
from dpnb.dataset.video import Clip
from dpnb.errors import DatasetError
from dpnb.schema.dataset import Dataset, Directory, DirectorySettings, settings_of
from trainer.data.augment import Draw, Look
from trainer.data.sources import Shown


@dataclass(frozen=True, slots=True)
class Folder:
    """What a [[directory]] asks of its examples while they are trained.

    `loss_weight`: how much each counts. `caption_dropout`: share of them (0 to 1) that get an empty caption. `look`:
    how pictures are cut and changed. `tags`: the settings by which tags are left out, None where all stay.
    """

    loss_weight: float = 1.0
    caption_dropout: float = 0.0
    look: Look = field(default_factory=Look)
    masks: Beside = field(default_factory=Beside)
    controls: tuple[Beside, ...] = ()
    tags: DirectorySettings | None = None

    @classmethod
    def of(cls, dataset: Dataset, directory: Directory) -> Folder:
        """The folder as a dataset file describes it. Raises `DatasetError` when mask_path or control_path cannot be
        read."""
        settings = settings_of(dataset, directory)
        look = Look.of(settings)
        masks, controls = masks_of(directory), controls_of(directory)
        tags = settings if settings.tag_dropout else None
        return cls(directory.loss_weight, settings.caption_dropout, look, masks, controls, tags)

    def for_evaluation(self) -> Folder:
        """The same with nothing random and no weights: losses of held-out pictures are compared with each other."""
        return Folder(look=self.look.without_chance(), masks=self.masks, controls=self.controls)

    def controls_of(self, picture: Path) -> tuple[Path, ...]:
        """The control pictures of a picture, one of each folder that control_path names."""
        found = (control.of(picture) for control in self.controls)
        return tuple(path for path in found if path is not None)

    def shown(self, picture: Path, size: Size, draw: Draw, clip: Clip | None) -> Shown:
        """A picture or clip of the folder as an example shows it, with what lies beside it."""
        return Shown(picture, size, draw, clip, self.controls_of(picture), self.masks.of(picture))

    def captions(self, caption: str) -> tuple[str, ...]:
        """The texts that an example of this caption may be trained on; itself, where no tags are left out."""
        return (caption,) if self.tags is None else thinned(caption, self.tags)


def folders_of(dataset: Dataset) -> tuple[Folder, ...]:
    """All folders of a dataset, in order. Raises `DatasetError` as `Folder.of` does, and when only some of them have
    control pictures: their examples would stand in one batch."""
    folders = tuple(Folder.of(dataset, directory) for directory in dataset.directory)
    paths = [directory.control_path for directory in dataset.directory]
    if any(paths) and not all(paths):
        message = f"directory[{paths.index(None)}] has no control_path, and others have: a model is trained either on"
        raise DatasetError(f"{message} pairs or on pictures alone. Add it, or train them in runs of their own")
    return folders
