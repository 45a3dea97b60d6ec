"""How bench speed reports: every number has its place, and the ratio comes last."""

import json

import torch

from talk3d.bench.budget import Ceilings
from talk3d.bench.speed_report import Film, Memory, SpeedReport, Timing, table, this_machine

REPORT = SpeedReport(
    {"processor": "any", "threads": 2},
    Ceilings(single=2e9, half=8e9, bytes=1e9),
    [
        Timing("mini", "frame", "plain", 170.04, 0.071, 3.75e9, 14.3e6, 40.2, None, 1.0),
        Timing("mini", "frame", "fast", 51.94, 0.06, 3.75e9, 14.3e6, 18.3, 64.6, 3.27),
        Timing("mini", "writing", "both", 4.4, 0.02, None, None, None, None, 1.0),
    ],
    [Film("plain", 2, 226, 7.4, 170.0, 1.0), Film("fast", 2, 226, 30.1, 60.2, 2.82)],
    [Memory("mini", "fast", 582.0, 668.0, 4.7)],
)


def words(line: str) -> str:
    return " ".join(line.split())


def test_the_table_has_all_numbers_under_their_names() -> None:
    lines = table(REPORT).splitlines()
    assert "2 threads; at best 2 GFLOP/s in single precision, 8 in bfloat16, 1 GB/s" in lines[0]
    stages, films, memory = (
        next(i for i, line in enumerate(lines) if line.startswith(n)) for n in ("profile", "film", "memory")
    )
    assert words(lines[stages]) == "profile stage path core-ms spread GFLOP MB floor reached dB ratio"
    assert words(lines[stages + 2]) == "mini frame fast 51.9 6% 3.75 14.3 18.3 35% 64.6 3.27"
    assert words(lines[stages + 3]) == "mini writing both 4.4 2% 1.00", "only the clock is known of it"
    assert words(lines[films]) == "film threads frames frames/s core-ms ratio"
    assert words(lines[films + 2]) == "fast 2 226 30.1 60.2 2.82"
    assert words(lines[memory + 1]) == "mini fast 582 668 86 4.70"
    for head, count in ((stages, 3), (films, 2), (memory, 1)):
        assert len({len(line) for line in lines[head : head + count + 1]}) == 1, "columns end where their names do"


def test_a_program_can_read_the_report() -> None:
    read = json.loads(REPORT.to_json())
    assert read["timings"][1]["psnr"] == 64.6
    assert read["films"][1]["threads"] == 2
    assert (len(read["timings"]), len(read["films"]), len(read["memory"])) == (3, 2, 1)


def test_it_says_what_it_is_of() -> None:
    machine = this_machine()
    assert machine["threads"] == torch.get_num_threads()
    assert torch.backends.cpu.get_cpu_capability() in str(machine["processor"])
