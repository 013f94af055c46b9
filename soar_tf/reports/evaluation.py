"""`soar-tf evaluate`: attacks on a stored model, and the report."""

import itertools
import sys

from soar_tf import evaluation
from soar_tf.attacks import get as get_attack
from soar_tf.errors import InputError
from soar_tf.evaluation.state import fingerprint
from soar_tf.reports import curve as curve_section
from soar_tf.reports import masking as masking_section
from soar_tf.reports.output import GALLERY, ReportPlace
from soar_tf.reports.summary import check_attacks, note
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
    masking=False,
    masking_source=None,
    adaptive=False,
    source=None,
    pixel_range=None,
    trust=False,
    progress=None,
    reading=None,
):
    """Attacks a model and, if asked to, writes the report.

    Args:
        path: A run directory, a `.keras` file, a SavedModel folder or `zoo:NAME`.
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
        masking: Whether to run the checks for gradient masking, too.
        masking_source: A model for their transfer check, or `None`.
        adaptive: Whether the full adaptive attack follows; otherwise a short one follows where the
            probe finds that the network may hide its gradients.
        source: A model for the adaptive attack to transfer from, or `None`.
        pixel_range: The pixel value that stands for white where a file's network takes others than
            [0, 1], such as 255.
        trust: Whether SavedModels may hold any operation.
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
    model = models.load(path, trust=trust, pixel_range=pixel_range)
    dataset = dataset or model.config.get("dataset")
    if dataset is None:
        raise InputError("`dataset` is needed: only runs and zoo networks know their own.")
    threat = models.threat_model([model], dataset, norm, epsilon)
    built = [get_attack(name, norm=threat.norm, epsilon=threat.epsilon) for name in attacks]
    data = models.dataset_for(
        {path: model}, dataset, data_dir=data_dir, image_size=image_size, split=split,
        reading=reading,
    )  # fmt: skip
    if progress is not None:
        models.say_what_was_read(data)
    examples = (data[split] if limit is None else data[split].take(limit)).in_memory()
    masking_source = masking_section.load_source(masking_source, model, trust=trust)
    source = masking_section.load_source(source, model, "source", trust=trust)
    with place.made():
        found = evaluation.State(place.state)
        common = {"seed": seed, "batch_size": batch_size, "progress": progress, "state": found}
        subject = (model.network or model.logits_fn, examples.pixels(), examples.labels)
        result = evaluation.evaluate(
            *subject, dict(zip(attacks, built, strict=True)), uint8=uint8,
            keep=len(examples) if save_adversarial else GALLERY,
            adaptive=True if adaptive else "auto", source=source and source.logits_fn, **common,
        )  # fmt: skip
    report = {"model": str(path), "dataset": dataset, "split": split, **result.to_dict()}
    report |= _about(model, result, built, data, examples, batch_size)
    distances = None
    if curve:
        report["curve"], distances = curve_section.measure(subject, *curves, threat, **common)
    if masking:
        masking_section.add(
            report, result, model, masking_source, examples, threat, batch_size, progress, found
        )
    if found.resumed and not found.advanced:
        print(f"{found.path}: this evaluation is complete already.", file=sys.stderr)
    place.write(
        report, result, examples, data.class_names, everything=save_adversarial,
        distances=distances,
    )  # fmt: skip
    return report


def _about(model, result, attacks, data, examples, batch_size):
    """What the report says beside the figures."""
    # What comes after the attacks that were asked for is the adaptive one.
    configs = [attack.get_config() for attack in attacks]
    entries = itertools.zip_longest(result.attacks, configs, fillvalue={})
    about = {"attacks": [entry.to_dict() | {"config": config} for entry, config in entries]}
    if result.uint8_worst_case_accuracy is not None:
        clean, floats, rounded = (
            round(share * result.n)
            for share in (
                result.clean_accuracy, result.worst_case_accuracy,
                result.uint8_worst_case_accuracy,
            )
        )  # fmt: skip
        about["uint8"] = {"found": clean - floats, "still_fool": clean - rounded}
    about["batch_size"] = batch_size
    about["note"] = note([attack.name for attack in result.attacks])
    about["reliability"] = "not checked"
    if result.hides_gradients:
        about["reliability"] = "unreliable"
    if result.findings:
        sentences = " ".join(finding.message for finding in result.findings)
        about["note"] = f"{sentences} {about['note']}"
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
