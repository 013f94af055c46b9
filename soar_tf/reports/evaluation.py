"""`soar-tf evaluate`: attacks on a stored model, and the report."""

import dataclasses
import functools
import itertools
import sys
import typing

from soar_tf import evaluation
from soar_tf.attacks import get as get_attack
from soar_tf.errors import InputError
from soar_tf.evaluation.state import fingerprint
from soar_tf.reports import corruptions as corruptions_section
from soar_tf.reports import curve as curve_section
from soar_tf.reports import masking as masking_section
from soar_tf.reports import shards as shards_section
from soar_tf.reports import shipped
from soar_tf.reports.output import GALLERY, ReportPlace
from soar_tf.reports.summary import check_attacks, verdict
from soar_tf.runs import models
from soar_tf.runs.provenance import environment
from soar_tf.threat_model import ThreatModel


@dataclasses.dataclass(frozen=True)
class _Inputs:
    """What an evaluation works with, loaded and checked before the first attack.

    Attributes:
        model: The `LoadedModel` to attack.
        parent: For a file without gradients the `LoadedModel` that lends it its own, else `None`.
        dataset: The data set's name.
        data: The `Dataset`.
        examples: The split's images to attack, in memory or read when they are needed.
        threat: The `ThreatModel` of the attacks that set none.
        asked: The attacks that were asked for, by name.
        attacks: The attacks that are run, by name.
        masking_source: The `LoadedModel` for the masking checks' transfer, or `None`.
        source: The `LoadedModel` for the adaptive attack's transfer, or `None`.
    """

    model: typing.Any
    parent: typing.Any
    dataset: str
    data: typing.Any
    examples: typing.Any
    threat: ThreatModel
    asked: dict
    attacks: dict
    masking_source: typing.Any
    source: typing.Any

    @property
    def subject(self):
        """`(network, x, y)`."""
        network = self.model.network or self.model.logits_fn
        return network, self.examples.pixels(), self.examples.labels


def evaluate_model(path, config, *, progress=None):
    """Attacks a model and, if asked to, writes the report.

    Args:
        path: A run directory, a `.keras`, `.tflite` or `.onnx` file, a SavedModel folder or
            `zoo:NAME`.
        config: A `soar_tf.runs.evaluation_config.EvaluationConfig`.
        progress: See `soar_tf.evaluate`.

    Returns:
        The report, a JSON-serializable dictionary.

    Raises:
        InputError: If the model, the data, an attack, `output` or `state` cannot be used.
    """
    given = check_attacks(config.attacks, config.norm, config.epsilon)
    if config.curve:
        curve_section.attacks(*_curve_arguments(config), **given)
    place = ReportPlace(config.output, config.state)
    if config.save_adversarial and place.folder is None:
        raise InputError("`save_adversarial` needs an `output` folder to write to.")
    shard = None if config.shard is None else _checked_shard(config.shard, place, config.masking)
    inputs = _inputs(path, config, progress)
    with place.made():
        kept = evaluation.State(place.state)
        common = {"seed": config.seed, "batch_size": config.batch_size, "progress": progress}
        common |= {"state": kept, "shard": shard}
        result, checks = _attacked(inputs, config, common)
    report = {"model": str(path), "dataset": inputs.dataset, "split": config.split}
    report |= result.to_dict()
    report |= _about(result, inputs, config.batch_size)
    curve = _add_sections(report, result, checks, inputs, config, place, common)
    if kept.resumed and not kept.advanced:
        print(f"{kept.path}: this evaluation is complete already.", file=sys.stderr)
    names = inputs.data.class_names
    if shard is not None:
        shards_section.add(report, result.shard, names, config.save_adversarial)

    def images(positions):
        return inputs.examples.select(positions).float_images()

    place.write(report, result, images, names, everything=config.save_adversarial, curve=curve)
    return report


def _curve_arguments(config):
    return config.curve_attack, config.curve_minimum, config.curve_epsilons


def _inputs(path, config, progress):
    """Loads models and data, and refuses what does not fit together."""
    model, parent = _models(path, config)
    dataset = config.dataset or model.config.get("dataset")
    if dataset is None:
        raise InputError("`dataset` is needed: only runs and zoo networks know their own.")
    threat = models.threat_model([model], dataset, config.norm, config.epsilon)
    asked = {
        name: get_attack(name, norm=threat.norm, epsilon=threat.epsilon)
        for name in dict.fromkeys(config.attacks)
    }
    attacks = asked if parent is None else shipped.attacks(asked, parent, threat)
    data = models.dataset_for(
        {path: model},
        dataset,
        data_dir=config.data_dir,
        image_size=config.image_size,
        split=config.split,
        reading=config.reading,
    )
    if progress is not None:
        models.say_what_was_read(data)
    examples = data[config.split]
    examples = (examples if config.limit is None else examples.take(config.limit)).in_memory()
    if config.corruptions:
        corruptions_section.names(model.input_shape)
    load = functools.partial(masking_section.load_source, model=model, trust=config.trust)
    masking_source = load(config.masking_source)
    # The source of a file without gradients is its parent, which is loaded already.
    source = load(config.source, argument="source") if parent is None else None
    return _Inputs(
        model, parent, dataset, data, examples, threat, asked, attacks, masking_source, source
    )


