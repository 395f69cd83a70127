"""Our own engine at every instruction set: the same integer sums everywhere, and floats in the same order."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prorank.backends.native import compiler, engine, levels
from prorank.types import EncodedGroup
from testkit.native import HERE, each_level, runs_here, write_random

MODELS = {
    "plain": {},
    "biases": {"biases": True},
    "norms": {"norms": True, "size": 128, "heads": 2, "key_heads": 1},  # two panels of values
    "narrow": {"key_heads": 1, "size": 48, "hidden": 64},  # rows of queries, keys and values that 64 does not divide
}
CLOSE = 0.02
"""Largest root mean square of differences between two instruction sets, in deviations of the states."""

rng = np.random.default_rng(1)
PREFIX = [int(x) for x in rng.integers(0, 50, 37)]
OWN = [[int(x) for x in rng.integers(0, 50, n)] for n in (1, 2, 5, 6, 7, 13, 64, 90, 3, 1)]


@pytest.fixture(scope="module", autouse=True)
def _compiler() -> None:
    try:
        compiler.compiler()
    except ImportError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp(request.param)
    write_random(folder, **MODELS[request.param])
    return folder


def states(folder: Path, own_ids: list[list[int]], *, threads: int = 1) -> np.ndarray:
    backend = engine.NativeBackend(folder, (0, 1), threads=threads)
    ids, lengths = backend.padded(EncodedGroup([], own_ids, 0))
    past = backend.prefix(EncodedGroup(PREFIX, own_ids, 9))
    return backend.run_layers(lengths, past, (0, backend.layers), ids=ids)


@each_level()
def test_states_do_not_depend_on_company(model: Path, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(levels.VARIABLE, level)
    backend = engine.NativeBackend(model, (0, 1))
    assert backend.level.name == level
    got = states(model, OWN)
    assert np.isfinite(got).all()
    assert np.array_equal(states(model, OWN[::-1])[::-1], got), "order"
    assert np.array_equal(np.concatenate([states(model, [own]) for own in OWN]), got), "alone"
    whole = backend.label_logits(EncodedGroup([], [[*PREFIX, *own] for own in OWN], 0))
    assert np.array_equal(whole, backend.label_logits(EncodedGroup(PREFIX, OWN, 9))), "the prefix"


@each_level()
def test_numbers_do_not_depend_on_how_many_cores_share_a_batch(
    model: Path, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(levels.VARIABLE, level)
    alone = engine.NativeBackend(model, (0, 1), threads=1)
    past = alone.prefix(EncodedGroup(PREFIX, OWN, 9))
    ids, lengths = alone.padded(EncodedGroup([], OWN, 0))
    whole = alone.run_layers(lengths, past, (0, alone.layers), ids=ids)
    half = alone.run_layers(lengths, past, (0, 1), ids=ids)
    for cores in (2, 5):
        several = engine.NativeBackend(model, (0, 1), threads=cores)
        assert np.array_equal(several.prefix(EncodedGroup(PREFIX, OWN, 9)), past), "a prefix takes all cores"
        assert np.array_equal(several.run_layers(lengths, past, (0, several.layers), ids=ids, cores=cores), whole)
        begun = several.run_layers(lengths, past, (0, 1), ids=ids, cores=cores)
        assert np.array_equal(begun, half)
        assert np.array_equal(several.run_layers(lengths, past, (1, 3), stream=begun, cores=cores), whole)
        for own, wanted in zip(OWN, whole, strict=True):
            found = several.label_logits_on(cores, EncodedGroup(PREFIX, [own], 9))
            assert np.array_equal(found, several.logits_of(wanted[None]))
        assert several._spaces.qsize() == cores


@runs_here
def test_several_batches_share_the_cores_that_there_are(tmp_path: Path) -> None:
    """More asked for than there are, by more callers than there are: all end, with the same numbers."""
    write_random(tmp_path)
    backend = engine.NativeBackend(tmp_path, (0, 1), threads=3)
    group = EncodedGroup(PREFIX, OWN, 9)
    wanted = backend.label_logits(group)
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda cores: backend.label_logits_on(cores, group), [1, 2, 3, 4] * 6))
    assert all(np.array_equal(one, wanted) for one in found)
    assert backend._spaces.qsize() == 3


@runs_here
def test_a_thread_that_cannot_start_leaves_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_random(tmp_path)
    backend = engine.NativeBackend(tmp_path, (0, 1), threads=3)
    group = EncodedGroup(PREFIX, OWN, 9)
    wanted = backend.label_logits(group)
    submit = ThreadPoolExecutor.submit

    def refuse(error: BaseException) -> None:
        def second(self: ThreadPoolExecutor, function: Any, team: Any, number: int) -> Any:
            if number == 2:
                raise error
            return submit(self, function, team, number)

        monkeypatch.setattr(ThreadPoolExecutor, "submit", second)

    refuse(RuntimeError("can't start new thread"))
    assert np.array_equal(backend.label_logits_on(3, group), wanted)
    refuse(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        backend.label_logits_on(3, group)
    assert backend._spaces.qsize() == 3


@each_level()
def test_levels_agree(model: Path, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit, unless the processor multiplies bfloat16: it rounds sums in its own way."""
    monkeypatch.setenv(levels.VARIABLE, HERE[0].name)
    wanted = states(model, OWN)
    monkeypatch.setenv(levels.VARIABLE, level)
    got = states(model, OWN)
    assert off(got, wanted) <= CLOSE
    if level not in ("avx512bf16", "amx"):
        assert np.array_equal(got, wanted)


