"""The [optimizer] table: named types in any case, classes of pytorch-optimizer checked against their signatures."""

from __future__ import annotations

import tomllib
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from dpnb.schema import Section
from dpnb.schema.base import ui_of
from dpnb.schema.optimizer import NAMED, AdamW, AdamWOptimi, GenericOptim, Optimizer, OtherOptimizer, Sgd
from dpnb.schema.pytorch_optimizers import beyond_files, names, signature
from dpnb.schema.unions import section_types, tag_of
from dpnb.toml import dump, validate

NAMED_TYPES = [tag for section in NAMED if (tag := tag_of(section))]
ALL_NAMED = ", ".join(NAMED_TYPES)


class Run(Section):
    """A file with an [optimizer] alone."""

    optimizer: Optimizer


def said(text: str) -> list[str]:
    """Everything found in an [optimizer] table, as `code key: words`."""
    return [
        f"{p.code} {p.key}: {p.message} {p.suggestion}".rstrip()
        for p in validate(tomllib.loads(f"[optimizer]\n{text}"), Run)[1]
    ]


def read(text: str) -> Any:
    """The optimizer of a table that has no problems."""
    value, problems = validate(tomllib.loads(f"[optimizer]\n{text}"), Run)
    assert problems == []
    assert value is not None
    return value.optimizer


# --- types -----------------------------------------------------------------------------------------------------------


def test_the_types_of_diffusion_pipe_are_there():
    assert NAMED_TYPES == [
        "adamw",
        "adamw8bit",
        "adamw_optimi",
        "stableadamw",
        "sgd",
        "adamw8bitkahan",
        "offload",
        "automagic",
        "genericoptim",
    ]
    assert section_types(Run.model_fields["optimizer"].annotation) == [*NAMED, OtherOptimizer]


@pytest.mark.parametrize("section", NAMED, ids=NAMED_TYPES)
def test_a_named_type_may_be_written_in_any_case(section):
    tag = tag_of(section)
    for spelling in (tag, tag.upper(), tag.title()):
        found = read(f"type = '{spelling}'\nlr = 1e-4")
        assert type(found) is section
        assert found.type == tag
    assert section(type=tag.upper(), lr=1e-4) == section(lr=1e-4)


@pytest.mark.parametrize("section", NAMED, ids=NAMED_TYPES)
def test_a_key_that_two_types_share_is_one_key(section):
    shared: dict[str, FieldInfo] = {}
    for other in NAMED:
        if tag_of(other) not in ("sgd", "automagic", "genericoptim"):
            shared |= other.model_fields
    if tag_of(section) not in ("sgd", "automagic", "genericoptim"):
        for name, info in section.model_fields.items():
            if name != "type":
                assert info.description == shared[name].description, name
                assert ui_of(info) == ui_of(shared[name]), name


def test_defaults_are_those_of_each_optimizer():
    assert (AdamW().betas, AdamW().eps) == ([0.9, 0.999], 1e-8)
    assert (AdamWOptimi(lr=1.0).betas, AdamWOptimi(lr=1.0).eps) == ([0.9, 0.99], 1e-6)
    assert (GenericOptim().eps, GenericOptim().weight_decay, Sgd().weight_decay) == (1e-6, 0.0, 0.0)
    assert read("type = 'automagic'").eps == [1e-30, 1e-3]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "type = 'adamwoptimi'",
            "value optimizer.type: 'adamwoptimi' is no optimizer known here. Did you mean 'adamw_optimi'?",
        ),
        ("type = 'prodigy'", "value optimizer.type: 'prodigy' is no optimizer known here. Did you mean 'Prodigy'?"),
        (
            "type = 'Prodigi'",
            "value optimizer.type: 'Prodigi' is no optimizer known here. Did you mean 'Prodigy'?",
        ),
        (
            "type = 'zzzzz'\nwhatever = 1",
            f"value optimizer.type: 'zzzzz' is no optimizer known here. Use {ALL_NAMED}, or a class of "
            "pytorch-optimizer 4.1.0, such as Prodigy or Lion.",
        ),
        (
            "type = 'SAM'\nrho = 0.1",
            "value optimizer.type: 'SAM' cannot be used from a file: it is built around another thing, its "
            "base_optimizer. Name another one.",
        ),
        (
            "type = 5\nlr = 1.0",
            f"type optimizer.type: 5 is a whole number; expected a text in quotes. It is one of {ALL_NAMED}.",
        ),
        (
            "lr = 1.0",
            "missing optimizer.type: is missing. Add type = 'adamw', 'adamw8bit', 'adamw_optimi', 'stableadamw', "
            "'sgd', 'adamw8bitkahan', 'offload', 'automagic' or 'genericoptim'.",
        ),
        (
            "type = 'adamw_optimi'",
            "missing optimizer.lr: is missing. (Meaning: Learning rate: how far one step moves the weights; around "
            "1e-4 for an adapter, 1e-5 for a whole model.)",
        ),
        (
            "type = 'SGD'\nbetas = [0.9, 0.99]",
            "unknown_key optimizer.betas: unknown key. type = 'sgd' does not take it: remove it.",
        ),
        (
            "type = 'adamw'\nbeta2_half_life = 0",
            "value optimizer.beta2_half_life: 0 is too small: it must be above 0. (Meaning: Examples after which the "
            "average of the squared gradient has forgotten half; sets beta2 whatever the batch size.)",
        ),
    ],
)
def test_what_is_said_of_a_type(text, words):
    assert said(text) == [words]