def _models(path, config):
    """The model to attack, and the one that lends its gradients to a file without them."""
    model = models.load(path, trust=config.trust, pixel_range=config.pixel_range)
    if model.artefact is None:
        if config.source is not None and not config.adaptive:
            raise InputError("`source` needs `adaptive`, or a .tflite or .onnx file to evaluate.")
        return model, None
    names = ("masking", "curve", "adaptive", "shard")
    _check_file_options(path, **{name: getattr(config, name) for name in names})
    parent = shipped.load_source(path, model, config.source, trust=config.trust)
    return dataclasses.replace(model, config=parent.config), parent


def _attacked(inputs, config, common):
    """The `Evaluation` of all attacks, and the masking checks if they were asked for, else `None`.

    Where a check fails, the short adaptive attack follows.
    """
    lender = inputs.source if config.adaptive else None

    def attacked(adaptive):
        return evaluation.evaluate(
            *inputs.subject,
            inputs.attacks,
            uint8=config.uint8,
            keep=len(inputs.examples) if config.save_adversarial else GALLERY,
            adaptive=adaptive,
            source=lender and (lender.network or lender.logits_fn),
            **common,
        )

    result, checks = attacked(True if config.adaptive else "auto"), None
    if config.masking:
        checks = masking_section.checks(
            inputs.model,
            inputs.masking_source,
            inputs.examples,
            inputs.threat,
            *(common[name] for name in ("seed", "batch_size", "progress", "state")),
        )
        if masking_section.failed(checks) and len(result.attacks) == len(inputs.attacks):
            result = attacked("short")
    return result, checks


def _add_sections(report, result, checks, inputs, config, place, common):
    """Measures what was asked for besides the attacks, and adds it; returns the curve's parts."""
    curve = None
    if config.curve:
        arguments = _curve_arguments(config)
        curve = curve_section.measure(inputs.subject, *arguments, inputs.threat, **common)
        report["curve"] = curve_section.section(*curve)
    if config.corruptions:
        corrupted = evaluation.corruption_accuracies(*inputs.subject, **common)
        report["corruptions"] = corruptions_section.section(corrupted)
    if checks is not None:
        masking_section.add(report, result, checks)
    if inputs.parent is not None:
        shipped.add(
            report,
            inputs.model,
            inputs.parent,
            inputs.attacks | inputs.asked,
            result,
            inputs.examples,
            inputs.threat,
            place.state,
            seed=config.seed,
            batch_size=config.batch_size,
            progress=common["progress"],
        )
    return curve


def _check_file_options(path, **options):
    """Refuses what a file without gradients cannot be asked for."""
    for name, value in options.items():
        if value:
            raise InputError(
                f"`{name}` is for models with gradients, which {path} does not have; its attacks "
                "take those of its `source`, and the report says what can be said without them."
            )


def _checked_shard(shard, place, masking):
    shard = evaluation.Shard.parse(shard)
    if place.folder is None:
        raise InputError("`shard` needs an `output` folder, which soar-tf merge reads.")
    if masking:
        raise InputError(
            "`masking` judges all images together and cannot be merged; run it without `shard`."
        )
    return shard


def _about(result, inputs, batch_size):
    """What the report says beside the figures."""
    model, examples = inputs.model, inputs.examples
    # What comes after the attacks that were asked for is the adaptive one.
    configs = [attack.get_config() for attack in inputs.attacks.values()]
    entries = itertools.zip_longest(result.attacks, configs, fillvalue={})
    about = {"attacks": [entry.to_dict() | {"config": config} for entry, config in entries]}
    if result.uint8_worst_case_accuracy is not None:
        about["uint8"] = shards_section.uint8_counts(result)
    about["batch_size"] = batch_size
    about["architecture"] = model.config.get("network") or getattr(model.network, "name", None)
    about |= verdict(result)
    # What ties the report to a network, whatever its file is called.
    weights = model.network.get_weights() if model.network is not None else []
    about["weights"] = fingerprint(*weights) if weights else None
    about["data"] = {
        "fingerprint": fingerprint(examples.source, examples.labels),
        "sample": examples.selection or "all",
        "provenance": inputs.data.provenance,
    }
    about["environment"] = environment()
    return about
