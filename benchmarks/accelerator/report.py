"""The table: times beside the card's limits and the fastest rival."""

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.accelerator.rivals import ROWS

RATES = ("gb_s", "tflop_s", "replications_s", "value_apart", "gradients_apart")
HEADS = ("part", "row", "ms", "bytes ms", "flops ms", "of limit", "compile s", "GB", "over")


def limits(record: Mapping[str, Any]) -> dict[str, float]:
    """GB/s, and TFLOP/s by type, as measured in the same run; what is missing is left out."""
    rows = record.get("limits", {}).get("rows", {})
    found = {"bytes": rows.get("copy", {}).get("gb_s")}
    for dtype in ("float32", "bfloat16"):
        found[dtype] = rows.get(f"product {dtype}", {}).get("tflop_s")
    return {key: value for key, value in found.items() if value}


def judged(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with floors in milliseconds, share of the limit and ratios in every row."""
    card, out = limits(record), {}
    for part, found in record.items():
        rows = {name: dict(row) for name, row in found.get("rows", {}).items()}
        for name, row in rows.items():
            row |= _floors(name, row, card) | _ratio(name, row, rows)
        out[part] = {**found, "rows": rows} if "rows" in found else found
    return out


def _floors(name: str, row: Mapping[str, Any], card: Mapping[str, float]) -> dict[str, float]:
    floor, ms = row.get("floor"), row.get("ms")
    dtype = "bfloat16" if "bf16" in name or "bfloat16" in name else "float32"
    if floor is None or ms is None or not {"bytes", dtype} <= card.keys():
        return {}
    moved, counted = 1e3 * floor["gbytes"] / card["bytes"], 1e3 * floor["tflop"] / card[dtype]
    least = max(moved, counted)
    return {
        "floor_bytes_ms": round(moved, 4),
        "floor_flops_ms": round(counted, 4),
        "of_limit": round(least / ms, 3),
    }


def _ratio(name: str, row: Mapping[str, Any], rows: Mapping[str, Any]) -> dict[str, Any]:
    """Against the fastest rival of the same type, with and without ``torch.compile``."""
    if not name.startswith("jaxcore") or "ms" not in row or "disturbed" in row:
        return {}
    dtype, found = name.split()[1], {}
    for key, wanted in (("over_eager", (False,)), ("over_all", (False, True))):
        rivals = {
            rival: rows[rival]["ms"]
            for rival, (_, half, fast) in ROWS.items()
            if "ms" in rows.get(rival, {}) and half == (dtype == "bf16") and fast in wanted
        }
        if rivals:
            best = min(rivals, key=lambda rival: rivals[rival])
            found |= {key: round(rivals[best] / row["ms"], 2), f"{key}_rival": best}
    return found


def lines(record: Mapping[str, Any], only: str = "") -> Iterator[str]:
    """A table in Markdown, of all parts or one; what failed has its reason in place of figures."""
    card = limits(record)
    named = {"bytes": "GB/s copied", "float32": "TFLOP/s TF32", "bfloat16": "TFLOP/s bf16"}
    yield ", ".join(f"{card[key]:g} {words}" for key, words in named.items() if key in card)
    yield "| " + " | ".join(HEADS) + " |"
    yield "|" + "---|" * len(HEADS)
    for part, found in judged(record).items():
        if only not in ("", part):
            continue
        if "note" in found:
            yield f"| {part} | {found['note']} |"
        for name, row in found.get("rows", {}).items():
            if "failed" in row:
                yield f"| {part} | {name} | {row['failed']} |"
            elif {"ms", "compile_s", "value_apart"} & row.keys():
                yield "| " + " | ".join(_cells(part, name, row)) + " |"


def _cells(part: str, name: str, row: Mapping[str, Any]) -> list[str]:
    share, compiled = row.get("of_limit"), row.get("compile_s", row.get("first_call_s"))
    over = [f"{row[key]:g} {row[f'{key}_rival']}" for key in ("over_eager",) if key in row]
    if row.get("over_all_rival", "").startswith("torch.compile"):
        over.append(f"{row['over_all']:g} {row['over_all_rival']}")
    rates = ["disturbed"] if "disturbed" in row else []
    rates += [f"{row[key]:g} {key}" for key in RATES if key in row]
    return [
        part,
        name,
        _number(row.get("ms"), ".3f"),
        _number(row.get("floor_bytes_ms"), ".3f"),
        _number(row.get("floor_flops_ms"), ".3f"),
        "" if share is None else f"{100 * share:.0f} %",
        _number(compiled, ".1f") + (" (cache)" if row.get("from_cache") else ""),
        _number(row.get("memory_gb"), ".2f"),
        ", ".join(over or rates),
    ]


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
