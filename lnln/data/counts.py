"""What was met while clips were extracted, in plain words.

A count's name says what is counted, in the plural, and then what was met: `vision_frames_without_face` are among the
`vision_frames`. So any extractor may count what it likes, and nothing here has to know of it.
"""

from __future__ import annotations

from collections.abc import Mapping


def say_counts(counts: Mapping[str, int]) -> list[tuple[str, str]]:
    """What was counted and how many, for all that is not 0: `("clips without text", "3 of 40")`; clips come first."""
    rows = []
    for name in sorted(counts, key=lambda name: (not name.startswith("clips"), name)):
        if counts[name]:
            unit = _unit(name, counts)
            total = f" of {counts[unit]:,}" if unit else ""
            rows.append((name.replace("_", " "), f"{counts[name]:,}{total}"))
    return rows


def say_frames(counts: Mapping[str, int]) -> list[str]:
    """Of one clip, what was met in its frames: `no face in 3 of 40 vision frames`."""
    notes = []
    for name in sorted(counts):
        unit = _unit(name, counts)
        if not counts[name] or not unit or unit == "clips":
            continue
        met = name.removeprefix(f"{unit}_").replace("_", " ")
        what = f"no {met.removeprefix('without ')}" if met.startswith("without ") else met.removeprefix("with ")
        notes.append(f"{what} in {counts[name]:,} of {counts[unit]:,} {unit.replace('_', ' ')}")
    return notes


def _unit(name: str, counts: Mapping[str, int]) -> str:
    """The longest name of a count that `name` counts a part of; empty where there is none."""
    return max((other for other in counts if name.startswith(f"{other}_")), key=len, default="")
