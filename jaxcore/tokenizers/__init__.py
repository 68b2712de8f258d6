"""Text to token ids and back: of Hugging Face's folders and of GGUF files.

The library ``tokenizers`` does the work and is imported on first use; nothing is fetched, and no
code that comes with a model is run.
"""

from jaxcore.tokenizers.files import read_tokenizer
from jaxcore.tokenizers.gguf import gguf_tokenizer
from jaxcore.tokenizers.template import render
from jaxcore.tokenizers.tokenizer import TextStream, Tokenizer

__all__ = ["TextStream", "Tokenizer", "gguf_tokenizer", "read_tokenizer", "render"]