# --- classes of the library ------------------------------------------------------------------------------------------


def test_a_class_keeps_its_own_keys():
    found = read("type = 'Prodigy'\nbetas = [0.9, 0.99]\nd_coef = 2\nsafeguard_warmup = true\ngrowth_rate = inf")
    assert type(found) is OtherOptimizer
    assert found.model_extra == {"d_coef": 2, "safeguard_warmup": True, "growth_rate": float("inf")}
    assert (found.lr, found.weight_decay) == (None, None), "what is not set is the optimizer's own"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("type = 'Prodigy'\nd_coeff = 2.0", ["unknown_key optimizer.d_coeff: unknown key. Did you mean 'd_coef'?"]),
        (
            "type = 'Tiger'\nd0 = 1.0",
            [
                "unknown_key optimizer.d0: unknown key. Tiger takes lr, beta, weight_decay, weight_decouple, "
                "fixed_decay, foreach, maximize, gradient_release."
            ],
        ),
        (
            "type = 'Prodigy'\nmomentum_type = 'ema'",
            [
                "unknown_key optimizer.momentum_type: unknown key. Prodigy takes lr, betas, beta3, d0, d_coef, "
                "growth_rate, weight_decay, weight_decouple, fixed_decay, bias_correction, safeguard_warmup, eps, "
                "maximize, foreach, gradient_release, beta2_half_life."
            ],
        ),
        (
            "type = 'Prodigy'\nlr = '1'\nweight_decay = -1\nd0 = true",
            [
                "type optimizer.lr: '1' is a text; expected a number. Write 1 without quotes.",
                "type optimizer.d0: true is a boolean; expected a number. (Meaning: A parameter of Prodigy; unset "
                "means 1e-06.)",
                "value optimizer.weight_decay: -1 is too small: it must be at least 0. (Meaning: A parameter of "
                "Prodigy; unset means 0.0.)",
            ],
        ),
        (
            "type = 'CAME'\nbetas = [0.9, 0.99]",
            [
                "value optimizer.betas: [0.9, 0.99] holds 2 items; expected at least 3. (Meaning: A parameter of "
                "CAME; unset means [0.9, 0.999, 0.9999].)"
            ],
        ),
        (
            "type = 'Ranger21'",
            ["missing optimizer.num_iterations: is missing. (Meaning: A parameter of Ranger21 that has no default.)"],
        ),
        (
            "type = 'Muon'\nns_method = 'newton'",
            [
                "value optimizer.ns_method: 'newton' is not one of newton_schulz, gram_newton_schulz. Did you mean "
                "'newton_schulz'?"
            ],
        ),
        (
            "type = 'Muon'\nns_coeffs = 5",
            [
                "type optimizer.ns_coeffs: 5 is a whole number; expected a text in quotes, a list of numbers or a "
                'list of [number, number] pairs. (Meaning: A parameter of Muon; unset means "original".)'
            ],
        ),
        (
            "type = 'SCION'\nnorm_kwargs = 1",
            [
                "type optimizer.norm_kwargs: 1 is a whole number; expected a table. Write one `key = value` a line, "
                'texts in "quotes".'
            ],
        ),
    ],
)
def test_what_is_said_of_a_classes_keys(text, words):
    assert said(text) == words


def test_an_option_that_a_class_reads_from_its_groups_is_a_key_of_it():
    assert read("type = 'Lion'\ncautious = true").model_extra == {"cautious": True}
    assert said("type = 'Prodigy'\ncautious = true")


def test_a_number_of_betas_that_a_class_leaves_open():
    assert read("type = 'AggMo'\nbetas = [0.0, 0.9]").betas == [0.0, 0.9]


