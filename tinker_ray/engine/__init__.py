"""The embedded engine: many LoRA adapters on one base model, behind the Tinker wire.

Nothing outside this package and the command line imports it; it is the only package that loads
torch.
"""
