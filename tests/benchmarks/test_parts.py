"""The parts that benchmarks draw are those of a job: they are read back and give a map."""

from __future__ import annotations

from functools import partial

from benchmarks import assembly, vectors
from geo.cracks.parts import read_part


def test_parts_of_the_benchmarks_are_read_back(tmp_path):
    assert vectors.whole_chain(partial(vectors.hatching, 9), tmp_path)() > 0
    _, blocks = assembly.write_city(tmp_path / "city", 4, assembly.draw_block(9, 60))
    assert all(len(read_part(path).pieces) for _, path in blocks)
