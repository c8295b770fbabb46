"""Runs every scenario against two brokers and compares the answers field by field.

Output: one line a difference, `scenario/step path | A | B`, each either expected (with the reason from expected.tsv or
refused.tsv) or unexpected. The exit code is 1 if any is unexpected or if expected.tsv has grown past its limit.
"""

import argparse
import collections
import concurrent.futures
import fnmatch
import importlib
import os
import pathlib
import sys
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
sys.path.insert(0, str(HERE))

import normalise  # noqa: E402
import transcript  # noqa: E402
from wire.client import Wire  # noqa: E402

MODULES = ["versions", "produce", "batches", "fetch", "offsets", "groups", "static_groups", "empty_groups", "dances", "topics", "configs", "odd"]
EXPECTED_LIMIT = 25
Difference = collections.namedtuple("Difference", "where path a b")


def read_list(name):
    """Patterns and reasons: `glob of scenario/step path` TAB reason."""
    rows = []
    for line in (HERE / name).read_text().splitlines():
        if line and not line.startswith("#"):
            pattern, _, reason = line.partition("\t")
            rows.append((pattern, reason))
    return rows


def compare(where, path, a, b, out):
    """Appends the differences between two normalised values."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in list(a) + [k for k in b if k not in a]:
            compare(where, f"{path}.{key}", a.get(key, "<absent>"), b.get(key, "<absent>"), out)
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for index, (x, y) in enumerate(zip(a, b)):
            compare(where, f"{path}[{index}]", x, y, out)
    elif a != b:
        out.append(Difference(where, path, a, b))


def play(wire, address, scenario, run, base_time):
    """One scenario against one broker; a crash of the scenario is itself an entry of the transcript."""
    script = transcript.Transcript(wire, address, run, base_time)
    try:
        scenario(script)
    except Exception as error:  # noqa: BLE001 - whatever it was, the other broker's transcript shows whether it is a difference
        frames = traceback.extract_tb(error.__traceback__)
        script.entries.append(("!", None, None, {"_exception": f"{type(error).__name__}: {error} at {frames[-1].name}:{frames[-1].lineno}"}))
    finally:
        script.close()
    return normalise.entries(script.entries, run)


def differences(name, ours, theirs):
    out = []
    for (label_a, a), (label_b, b) in zip(ours, theirs):
        where = f"{name}/{label_a}"
        if label_a != label_b:
            out.append(Difference(where, "step", label_a, label_b))
            return out
        compare(where, "", a, b, out)
    if len(ours) != len(theirs):
        out.append(Difference(name, "steps", len(ours), len(theirs)))
    return out


def scenarios(only):
    found = []
    for module_name in MODULES:
        module = importlib.import_module(f"scenarios.{module_name}")
        for name, function in module.SCENARIOS:
            full = f"{module_name}.{name}"
            if fnmatch.fnmatch(full, only):
                found.append((full, function))
    return found


def classify(found, show_text):
    """Splits differences into expected (pattern -> list), unexpected, and differences of message texts only."""
    lists = read_list("expected.tsv") + read_list("refused.tsv")
    expected, unexpected, texts = collections.defaultdict(list), [], 0
    for item in found:
        line = f"{item.where} {item.path}"
        match = next((p for p, _ in lists if fnmatch.fnmatchcase(line, p)), None)
        if match:
            expected[match].append(item)
        elif item.path.endswith("Message") and isinstance(item.a, str) and isinstance(item.b, str) and not show_text:
            texts += 1
        else:
            unexpected.append(item)
    return expected, unexpected, texts


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("a")
    parser.add_argument("b")
    parser.add_argument("--only", default="*", help="glob over scenario names")
    parser.add_argument("--show-text", action="store_true", help="count differing error message texts too")
    parser.add_argument("--jobs", type=int, default=6)
    parser.add_argument("--times", action="store_true", help="print how long each scenario took")
    options = parser.parse_args()
    wire, run, base_time = Wire(), f"{os.getpid():x}{int(time.time()) & 0xFFFFF:05x}", int(time.time() * 1000)
    todo, found, steps = scenarios(options.only), [], 0

    for address in (options.a, options.b):
        transcript.Transcript(wire, address, run, base_time).warm_up()

    def one(numbered):
        number, item = numbered
        mine = f"{run}{number:02x}"
        started = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(2) as pair:
            both = [pair.submit(play, wire, address, item[1], mine, base_time) for address in (options.a, options.b)]
            a, b = (f.result() for f in both)
        if options.times:
            print(f"{time.monotonic() - started:6.1f} s {item[0]}")
        return item[0], a, b

    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for name, a, b in pool.map(one, enumerate(todo)):
            steps += len(a)
            found += differences(name, a, b)
    expected, unexpected, texts = classify(found, options.show_text)
    for item in unexpected:
        print(f"DIFFERS {item.where} {item.path} | {str(item.a)[:300]} | {str(item.b)[:300]}")
    for pattern, items in expected.items():
        print(f"expected {len(items):5} {pattern}")
    print(f"{len(todo)} scenarios, {steps} answers compared: {len(unexpected)} unexpected differences, "
          f"{sum(map(len, expected.values()))} expected, {texts} in message texts only")
    listed = len(read_list("expected.tsv"))
    if listed > EXPECTED_LIMIT:
        print(f"expected.tsv lists {listed} differences; the limit is {EXPECTED_LIMIT}")
    return 1 if unexpected or listed > EXPECTED_LIMIT else 0


if __name__ == "__main__":
    sys.exit(main())
