"""Plans: computed with NumPy they give what the network gives; what their digest depends on; which arrays they need."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import pytest
import small
from ml_collections import ConfigDict
from plan_numpy import computed

from jaxcat.config import default
from jaxcat.errors import ConfigError
from jaxcat.models.backbone import BACKBONES, Top
from jaxcat.models.completion import complete
from jaxcat.models.network import Network
from jaxcat.models.plan import IMAGE, PLAN_VERSION, AveragePooling, Convolution, Normalize, Plan, folded, plan_of
from jaxcat.models.preprocessing import BGR_MINUS_MEANS, ZERO_TO_ONE, Conventions, Preprocessing

TOP = Top(pool="flatten", hidden={"fc1": 7, "fc2": 5}, classes=9)
COUNTED, BGR = Conventions(pool_counts_padding=True), Conventions(BGR_MINUS_MEANS)
IMAGENET = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def config_of(**changes: Any) -> ConfigDict:
    """Inception-v3 of 1/16 of the width at 75 px; `changes` are of the section `model`, or `image_size`."""
    config = default()
    config.data.image_size = changes.pop("image_size", 75)
    config.model.update({"width": 1 / 16, **changes})
    complete(config)
    return config


def made(
    kind: type,
    changes: dict[str, Any],
    conventions: Conventions | None = None,
    *,
    classes: int = 3,
    top: Top | None = None,
) -> Any:
    config = config_of(**changes)
    conventions, size = conventions or Conventions(), config.data.image_size
    make = Network if kind is Network else plan_of
    return make(config.model, image_size=size, conventions=conventions, classes=classes, top=top)


def numbers(network: Network) -> tuple[Any, Any]:
    """Random parameters and statistics, none of which is 0 or 1, that keep activations of order one."""
    generator = np.random.default_rng(0)

    def changed(path: tuple, leaf: np.ndarray) -> np.ndarray:
        drawn = (
            generator.uniform(0.5, 1.5, leaf.shape) if path[-1].key == "var" else generator.normal(0, 0.2, leaf.shape)
        )
        return leaf if path[-1].key == "kernel" else drawn.astype(np.float32)

    return jax.tree_util.tree_map_with_path(changed, network.initialize(0))


VARIANTS = {
    "blocks": ({"pool": "avg_std", "pool_from": "stem"}, Conventions(), {}),
    "padding counted": ({"image_size": 80, "cut": "mixed5", "width": 1 / 11, "pool_grid": 3}, COUNTED, {"classes": 2}),
    "trained": (
        {"cut": "mixed4", "train_from": "mixed3", "hidden": 6, "pool": "max", "pool_grid": 2},
        Conventions(IMAGENET),
        {},
    ),
    "flattened": ({"cut": "mixed1", "pool_from": "mixed0", "pool": "flatten"}, BGR, {}),
    "both sides": ({"cut": "mixed1", "pool_from": "stem", "pool": "avg_std", "train_from": "mixed1"}, BGR, {}),
    "vgg19": ({"backbone": "vgg19", "image_size": 66, "pool": "avg_std", "pool_from": "block3"}, BGR, {}),
    "top": ({"backbone": "vgg19", "image_size": 32, "cut": "block4"}, BGR, {"top": TOP, "classes": 9}),
}


@pytest.mark.parametrize("variant", small.slow_except(["flattened", "both sides", "vgg19", "top"], VARIANTS))
def test_a_plan_gives_what_the_network_gives(variant):
    changes, conventions, others = VARIANTS[variant]
    network, plan = (made(kind, changes, conventions, **others) for kind in (Network, Plan))
    assert (plan.parts, plan.features) == (network.parts, network.features)
    params, stats = numbers(network)
    arrays = folded(plan, params, stats)
    assert {array.dtype for layer in arrays.values() for array in layer} == {np.dtype(np.float32)}

    side = plan.layers[0].shape[0]
    image = np.random.default_rng(1).integers(0, 256, (side, side, 3), np.uint8)
    frozen, trained = network.split(params, stats)
    bottleneck = jax.jit(network.prefix)(frozen, image[None])
    logits, features = jax.jit(network.logits_and_features)(trained["params"], trained["stats"], bottleneck)
    found = computed(plan, arrays, image)
    for name, expected in (("features", features[0]), ("logits", logits[0])):
        largest = np.abs(expected).max()
        assert 0.01 < largest < 1000
        np.testing.assert_allclose(found[name], expected, rtol=0, atol=1e-5 * largest, err_msg=name)
    by_name = np.concatenate([found[name] for name in plan.outputs])
    np.testing.assert_array_equal(by_name, found["features"])


@pytest.mark.parametrize("backbone", BACKBONES)
def test_layers_are_what_their_docstrings_promise(backbone):
    plan = made(Plan, {"backbone": backbone, "width": 1.0})
    assert isinstance(plan.layers[0], Normalize)
    seen, read = {IMAGE}, set()
    for layer in plan.layers:
        assert layer.name not in seen
        assert seen.issuperset(layer.inputs)
        seen.add(layer.name)
        read.update(layer.inputs)
        if isinstance(layer, Convolution) and layer.padding == "SAME":
            assert layer.stride == 1
            assert all(side % 2 for side in layer.kernel)
    assert seen - read == {"logits"}
    assert {f"{block}/output" for block in BACKBONES[backbone].stages} < seen


def test_channels_are_rounded_and_at_least_one():
    channels = [
        made(Plan, {"cut": "stem", "width": width}).layers[1].shape[2] for width in (1 / 11, 1.0, 1.3, 1 / 1000)
    ]
    assert channels == [3, 32, 42, 1]


def test_a_part_of_a_plan_needs_only_its_own_arrays():
    network, plan = (made(kind, {"cut": "mixed1", "pool_from": "mixed0"}) for kind in (Network, Plan))
    params, stats = numbers(network)
    prefix = plan.prefix()
    assert (prefix.outputs, prefix.parts) == (plan.outputs, plan.parts)
    assert [layer.name for layer in prefix.layers] == [layer.name for layer in plan.layers[:-2]]
    whole, arrays = folded(plan, params, stats), folded(prefix, {s: params[s] for s in network.blocks}, stats)
    assert whole.keys() - arrays.keys() == {"logits"}
    arrays = folded(plan.up_to("stem"), {"stem": params["stem"]}, {"stem": stats["stem"]})
    assert list(arrays) == [f"stem/conv{number}" for number in range(1, 6)]
    for name, (kernel, bias) in arrays.items():
        np.testing.assert_array_equal(kernel, whole[name].kernel)
        np.testing.assert_array_equal(bias, whole[name].bias)
    with pytest.raises(KeyError):
        folded(prefix, {"stem": params["stem"]}, stats)
    with pytest.raises(ValueError, match="mixed2/output"):
        plan.up_to("mixed2")


def test_the_layers_up_to_a_block_do_not_depend_on_what_is_pooled():
    digests = {
        made(Plan, changes).up_to("mixed1").digest()
        for changes in (
            {"cut": "mixed1"},
            {"cut": "mixed3", "pool": "avg_std", "pool_from": "mixed0"},
            {"cut": "mixed2", "pool": "max", "pool_grid": 3, "hidden": 4, "pool_from": "mixed1"},
        )
    }
    assert len(digests) == 1
    plan = made(Plan, {"pool_from": "stem"})
    assert len({plan.up_to(block).digest() for block in BACKBONES["inception_v3"].stages}) == 12


def test_the_digest_depends_on_everything_that_changes_the_computation():
    start: dict[str, Any] = {"cut": "mixed1"}
    plans = [
        made(Plan, start),
        *(
            made(Plan, start | changes)
            for changes in (
                {"image_size": 76},
                {"width": 1 / 8},
                {"cut": "mixed0"},
                {"pool": "max"},
                {"pool_grid": 2},
                {"pool_from": "mixed0"},
                {"hidden": 3},
                {"backbone": "vgg19", "cut": "block1"},
            )
        ),
        *(made(Plan, start, other) for other in (Conventions(ZERO_TO_ONE), COUNTED)),
        made(Plan, start, Conventions(Preprocessing((0.5,) * 3, (0.5,) * 3, "BGR"))),
        made(Plan, start, classes=4),
    ]
    assert len({plan.digest() for plan in plans}) == len(plans)
    same = {"dropout": 0.5, "dtype": "bfloat16", "bn_momentum": 0.5, "train_from": "mixed1", "train_bn": True}
    assert made(Plan, start | same).digest() == plans[0].digest()


def test_the_description_is_plain_json_and_digests_stay_what_they_were():
    plan = made(Plan, {"cut": "mixed0"})
    description = plan.describe()
    assert description == json.loads(json.dumps(description))
    assert len(description["layers"]) == len(plan.layers)
    assert {layer["layer"] for layer in description["layers"]} >= {"Convolution", AveragePooling.__name__, "Statistic"}
    # Keys of stored bottlenecks contain them: if these digests change, everybody's are computed again.
    assert PLAN_VERSION == 1
    assert plan.up_to("mixed0").digest()[:16] == "bd42fd7c4acf7bc8"
    vgg = made(Plan, {"backbone": "vgg19", "width": 1.0, "image_size": 224}, BGR)
    assert vgg.up_to("block5").digest()[:16] == "039b821109d3e9ce"


def test_a_grid_finer_than_the_map_is_refused_as_by_the_network():
    for kind in (Plan, Network):
        with pytest.raises(ConfigError, match=r"pool_grid=4: mixed8 gives a 1×1 map at .*image_size=75; use at most 1"):
            made(kind, {"cut": "mixed8", "pool_grid": 4})


def test_plans_are_made_without_a_framework():
    code = (
        "import sys; from jaxcat.models import plan; "
        "assert not sys.modules.keys() & {'jax', 'flax', 'optax', 'orbax', 'tensorflow'}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
