"""Whether a run's data are those that it was begun with."""

from soar_tf.errors import InputError


def sample(dataset, limit, progress, workdir):
    """Which training images a run takes; refuses a run that was begun with the first ones.

    Args:
        dataset: The `soar_tf.datasets.Dataset`.
        limit: Number of training images, or `None` for all.
        progress: The checkpoint's progress, or `None` for a new run.
        workdir: The run's folder, for the error.

    Returns:
        What the sample is called in records.

    Raises:
        InputError: If the run was begun by a version that took other images.
    """
    train = dataset["train"]
    taken = train if limit is None else train.take(limit)
    resumed = progress is not None and "sample" not in progress
    if resumed and taken is not train and not train.shuffled:
        raise InputError(
            f"`workdir` {workdir} was begun by a version that trained on the first {limit} "
            f"images of data set {dataset.name!r}; now `limit` samples every class, so it "
            "cannot be resumed. Use another workdir."
        )
    return taken.selection or "all"


def check_data(dataset, stored, fingerprint, workdir):
    """Refuses other images or labels than a run was begun with.

    Args:
        dataset: The `soar_tf.datasets.Dataset`.
        stored: What the run's records say of its data.
        fingerprint: The data set's fingerprint.
        workdir: The run's folder, for the error.

    Raises:
        InputError: If they differ.
    """
    known = stored.get("fingerprint", fingerprint) if isinstance(stored, dict) else fingerprint
    if not dataset.has_fingerprint(known):
        raise InputError(
            f"`workdir` {workdir} was begun with other images or labels of data set "
            f"{dataset.name!r}: their fingerprint is {str(known)[:16]} there and "
            f"{fingerprint[:16]} here; use another workdir."
        )
