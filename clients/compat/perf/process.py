"""What the kernel says of a process: CPU seconds, resident memory, threads. Linux only."""

import os

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid):
    """User and system time of all threads so far, to the precision of /proc (10 ms)."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident_mib(pid):
    return _status(pid, "VmRSS") / 1024


def anonymous_mib(pid):
    """The part of the resident memory that is not a file's, such as the program itself."""
    return _status(pid, "RssAnon") / 1024


def threads(pid):
    return _status(pid, "Threads")


def _status(pid, field):
    with open(f"/proc/{pid}/status") as status:
        for line in status:
            if line.startswith(field + ":"):
                return int(line.split()[1])
    return 0
