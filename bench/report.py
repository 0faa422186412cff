"""What was measured: printed as it comes, kept for the JSON file."""

import os
import platform
import subprocess


class Report:
    def __init__(self, arguments):
        self._parts = {}
        self._figures = None
        version = subprocess.run([arguments.strata, "--version"], capture_output=True, text=True, check=True).stdout
        self._setting = {
            "version": version.split()[-1],
            "documents": arguments.documents,
            "texts": arguments.texts,
            "processor": _processor(),
            "cores": len(os.sched_getaffinity(0)),
            "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
            "system": platform.platform(),
            "python": platform.python_version(),
        }
        print(", ".join(f"{name} {value}" for name, value in self._setting.items()))

    def begin(self, part):
        print(f"\n== {part}", flush=True)
        self._figures = self._parts[part] = {}

    def add(self, name, value, unit):
        """One figure."""
        self._figures[name] = {"value": value, "unit": unit}
        print(f"{name}: {_rounded(value)} {unit}", flush=True)

    def add_run(self, name, run, unit):
        """Rate and latency of a load."""
        self.add(f"{name}, rate", run.rate, unit)
        self.add_times(name, run.latencies)

    def add_times(self, name, seconds):
        self.add(f"{name}, p50", percentile(seconds, 50) * 1000, "ms")
        self.add(f"{name}, p99", percentile(seconds, 99) * 1000, "ms")

    def ratio(self, value, meaning):
        """How the part stands to its limit; above 1 is better than the limit."""
        self._figures["ratio"] = {"value": value, "meaning": meaning}
        print(f"ratio: {_rounded(value)} ({meaning})", flush=True)

    def as_json(self):
        return {"setting": self._setting, "parts": self._parts}


def percentile(values, percent):
    """The nearest rank."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def _rounded(value):
    """Four digits, or all before the point where that is more."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _processor():
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
