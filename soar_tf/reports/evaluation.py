"""`soar-tf evaluate`: attacks on a stored model, and the report."""

import dataclasses
import itertools
import sys

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


def evaluate_model(
    path,
    *,
    dataset,
    attacks,
    data_dir=None,
    image_size=None,
    split="test",
    limit=None,
    norm=None,
    epsilon=None,
    batch_size=256,
    seed=0,
    output=None,
    state=None,
    uint8=False,
    save_adversarial=False,
    curve=False,
    curve_attack="pgd20",
    curve_minimum="fmn",
    curve_epsilons=(),
    corruptions=False,
    masking=False,
    masking_source=None,
    adaptive=False,
    source=None,
    pixel_range=None,
    trust=False,
    shard=None,
    progress=None,
    reading=None,
):
    """Attacks a model and, if asked to, writes the report.

    Args:
        path: A run directory, a `.keras`, `.tflite` or `.onnx` file, a SavedModel folder or
            `zoo:NAME`.
        dataset: Data set's name; `None` takes that of a run or a zoo network.
        attacks: Attacks as strings.
        data_dir: Folder of tensorflow-datasets; `None` takes a run directory's own.
        image_size: `[height, width]`, or `None`.
        split: Split to attack.
        limit: Number of images, or `None` for all.
        norm: Norm of the attacks that set none; `None` takes that of the model's training, else
            `"linf"`.
        epsilon: Radius of the attacks that set none, where they have this norm; `None` takes that
            of the model's training, else the data set's usual one.
        batch_size: Images attacked together.
        seed: Seed of the attacks' noise.
        output: Folder for the report, or the path of a JSON report (`.json`); or `None`.
        state: File that keeps what was found, to go on after a kill; `None` keeps it in the
            report's folder, if there is one.
        uint8: Whether adversarial examples are also classified after rounding to 8 bits.
        save_adversarial: Whether all adversarial images are written into the report's folder.
        curve: Whether to measure accuracy against the radius, too.
        curve_attack: The attack that is run at each of the curve's radii.
        curve_minimum: The minimum-norm attack whose distances join in.
        curve_epsilons: The radii; none takes multiples of `epsilon`.
        corruptions: Whether to measure accuracy on corrupted images, too.
        masking: Whether to run the checks for gradient masking, too.
        masking_source: A model for their transfer check, or `None`.
        adaptive: Whether the full adaptive attack follows; otherwise a short one follows where the
            probe finds that the network may hide its gradients.
        source: A model for the adaptive attack to transfer from; for a `.tflite` or `.onnx` file
            the model that it was exported from, whose gradients the attacks use, where `None` takes
            the run directory that it is in or that is beside it.
        pixel_range: The pixel value that stands for white where a file's network takes others than
            [0, 1], such as 255.
        trust: Whether SavedModels may hold any operation.
        shard: Which shard of the images to attack, such as `"3/8"`; `None` for all. Its report is
            for `soar_tf.reports.shards.merge`.
        progress: See `soar_tf.evaluate`.
        reading: How images are read, see `soar_tf.runs.models.dataset_for`.

    Returns:
        The report, a JSON-serializable dictionary.

    Raises:
        InputError: If the model, the data, an attack, `output` or `state` cannot be used.
    """
    attacks = tuple(dict.fromkeys(attacks))
    given = check_attacks(attacks, norm, epsilon)
    curves = (curve_attack, curve_minimum, curve_epsilons)
    if curve:
        curve_section.attacks(*curves, **given)
    place = ReportPlace(output, state)
    if save_adversarial and place.folder is None:
        raise InputError("`save_adversarial` needs an `output` folder to write to.")
    if shard is not None:
        shard = _checked_shard(shard, place, masking)
    model = models.load(path, trust=trust, pixel_range=pixel_range)
    parent = None
    if model.artefact is not None:
        _check_file_options(path, masking=masking, curve=curve, adaptive=adaptive, shard=shard)
        parent = shipped.load_source(path, model, source, trust=trust)
        model = dataclasses.replace(model, config=parent.config)
    elif source is not None and not adaptive:
        raise InputError("`source` needs `adaptive`, or a .tflite or .onnx file to evaluate.")
    dataset = dataset or model.config.get("dataset")
    if dataset is None:
        raise InputError("`dataset` is needed: only runs and zoo networks know their own.")
    threat = models.threat_model([model], dataset, norm, epsilon)
    asked = {name: get_attack(name, norm=threat.norm, epsilon=threat.epsilon) for name in attacks}
    built = asked if parent is None else shipped.attacks(asked, parent, threat)
    data = models.dataset_for(
        {path: model},
        dataset,
        data_dir=data_dir,
        image_size=image_size,
        split=split,
        reading=reading,
    )
    if progress is not None:
        models.say_what_was_read(data)
    examples = (data[split] if limit is None else data[split].take(limit)).in_memory()
    if corruptions:
        corruptions_section.names(model.input_shape)
    masking_source = masking_section.load_source(masking_source, model, trust=trust)
    if parent is None:
        source = masking_section.load_source(source, model, "source", trust=trust)
    with place.made():
        found = evaluation.State(place.state)
        common = {"seed": seed, "batch_size": batch_size, "progress": progress, "state": found}
        common["shard"] = shard
        subject = (model.network or model.logits_fn, examples.pixels(), examples.labels)

        lender = (source.network or source.logits_fn) if adaptive and source else None

        def attacked(adaptive):
            return evaluation.evaluate(
                *subject,
                built,
                uint8=uint8,
                keep=len(examples) if save_adversarial else GALLERY,
                adaptive=adaptive,
                source=lender,
                **common,
            )

        result = attacked(True if adaptive else "auto")
        if masking:
            checks = masking_section.checks(
                model, masking_source, examples, threat, seed, batch_size, progress, found
            )
            if masking_section.failed(checks) and len(result.attacks) == len(built):
                result = attacked("short")
    report = {"model": str(path), "dataset": dataset, "split": split, **result.to_dict()}
    report |= _about(model, result, built, data, examples, batch_size)
    measured = None
    if curve:
        measured = curve_section.measure(subject, *curves, threat, **common)
        report["curve"] = curve_section.section(*measured)
    if corruptions:
        corrupted = evaluation.corruption_accuracies(*subject, **common)
        report["corruptions"] = corruptions_section.section(corrupted)
    if masking:
        masking_section.add(report, result, checks)
    if parent is not None:
        shipped.add(
            report,
            model,
            parent,
            built | asked,
            result,
            examples,
            threat,
            place.state,
            seed=seed,
            batch_size=batch_size,
            progress=progress,
        )
    if found.resumed and not found.advanced:
        print(f"{found.path}: this evaluation is complete already.", file=sys.stderr)
    if shard is not None:
        shards_section.add(report, result.shard, data.class_names, save_adversarial)

    def images(positions):
        return examples.select(positions).float_images()

    place.write(
        report, result, images, data.class_names, everything=save_adversarial, curve=measured
    )
    return report


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


def _about(model, result, attacks, data, examples, batch_size):
    """What the report says beside the figures."""
    # What comes after the attacks that were asked for is the adaptive one.
    configs = [attack.get_config() for attack in attacks.values()]
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
        "provenance": data.provenance,
    }
    about["environment"] = environment()
    return about
