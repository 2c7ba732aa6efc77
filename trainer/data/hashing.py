"""Numbers that look random and depend on nothing but what they are asked for: the same on every machine and rank."""

from __future__ import annotations

import hashlib

SEED_BITS = 63


def hashed(*parts: int | str) -> int:
    """A number of 63 bits that depends on the parts alone, the same on every machine."""
    text = "\0".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> (64 - SEED_BITS)


def share(*parts: int | str) -> float:
    """The same as a number from 0 up to 1."""
    return hashed(*parts) / 2**SEED_BITS
