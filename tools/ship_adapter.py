"""Put a trained adapter into the package: in half precision, with its read-outs, without a tokenizer (the base has it).

    python tools/ship_adapter.py runs/warmup-smollm2-135m/best prorank-smollm2-135m-warmup

Writes src/prorank/models/NAME, replacing an existing folder, with the margins that `prorank doctor` compares with, and
prints the size and by how much the rounding changed the weights. float16 and bfloat16 take two bytes a weight; float16
rounds eight times finer, but holds nothing above 65,504 and loses digits below 0.00006: then it is refused.
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
PRECISIONS = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
LARGEST_ERROR = 0.01
"""Of a tensor's rounding, relative to the tensor: bfloat16's is about 0.0017."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("adapter", type=Path, help="checkpoint folder of warmup or refine")
    parser.add_argument("name", help="name to load it by")
    parser.add_argument("--dtype", choices=sorted(PRECISIONS), default="float16", help="default: %(default)s")
    parser.add_argument("--calibration", type=float, nargs=2, metavar=("A", "B"), help="probability = sigmoid(A m + B)")
    args = parser.parse_args()
    manifest = read_manifest(args.adapter)
    if manifest is None or manifest.kind != "adapter":
        raise SystemExit(f"{args.adapter}: expected a prorank checkpoint with an adapter")
    target = MODELS / args.name
    target.parent.mkdir(exist_ok=True)
    with atomic_folder(target) as aside:
        weights, error = rounded(load_file(args.adapter / WEIGHTS), args.dtype)
        save_file(weights, aside / WEIGHTS)
        config = json.loads((args.adapter / "adapter_config.json").read_text("utf-8"))
        config["base_model_name_or_path"] = manifest.base_name
        (aside / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
        calibration = tuple(args.calibration) if args.calibration else manifest.calibration
        if (args.adapter / readouts.FILE).is_file():
            shutil.copy(args.adapter / readouts.FILE, aside)
        files = {path.name: sha256_file(path) for path in sorted(aside.glob("*.safetensors"))}
        write_manifest(aside, replace(manifest, files=files, calibration=calibration))
    record_self_test(args.name)
    size = (target / WEIGHTS).stat().st_size / 1e6
    print(f"{target}: {size:.1f} MB; rounding changes a tensor by at most {error:.2g} of its norm")
    return 0


def rounded(weights: dict[str, torch.Tensor], dtype: str) -> tuple[dict[str, torch.Tensor], float]:
    """The weights in a precision, and the largest relative error of a tensor: norm of the difference over its norm.

    Weights that are already no finer than this stay as they are: rounding bfloat16 to float16 gains nothing.

    Raises:
        SystemExit: the error is above :data:`LARGEST_ERROR`.
    """
    found, largest = {}, 0.0
    for name, value in weights.items():
        keep = value.dtype in (torch.float16, torch.bfloat16) and dtype != "float32"
        found[name] = value if keep else value.to(PRECISIONS[dtype])
        norm = value.float().norm()
        error = float((found[name].float() - value.float()).norm() / norm) if norm > 0 else 0.0
        if not error <= LARGEST_ERROR:  # nor is it "not a number"
            raise SystemExit(f"{name}: {dtype} changes it by {error:.2g} of its size; try --dtype bfloat16")
        largest = max(largest, error)
    return found, largest


if __name__ == "__main__":
    raise SystemExit(main())
