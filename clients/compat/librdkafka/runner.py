"""Runs librdkafka's test-runner once per test number and judges each test by the runner's own JSON report.

Invariant: PASS means that the test ran and passed; skipped, crashed, timed out or absent is never PASS. Of a test with a column `subtests`
each part that is named there has to run and pass, in a process of its own.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
LIMIT_SECONDS = 900


def allow_list(scenario):
    """Rows of allow.tsv for a scenario: test name -> (seconds, in the smoke set, parts)."""
    rows = {}
    for line in (HERE / "allow.tsv").read_text().splitlines():
        if line and not line.startswith(("#", "test\t")):
            name, where, seconds, smoke, *parts = line.split("\t")
            if where == scenario:
                rows[name] = (float(seconds), smoke == "yes", [part for part in ";".join(parts).split(";") if part])
    return rows


def choose(words, allowed, tests):
    """Test numbers to run, longest first, and the names that must pass."""
    if words == ["SMOKE"]:
        names = {n for n, (_, smoke, _) in allowed.items() if smoke}
    elif words == ["ALLOW"]:
        names = set(allowed)
    elif words == ["ALL"]:
        numbers = {p.name[:4] for p in pathlib.Path(tests).glob("[0-9]" * 4 + "-*.c*")}
        return sorted(numbers), set(allowed)
    else:
        return sorted({w[:4] for w in words}), {n for n in allowed if n[:4] in {w[:4] for w in words}}
    seconds = {}
    for name in names:
        seconds[name[:4]] = seconds.get(name[:4], 0) + allowed[name][0]
    return sorted(seconds, key=seconds.get, reverse=True), names


def run_parts(number, parts, options, work):
    """The whole test, or each of its parts. Returns {test name: (state, seconds, note)}."""
    out = {}
    for index, part in enumerate(parts or [None]):
        for name, (state, seconds, note) in run_one(number, options, work, part, f"-{index}" if part else "").items():
            before = out.get(name, ("PASS", 0.0, ""))
            worse = before if before[0] != "PASS" else (state, seconds, f"{part}: {note}" if part and note else note)
            out[name] = (worse[0], before[1] + seconds, worse[2])
    return out


def run_one(number, options, work, part=None, suffix=""):
    """One process. Returns {test name: (state, seconds, note)}."""
    report, log = work / f"{number}{suffix}.json", work / f"{number}{suffix}.log"
    report.unlink(missing_ok=True)
    env = dict(os.environ, TESTS=number, TEST_REPORT=str(report), TEST_KAFKA_VERSION="4.0.0", RDKAFKA_TEST_CONF=str(work / "test.conf"),
               LD_LIBRARY_PATH="../src:../src-cpp", KAFKA_PATH=options.kafka, BROKERS=options.server, TEST_LEVEL="2")
    if part:
        env["SUBTESTS"] = part
    command = ["./test-runner", "-p1", "-L", "-s", options.scenario]
    started, note = time.monotonic(), ""
    with open(log, "wb") as out:
        process = subprocess.Popen(command, cwd=options.tests, env=env, stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            code = process.wait(LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            code, note = -1, f"no end after {LIMIT_SECONDS} s"
    seconds = time.monotonic() - started
    if code != 0 and not note:
        lines = [l for l in log.read_text(errors="replace").splitlines() if "failed at" in l or "assert" in l.lower()]
        note = (lines[-1] if lines else f"exit code {code}")[-200:]
    try:
        tests = json.loads(report.read_text())["tests"]
    except (OSError, ValueError, KeyError):
        return {f"{number}_?": ("CRASHED", seconds, note)}
    out = {}
    for name, test in tests.items():
        if not name.startswith(number):
            continue  # the report lists every test there is; the rest was not asked for
        state = {"PASSED": "PASS", "FAILED": "FAIL"}.get(test["state"], test["state"])
        if state == "PASS" and code != 0:
            state = "FAIL"
        if state == "PASS" and part and not any("[ " in l and part in l.split("[ ", 1)[1] for l in log.read_text(errors="replace").splitlines()):
            state, note = "SKIPPED", "no such part"
        out[name] = (state, float(test["duration"]), note if state != "PASS" else "")
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("tests", "kafka", "work", "server"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--scenario", default="default")
    parser.add_argument("--jobs", type=int, default=6)
    parser.add_argument("--out", default="")
    parser.add_argument("what", nargs="+")
    options = parser.parse_args()
    work = pathlib.Path(options.work) / options.server.replace(":", "-")
    work.mkdir(parents=True, exist_ok=True)
    (work / "test.conf").write_text(f"bootstrap.servers={options.server}\ntest.timeout.multiplier=3\n")
    allowed = allow_list(options.scenario)
    numbers, required = choose(options.what, allowed, options.tests)
    parts = {name[:4]: found for name, (_, _, found) in allowed.items() if found}
    results = {}
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for number, found in zip(numbers, pool.map(lambda n: run_parts(n, parts.get(n), options, work), numbers)):
            results.update(found)
            for name, (state, seconds, note) in found.items():
                print(f"{name}\t{state}\t{seconds:.1f}\t{note}", flush=True)
    missing = sorted(n for n in required if results.get(n, ("MISSING",))[0] != "PASS")
    if options.out:
        rows = [f"{n}\t{s}\t{t:.1f}\t{note}" for n, (s, t, note) in sorted(results.items())]
        pathlib.Path(options.out).write_text("\n".join(["test\tresult\tseconds\tnote", *rows]) + "\n")
    for name in missing:
        print(f"NOT PASSED {name}: {results.get(name, ('MISSING',))[0]} (log: {work}/{name[:4]}.log)")
    print(f"{len(required) - len(missing)} passed, {len(missing)} failed of the {len(required)} required")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
