"""Put the scales that even out int8's channels beside an adapter: the int8 model made on first use is then closer.

    python tools/smoothing.py prorank-smollm2-135m          # a built-in reranker: changes src/prorank/models
    python tools/smoothing.py runs/refined/best             # a checkpoint with an adapter

Runs ten prompts of the built-in collection through the model in float32, writes `smoothing.safetensors` (170 kB) and
names it in the manifest. Run it again whenever the adapter's weights change; `tools/ship_adapter.py` leaves it out.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

from prorank import Reranker
from prorank.export.smoothing import smoothing_scales
from prorank.export.targets import typical_run
from prorank.files import sha256_file
from prorank.model.checkpoint import built_in_rerankers
from prorank.model.manifest import read_manifest, write_manifest
from prorank.model.smoothing import write_scales


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="built-in reranker, or checkpoint folder with an adapter")
    name = parser.parse_args().model
    folder = built_in_rerankers().get(name, Path(name))
    manifest = read_manifest(folder)
    if manifest is None or manifest.kind != "adapter":
        raise SystemExit(f"{name}: expected a built-in reranker or a prorank checkpoint with an adapter")
    reranker = Reranker.from_pretrained(name, dtype="float32", device="cpu", backend="torch")
    scales = smoothing_scales(reranker.backend.model, typical_run(reranker))  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory(dir=folder.parent) as aside:
        written = write_scales(Path(aside), {key: scale.numpy() for key, scale in scales.items()})
        path = written.replace(folder / written.name)
    write_manifest(folder, replace(manifest, files={**manifest.files, path.name: sha256_file(path)}))
    print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
