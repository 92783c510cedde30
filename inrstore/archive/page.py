"""The fixed parts of the report page: style, script, words, and numbers as people read them."""

from __future__ import annotations

GENERATOR = b"<meta name=generator content=inrstore>"
"""In the head of every page: what lacks it is somebody else's, and not replaced."""

HEAD = """<!doctype html>
<html lang=en>
<head>
<meta charset=utf-8>
<meta name=generator content=inrstore>
<meta name=viewport content="width=device-width, initial-scale=1">
<meta name=color-scheme content="light dark">
<title>{title}</title>
<style>
:root {
  --ink: #1b1e23; --paper: #fbfaf8; --card: #fff; --line: #e2dfd9; --muted: #6b6f76; --bad: #b3261e; --link: #1f5fa8
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e8e6e3; --paper: #16181c; --card: #1e2126; --line: #33373e; --muted: #9aa0a8; --bad: #ff8a80;
    --link: #8ab4f8
  }
}
* { box-sizing: border-box }
body {
  margin: 0 auto; padding: 2rem clamp(1rem, 3vw, 3rem) 4rem; max-width: 1680px;
  background: var(--paper); color: var(--ink); font: 15px/1.45 system-ui, sans-serif
}
h1 { font-size: 1.7rem; margin: 0 0 .3rem; overflow-wrap: anywhere }
h2 { font-size: 1.15rem; margin: 2rem 0 .4rem }
.facts, .caption, small, i { color: var(--muted); font-style: normal }
.facts { margin: 0 0 1.2rem }
.facts b { color: var(--ink); font-weight: 500 }
.caption { margin: 0 0 .8rem; max-width: 80ch }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: .7rem }
.cards div { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .7rem .9rem }
.cards span, .cards small { display: block; font-size: .8rem; color: var(--muted) }
.cards b { display: block; font-size: 1.45rem; font-weight: 600; font-variant-numeric: tabular-nums }
.bad, .cards .bad b { color: var(--bad) }
.cards .bad { border-color: var(--bad) }
.failed { margin: 0; padding: 0; list-style: none; border-top: 1px solid var(--line) }
.failed li { padding: .45rem 0; border-bottom: 1px solid var(--line); overflow-wrap: anywhere }
.failed b { margin-right: .6rem }
.wide { overflow-x: clip }
@media (max-width: 1100px) { .wide { overflow-x: auto } }
table { width: 100%; border-collapse: collapse }
th {
  position: sticky; top: 0; background: var(--paper); box-shadow: inset 0 -1px var(--line);
  font-weight: 600; text-align: right; white-space: nowrap; cursor: pointer; user-select: none
}
th:hover { color: var(--link) }
th.up::after { content: " ↑" }
th.down::after { content: " ↓" }
th[data-plain] { cursor: default; color: inherit }
th, td { padding: .5rem .55rem }
td {
  border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums
}
td small { display: block }
th:first-child, td:first-child { text-align: left; padding-left: 0 }
td:first-child { white-space: normal; overflow-wrap: anywhere; min-width: 13rem }
th:last-child, td:last-child { text-align: left; padding-right: 0; width: 396px }
img { display: block; height: 128px; background: #16181c; border-radius: 4px; image-rendering: pixelated }
</style>
</head>
<body>
"""

FOOT = """</tbody>
</table>
</div>
<script>
const number = text => text == "" ? NaN : Number(text.replace("inf", "Infinity"));
for (const head of document.querySelectorAll("th:not([data-plain])")) head.onclick = () => {
  const words = "text" in head.dataset, largest = words ? head.className == "up" : head.className != "down";
  const value = row => { const v = row.cells[head.cellIndex].dataset.v; return words ? v : number(v) };
  const none = v => v !== v;  // what has no number stands last
  const rows = [...document.querySelector("tbody").rows].map(row => [value(row), row]);
  rows.sort(([a], [b]) => none(a) - none(b) || (largest ? -1 : 1) * (a < b ? -1 : a > b ? 1 : 0));
  for (const other of document.querySelectorAll("th")) other.className = "";
  head.className = largest ? "down" : "up";
  document.querySelector("tbody").append(...rows.map(pair => pair[1]));
};
</script>
</body>
</html>
"""

COLUMNS = (
    ("image", " data-text"),
    ("before", ""),
    ("after", ""),
    ("ratio", ""),
    ("PSNR dB", ""),
    ("worst voxel", ""),
    ("time", ""),
    ("chunks", " data-plain"),
    ("original | decoded | error", " data-plain"),
)
"""Words and marks of the columns: data-text is sorted as text, data-plain is not sorted."""

CAPTION = (
    "Before: the file as it lay in the source, compressed or not. After: all files of the store. "
    "Ratio: uncompressed voxels over the store. "
    "Worst voxel: the largest error in stored units, and where it is (x, y, z, t). "
    "The picture is the slice through that voxel, which is marked in the error; its colours run from blue "
    "(decoded is darker) over black to red, up to the largest error of the slice. "
    "Click a heading to sort."
)


def size(count: int) -> str:
    """Return a number of bytes with three digits and a decimal unit."""
    if count < 1000:
        return f"{count} B"
    value, units = count / 1000, ["kB", "MB", "GB", "TB", "PB"]
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.3g} {units[0]}" if value < 999.5 else f"{value:,.0f} {units[0]}"


def number(value: float | None, digits: int) -> str:
    """Return a number with some digits, never with an exponent when it is large; a dash if there is none."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def duration(seconds: float) -> str:
    """Return seconds as people say them."""
    if seconds < 59.5:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min"
