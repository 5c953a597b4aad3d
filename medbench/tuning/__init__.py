"""The one training loop: LoRA, A3MoE, auxiliary losses, supervision, adapters."""