def test_a_half_life_needs_a_second_beta():
    assert read("type = 'Lion'\nbeta2_half_life = 1e5").beta2_half_life == 1e5
    assert said("type = 'AggMo'\nbeta2_half_life = 1e5")


def test_assignment_is_checked_like_a_file():
    optimizer = OtherOptimizer(type="Prodigy", d_coef=2.0)
    for name, value in (("d_coef", "high"), ("d_coeff", 1.0), ("lr", -1.0), ("type", "prodigy"), ("type", "Lion")):
        with pytest.raises(ValidationError):
            setattr(optimizer, name, value)
    assert optimizer == OtherOptimizer(type="Prodigy", d_coef=2.0)
    optimizer.d_coef, optimizer.lr = 0.5, 2.0
    assert (optimizer.model_extra, optimizer.lr) == ({"d_coef": 0.5}, 2.0)
    optimizer.lr = None
    assert optimizer.lr is None


def test_suggestions_are_the_classes_that_a_file_can_name():
    assert ui_of(OtherOptimizer.model_fields["type"]).suggestions == names()
    assert {"Prodigy", "Lion", "CAME", "ScheduleFreeAdamW", "AdaFactor", "Muon"} <= set(names())
    # In these spellings too they are diffusion-pipe's own.
    assert not {"AdamW", "SGD", "StableAdamW"} & set(names())
    assert beyond_files("SAM") == "base_optimizer"
    assert beyond_files("Prodigy") == beyond_files("zzz") == ""
    assert signature("SAM") is signature("zzz") is None


@pytest.mark.parametrize("name", names())
def test_every_signature_takes_its_own_defaults(name):
    keys = signature(name)
    assert keys is not None
    required = {key: 1 for key, info in keys.model_fields.items() if info.is_required() and key != "type"}
    defaults = {key: info.default for key, info in keys.model_fields.items() if not info.is_required()}
    given = {key: value for key, value in defaults.items() if value is not None}
    made = OtherOptimizer(type=name, **required, **given)
    assert made.model_dump(exclude_none=True) == {"type": name, "gradient_release": False, **required, **given}


# --- round trip ------------------------------------------------------------------------------------------------------

NUMBERS = st.floats(min_value=0, max_value=1)


def values_of(annotation: Any, metadata: list[Any] | tuple[Any, ...] = ()) -> st.SearchStrategy[Any]:
    """Values that a parameter of a class takes."""
    if get_origin(annotation) is Annotated:
        inner, *metadata = get_args(annotation)
        return values_of(inner, metadata)
    if get_origin(annotation) is list:
        low = next((m.min_length for m in metadata if hasattr(m, "min_length")), 0)
        high = next((m.max_length for m in metadata if hasattr(m, "max_length")), 4)
        return st.lists(values_of(get_args(annotation)[0]), min_size=low, max_size=high)
    if get_origin(annotation) is dict:
        return st.dictionaries(st.text("abc_", min_size=1), st.booleans() | NUMBERS, max_size=2)
    if get_origin(annotation) is Literal:
        return st.sampled_from(get_args(annotation))
    plain = {float: NUMBERS | st.integers(0, 1), int: st.integers(0, 100), bool: st.booleans(), str: st.text()}
    if annotation in plain:
        return plain[annotation]
    return st.one_of([values_of(arm) for arm in get_args(annotation)])


@st.composite
def other_optimizers(draw: st.DrawFn) -> OtherOptimizer:
    """Any class of the library, with any of its keys."""
    name = draw(st.sampled_from(names()))
    keys = signature(name)
    assert keys is not None
    fields = {key: info for key, info in keys.model_fields.items() if key not in ("type", "beta2_half_life")}
    required = {key for key, info in fields.items() if info.is_required()}
    chosen = required | draw(st.sets(st.sampled_from(sorted(fields)), max_size=6))
    values = {key: draw(values_of(fields[key].annotation, fields[key].metadata)) for key in sorted(chosen)}
    return OtherOptimizer(type=name, **values)


@given(other_optimizers())
def test_any_class_with_any_of_its_keys_survives_a_round_trip(optimizer):
    run = Run(optimizer=optimizer)
    for everything in (False, True):
        text = dump(run, everything=everything, comments=everything)
        again, problems = validate(tomllib.loads(text), Run)
        assert problems == []
        assert again == run
        assert again is not None
        assert again.optimizer.model_extra == optimizer.model_extra
        assert dump(again, everything=everything, comments=everything) == text
