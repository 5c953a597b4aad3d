"""The contract: tests that every plugin must pass, run by `pytest --pyargs medbench.contract`.

A plugin's own tests take them in by a class:

    from medbench.contract.decoders import DecoderContract

    class TestContract(DecoderContract):
        name = "blurred"
"""
