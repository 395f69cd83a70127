"""Put a trained adapter into the package: in bfloat16, with its read-outs, without a tokenizer (the base has one).

    python tools/ship_adapter.py runs/warmup-smollm2-135m/best prorank-smollm2-135m-warmup

Writes src/prorank/models/NAME, replacing an existing folder, with the margins that `prorank doctor` compares with, and
prints the size.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from prorank.early_exit import readouts
from prorank.files import atomic_folder, sha256_file
from prorank.model.manifest import read_manifest, write_manifest
from prorank.pipeline.doctor import record_self_test

MODELS = Path(__file__).resolve().parent.parent / "src" / "prorank" / "models"
WEIGHTS = "adapter_model.safetensors"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("adapter", type=Path, help="checkpoint folder of warmup or refine")
    parser.add_argument("name", help="name to load it by")
    parser.add_argument("--calibration", type=float, nargs=2, metavar=("A", "B"), help="probability = sigmoid(A m + B)")
    args = parser.parse_args()
    manifest = read_manifest(args.adapter)
    if manifest is None or manifest.kind != "adapter":
        raise SystemExit(f"{args.adapter}: expected a prorank checkpoint with an adapter")
    target = MODELS / args.name
    target.parent.mkdir(exist_ok=True)
    with atomic_folder(target) as aside:
        weights = load_file(args.adapter / WEIGHTS)
        save_file({name: value.to(torch.bfloat16) for name, value in weights.items()}, aside / WEIGHTS)
        config = json.loads((args.adapter / "adapter_config.json").read_text("utf-8"))
        config["base_model_name_or_path"] = manifest.base_name
        (aside / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
        calibration = tuple(args.calibration) if args.calibration else manifest.calibration
        if (args.adapter / readouts.FILE).is_file():
            shutil.copy(args.adapter / readouts.FILE, aside)
        files = {path.name: sha256_file(path) for path in sorted(aside.glob("*.safetensors"))}
        write_manifest(aside, replace(manifest, files=files, calibration=calibration))
    record_self_test(args.name)
    print(f"{target.relative_to(MODELS.parents[2])}: {(target / WEIGHTS).stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