@runs_here
def test_states_are_those_of_the_definition(tmp_path: Path) -> None:
    """Beside numpy in float64, which rounds inputs and bfloat16 as the file's first lines say. One layer: later a
    difference of the last bit turns roundings over."""
    tensors = write_random(tmp_path, layers=1, biases=True, norms=True)
    assert off(states(tmp_path, OWN), np.stack([by_definition(tensors, [*PREFIX, *own]) for own in OWN])) <= 0.01


def by_definition(tensors: dict[str, np.ndarray], ids: list[int]) -> np.ndarray:
    """The last state of a model of one layer, 4 heads of 16 that share 2 of keys and values."""
    at = {name.removeprefix("layers.0."): tensor.astype(np.float64) for name, tensor in tensors.items()}
    hadamard = np.ones((1, 1))
    while len(hadamard) < 64:
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])

    def linear(x: np.ndarray, part: str) -> np.ndarray:
        groups = x.reshape(len(x), -1, 64) @ hadamard
        steps = np.abs(groups).max(-1, keepdims=True) / 127
        weight = at[f"{part}.weight"].reshape(*at[f"{part}.scale"].shape, 64)
        found = np.einsum("tgk,ogk,og->to", np.rint(groups / steps) * steps / 8, weight, at[f"{part}.scale"])
        return found + at.get(f"{part}.bias", 0)

    def normed(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * weight

    def turned(x: np.ndarray) -> np.ndarray:
        angles = np.arange(len(x))[:, None] * at["frequencies"]
        cosine, sine = np.cos(angles)[:, None], np.sin(angles)[:, None]
        a, b = x[..., :8], x[..., 8:]
        return np.concatenate([a * cosine - b * sine, b * cosine + a * sine], -1)

    def bf16(x: np.ndarray) -> np.ndarray:
        bits = x.astype(np.float32).view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32).astype(np.float64)

    x = at["embeddings"][ids]
    mixed = linear(normed(x, at["attention_norm"]), "qkv")
    queries = bf16(turned(normed(mixed[:, :64].reshape(-1, 4, 16), at["query_norm"])) / 4)
    keys = bf16(turned(normed(mixed[:, 64:96].reshape(-1, 2, 16), at["key_norm"]))).repeat(2, 1)
    values = bf16(mixed[:, 96:128].reshape(-1, 2, 16)).repeat(2, 1)
    scores = np.einsum("qhd,khd->hqk", queries, keys)
    scores = np.where(np.tri(len(ids), dtype=bool), scores, -np.inf)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    attended = np.einsum("hqk,khd->qhd", bf16(shares) / shares.sum(-1, keepdims=True), values)
    x = x + linear(attended.reshape(len(ids), 64), "out")
    pairs = linear(normed(x, at["block_norm"]), "gate_up").reshape(len(ids), -1, 2, 32)
    gate, up = pairs[:, :, 0].reshape(len(ids), -1), pairs[:, :, 1].reshape(len(ids), -1)
    x = x + linear(gate / (1 + np.exp(-gate)) * up, "down")
    return normed(x, at["norm"])[-1]


def off(got: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.sqrt(np.mean((got - wanted) ** 2)) / wanted.std())


@runs_here
def test_levels_are_named_and_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_random(tmp_path)
    monkeypatch.setenv(levels.VARIABLE, "sse9")
    with pytest.raises(ValueError, match="PRORANK_NATIVE_ISA: 'sse9' is none of avx2, avxvnni"):
        engine.NativeBackend(tmp_path, (0, 1))
    missing = next(level for level in levels.LEVELS if level not in HERE)
    monkeypatch.setenv(levels.VARIABLE, missing.name)
    with pytest.raises(ValueError, match=f"for {missing.name}; it has {HERE[0].name}"):
        engine.NativeBackend(tmp_path, (0, 1))


