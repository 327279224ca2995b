"""Attention back ends behind one protocol, the choice among them, and megatron-core's core-attention module."""
