"""What came of a fault."""

import dataclasses


@dataclasses.dataclass
class Trial:
    """What came of one fault.

    Attributes:
        refused: Whether it ended in one sentence.
        equal: Whether the same command afterwards ended with the reference's bits.
        lost: What went wrong, or `None`.
    """

    refused: bool = False
    equal: bool = False
    lost: str | None = None