def test_the_best_level_is_chosen() -> None:
    laptop = {"avx2", "fma", "f16c", "avx_vnni"}
    server = {*laptop, *"avx512f avx512bw avx512vl avx512dq avx512_vnni".split()}  # noqa: SIM905
    for features, wanted in (
        (laptop - {"avx_vnni"}, "avx2"), (laptop, "avxvnni"), (server - {"avx_vnni"}, "avx512vnni"),
        ({*server, "avx512_bf16"}, "avx512bf16"), ({*server, "avx512_bf16", "amx_tile", "amx_int8"}, "avx512bf16"),
        ({"asimd", "asimddp"}, "neon"), ({"asimd", "asimddp", "i8mm"}, "i8mm"),
    ):  # fmt: skip
        assert levels.chosen_level(features).name == wanted
    with pytest.raises(ImportError, match="no fma; export to openvino-int8"):
        levels.chosen_level({"avx2"})
    with pytest.raises(ImportError, match="no asimddp"):
        levels.chosen_level({"asimd"})


@pytest.fixture(scope="module", params=["neon", "i8mm", "avx512bf16", "amx"])
def elsewhere(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command that runs native_elsewhere.c at a level: 64-bit ARM by PyPI's ziglang and qemu; AMX's tiles and the
    products of bfloat16 in C that does the same, on a processor that has the rest."""
    level = next(level for level in levels.LEVELS if level.name == request.param)
    if level.name in ("neon", "i8mm"):
        if importlib.util.find_spec("ziglang") is None or shutil.which("qemu-aarch64") is None:
            pytest.skip("needs PyPI's ziglang and Debian's qemu-user")
        zig = [sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-musl", "-static"]
        command, run = [*zig, *levels.COMMON, *level.flags], ["qemu-aarch64"]
    else:
        if "avx512vnni" not in [level.name for level in HERE]:
            pytest.skip("this processor has no AVX-512 with VNNI")
        flags = [flag for flag in (*levels.COMMON, *level.flags) if not flag.startswith(("-mamx", "-mavx512bf16"))]
        command, run = [*compiler.compiler(), *flags, "-DPRORANK_EMULATED"], []
    source, program = Path(engine.__file__).parent, tmp_path_factory.mktemp(level.name) / "elsewhere"
    driver = Path(__file__).with_name("native_elsewhere.c")
    subprocess.run([*command, f"-I{source}", "-o", str(program), str(driver), "-lm"], check=True)
    return [*run, str(program)]


@runs_here
def test_levels_of_other_processors_give_the_same(model: Path, elsewhere: list[str], tmp_path: Path) -> None:
    write_case(tmp_path / "case", model)
    subprocess.run([*elsewhere, str(tmp_path / "case"), str(tmp_path / "states")], check=True)
    wanted = states(model, OWN)
    got = np.fromfile(tmp_path / "states", dtype=np.float32).reshape(wanted.shape)
    assert off(got, wanted) <= CLOSE
    if len(elsewhere) == 1:
        assert np.array_equal(got, wanted) or engine.NativeBackend(model, (0, 1)).level.name == "avx512bf16"


def write_case(path: Path, folder: Path) -> None:
    """What native_elsewhere.c reads: sizes, then arrays with their lengths in bytes in front."""
    from prorank.backends.mapped import map_tensors

    tensors, facts = map_tensors(folder / engine.WEIGHTS)
    sizes = [int(facts[name]) for name in ("layers", "hidden", "heads", "key_heads", "size", "inner")]
    width = max(len(own) for own in OWN)
    ids = np.array([[*own, *[0] * (width - len(own))] for own in OWN], dtype=np.int64)
    parts: list[np.ndarray | None] = [
        np.array([*sizes, len(PREFIX), len(OWN), width], dtype=np.int32),
        np.array([facts["epsilon"], facts["rotary_scale"]], dtype=np.float32),
        *(tensors[name] for name in ("frequencies", "embeddings", "norm")),
        np.array(PREFIX, dtype=np.int64), ids, np.array([len(own) for own in OWN], dtype=np.int64),
    ]  # fmt: skip
    for i in range(sizes[0]):
        for name in ("attention_norm", "block_norm", "query_norm", "key_norm"):
            parts.append(tensors.get(f"layers.{i}.{name}"))
        for part in engine.PARTS:
            weight, scale = tensors[f"layers.{i}.{part}.weight"], tensors[f"layers.{i}.{part}.scale"]
            panels = scale.reshape(-1, 64, scale.shape[1]).transpose(0, 2, 1)
            parts += [np.array(weight.shape, np.int32), weight, panels, tensors.get(f"layers.{i}.{part}.bias")]
    with path.open("wb") as file:
        for one in parts:
            content = b"" if one is None else np.ascontiguousarray(one).tobytes()
            file.write(len(content).to_bytes(8, "little") + content)
