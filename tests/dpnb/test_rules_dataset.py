"""Every rule of the dataset file, with its words; folders inherit what they do not say themselves."""

from __future__ import annotations

import pytest

from dpnb.schema import Dataset, Directory, rules_dataset
from dpnb.schema.rules_dataset import check_dataset

NEEDS_SIZES = "is missing. Say the sizes to train at, such as resolutions = [512]."
ADD_RATIOS = "Add min_ar, max_ar and num_ar_buckets, such as 0.5, 2.0 and 7, or ar_buckets."
RATIOS = {"enable_ar_bucket": True, "min_ar": 0.5, "max_ar": 2.0, "num_ar_buckets": 7}
SIZES = {"resolutions": [512]}
BUCKETS = {"size_buckets": [[64, 64, 1]]}


@pytest.mark.parametrize(
    ("top", "folders", "said"),
    [
        (SIZES, [{}], []),
        (SIZES | RATIOS, [{}, {}], []),
        ({}, [SIZES, BUCKETS], []),
        ({}, [{}, {}], [f"error: resolutions: {NEEDS_SIZES}"]),
        ({}, [SIZES, {}], [f"error: resolutions: {NEEDS_SIZES}"]),
        ({"resolutions": []}, [{}], [f"error: resolutions: {NEEDS_SIZES}"]),
        (SIZES, [{"resolutions": []}], [f"error: directory[0].resolutions: {NEEDS_SIZES}"]),
        (
            SIZES | BUCKETS,
            [{}, {}],
            ["warning: resolutions: has no effect because size_buckets is set. Remove one of the two."],
        ),
        (
            BUCKETS | {"frame_buckets": [1, 33]},
            [{}],
            ["warning: frame_buckets: has no effect because size_buckets is set. Remove one of the two."],
        ),
        (SIZES, [{}, BUCKETS], []),
        (SIZES, [BUCKETS, BUCKETS], []),
        (
            BUCKETS,
            [SIZES],
            ["warning: directory[0].resolutions: has no effect because size_buckets is set. Remove one of the two."],
        ),
        (
            SIZES | {"enable_ar_bucket": True, "min_ar": 0.5},
            [{}],
            [f"error: enable_ar_bucket: needs max_ar and num_ar_buckets as well. {ADD_RATIOS}"],
        ),
        (
            SIZES,
            [{}, {"enable_ar_bucket": True}],
            [
                f"error: directory[1].enable_ar_bucket: needs min_ar and max_ar and num_ar_buckets as well. "
                f"{ADD_RATIOS}"
            ],
        ),
        (SIZES | {"enable_ar_bucket": True}, [{"ar_buckets": [1.0]}, {"enable_ar_bucket": False}], []),
        (SIZES | RATIOS, [{}, {"ar_buckets": [1.0, 2.0]}], []),
        (
            SIZES | RATIOS | {"ar_buckets": [1.0]},
            [{}],
            [
                f"warning: {key}: has no effect because ar_buckets is set. Remove one of the two."
                for key in ("min_ar", "max_ar", "num_ar_buckets")
            ],
        ),
        (SIZES | RATIOS | {"min_ar": 3.0}, [{}], ["error: min_ar: 3.0 is above max_ar 2.0. Swap the two."]),
        (
            SIZES | RATIOS,
            [{}, {"max_ar": 0.1}],
            ["error: directory[1].min_ar: 0.5 is above max_ar 0.1. Swap the two."],
        ),
        (SIZES | RATIOS | {"enable_ar_bucket": False}, [{"enable_ar_bucket": True}, {}], []),
        (
            SIZES | {"min_ar": 0.5},
            [{}],
            ["warning: min_ar: has no effect. Set enable_ar_bucket = true, or remove min_ar."],
        ),
        (
            SIZES,
            [{"min_ar": 0.5}],
            ["warning: directory[0].min_ar: has no effect. Set enable_ar_bucket = true, or remove min_ar."],
        ),
        (SIZES | {"metadata_file": "m.csv", "image_column": "file"}, [{"caption_column": "words"}], []),
        (
            SIZES | {"caption_column": "words"},
            [{}, {"image_column": "file"}],
            [
                "warning: caption_column: has no effect without metadata_file. Add metadata_file, or remove "
                "caption_column.",
                "warning: directory[1].image_column: has no effect without metadata_file. Add metadata_file, or "
                "remove image_column.",
            ],
        ),
        (SIZES | {"tag_dropout": 0.1, "keep_first_tags": 2}, [{"cache_shuffle_delimiter": ";"}], []),
        (
            SIZES | {"keep_first_tags": 2},
            [{}],
            [
                "warning: keep_first_tags: has no effect where tags are neither shuffled nor dropped. Set "
                "cache_shuffle_num or tag_dropout, or remove keep_first_tags."
            ],
        ),
        (
            SIZES | {"augmentation": {"cached_variants": 0, "rotation_degrees": 5, "rotation_probability": 0}},
            [{}],
            [
                "warning: augmentation: cached_variants has no effect, because nothing about the pictures is random. "
                "Set flip or another change, or crop = 'random'; or remove cached_variants."
            ],
        ),
        (SIZES | {"augmentation": {"cached_variants": 0}}, [{"crop": "random"}], []),
        (SIZES | {"augmentation": {"cached_variants": 2, "rotation_degrees": 5}}, [{}], []),
    ],
)
def test_rules_of_folders_and_what_they_inherit(top, folders, said):
    dataset = Dataset(**top, directory=[Directory(path=str(i), **own) for i, own in enumerate(folders)])
    assert [str(problem) for problem in check_dataset(dataset)] == said


def test_every_rule_is_pinned_above() -> None:
    """A new rule is a new row: count them."""
    assert len(rules_dataset.DATASET_RULES) == 6
