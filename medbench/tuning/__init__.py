"""The one training loop: LoRA, A3MoE, auxiliary losses, supervision, adapters."""

import logging

# peft imports bitsandbytes where it is installed, and on a CPU with AVX512-BF16 that tells of a
# kernel which medbench never computes with (`model/placement.py` says why).
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
