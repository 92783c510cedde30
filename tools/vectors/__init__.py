"""The conformance vectors of the chunk format, and the golden chunks of a release.

`python -m tools.vectors` writes them. `specs/vectors/{subset,uncommon,shared,faulty}` hold frames and an `index.json`
each: what a valid frame decodes to, as the SHA-256 of its values (little-endian, C order), or the error and field
that a faulty one must be refused with. `tests/golden/1` holds the chunks that every later release must
decode to the same bits.

`frames` makes, edits and reseals frames; `subset`, `uncommon` and `faulty` list the vectors of each folder;
`write` chooses the golden chunks and writes folders; `__main__` is the command. Everything is made from fixed
seeds with numpy alone; no network is fitted here, and streams of AV1 were encoded before (`av1_streams`). The rooms
import each other relatively, because the tests load them by path.
"""
