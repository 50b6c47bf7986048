"""JSON files that carry their own checksum: a damaged or edited one is known for what it is.

The last key of the object is the SHA-256 of the bytes before it, as a hexadecimal number. Bits, not
values, are summed up: a number may lose a bit and still be read as the same number.
"""

from __future__ import annotations

import hashlib


def sealed(text: bytes, key: str) -> bytes:
    """Return an object, written with an indent of 2, with its checksum as one more key."""
    body = text.rstrip().removesuffix(b"\n}")
    checksum = hashlib.sha256(body).hexdigest()
    return b'%b,\n  "%b": "%b"\n}\n' % (body, key.encode(), checksum.encode())


def is_sealed(content: bytes, key: str) -> bool:
    """Tell whether ``sealed`` wrote this, bit for bit."""
    body, _, _ = content.rpartition(b',\n  "%b"' % key.encode())
    return content == sealed(body + b"\n}", key)
