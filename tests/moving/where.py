"""A place of a test's own to which runs move, and how to look at it without localrun."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Where:
    """A system, a folder of the test's own there, and how it is reached."""

    system: str
    base: str
    data_config: dict[str, Any]

    def to(self, run: Any, name: str = "copy", **options: Any) -> Any:
        """Copy a run there."""
        return run.to(self.system, f"{self.base}/{name}", data_config=self.data_config, **options)

    def load(self, name: str = "copy", **options: Any) -> Any:
        """Load the run there."""
        import localrun

        return localrun.run(path=f"{self.base}/{name}", system=self.system, data_config=self.data_config, **options)

    def fs(self) -> Any:
        """The file system, for looking without localrun."""
        import fsspec

        kind = fsspec.get_filesystem_class("file" if self.system == "here" else self.system)
        return kind(**self.data_config, skip_instance_cache=True)

    def names(self, name: str = "copy") -> set[str]:
        """The files there, by their paths inside."""
        fs, root = self.fs(), f"{self.base}/{name}"
        return {each.partition(f"/{name}/")[2] for each in fs.find(root) if f"/{name}/" in each}

    def read(self, name: str) -> bytes:
        return bytes(self.fs().cat_file(f"{self.base}/{name}"))

    def write(self, name: str, data: bytes) -> None:
        fs, path = self.fs(), f"{self.base}/{name}"
        if self.system != "s3":
            fs.makedirs(os.path.dirname(path), exist_ok=True)
        fs.pipe_file(path, data)
