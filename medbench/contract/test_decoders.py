"""The decoders that are to be checked."""

from medbench.contract.decoders import DecoderContract


class TestDecoder(DecoderContract):
    """Every decoder that is to be checked, one after the other."""
