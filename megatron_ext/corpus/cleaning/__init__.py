from megatron_ext.corpus.cleaning.cleaner import Cleaned, Cleaner
from megatron_ext.corpus.cleaning.config import CleaningConfig

__all__ = ["Cleaned", "Cleaner", "CleaningConfig"]
