"""What a model remembers that Keras would not store: seed generators, and state beside weights."""

_SEED = "seed_state_"


def save(store, seeds, others):
    """Puts it into a Keras store, under names of its own.

    Args:
        store: The store.
        seeds: The states of the network's seed generators, in order.
        others: Objects with `save(store)` and `load(dictionary)`.
    """
    for position, state in enumerate(seeds):
        store[f"{_SEED}{position}"] = state.numpy()
    for other in others:
        other.save(store)


def load(store, seeds, others):
    """Takes it out of a Keras store; files from before it existed load, too.

    Args:
        store: The store.
        seeds: As for `save`.
        others: As for `save`.

    Returns:
        The rest of the store, a dictionary.
    """
    names = set(store.keys())  # an h5 group, which has no other way to iterate
    for position, state in enumerate(seeds):
        if f"{_SEED}{position}" in names:
            state.assign(store[f"{_SEED}{position}"])
    rest = {name: store[name] for name in names if not name.startswith(_SEED)}
    for other in others:
        other.load(rest)
    return rest
