"""Untrusted files: what is checked before a library opens them."""


def printable(text, length=100):
    """A stranger's text for a message: one line, no control characters, and not too long."""
    return "".join(c if c.isprintable() else "?" for c in str(text)[:length])
