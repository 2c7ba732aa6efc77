"""Which fields have an effect with which architecture: one table, read by every form.

`Ui.when` says in the schema on which sibling a field depends. What depends on the family's facts stands here, by the
field's owner and name, so that a form hides block swapping from a model that cannot do it. The rules of dpnb/schema
say the same of a file that has such a key all the same, and a field with a problem is always shown. No widgets here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from dpnb.schema.base import Section
from dpnb.schema.dataset import Dataset, Directory
from dpnb.schema.families.base import FamilyFacts
from dpnb.schema.training import Training
from dpnb.widgets.shapes import Spec

Support: TypeAlias = Callable[[FamilyFacts], bool]

_NEEDS: tuple[tuple[Support, tuple[type[Section], ...], tuple[str, ...]], ...] = (
    (lambda facts: facts.block_swap, (Training,), ("blocks_to_swap", "disable_block_swap_for_eval")),
    (lambda facts: facts.robust_loss, (Training,), ("huber_delta", "smooth_l1_beta")),
    (
        lambda facts: facts.video,
        (Training,),
        ("video_clip_mode", "image_micro_batch_size_per_gpu", "eval_image_micro_batch_size_per_gpu"),
    ),
    (lambda facts: facts.video, (Dataset, Directory), ("frame_buckets",)),
    (lambda facts: facts.edit, (Directory,), ("control_path",)),
)
_TABLE: dict[tuple[type[Section], str], Support] = {
    (owner, name): support for support, owners, names in _NEEDS for owner in owners for name in names
}


def family_allows(spec: Spec, facts: FamilyFacts | None) -> bool:
    """False where the family cannot do what the field asks for; True for an unknown family."""
    support = _TABLE.get((spec.owner, spec.name))
    return support is None or facts is None or support(facts)
