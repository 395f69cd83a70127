"""Rollouts: G completions of every prompt from one forward pass, identical ones computed once and weighted.

The first token is sampled from the prompt's last position. The answers that count (the two label words) are already
branches of that same forward pass, so that their continuation costs nothing; anything else that is sampled continues
on the shared key-value cache. The log-probabilities returned carry the gradient: the first, on-policy update needs no
further forward pass. Every prompt samples from its own seeded generator: neither the batch nor the process matters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from prorank.training.policy import Packed, Policy, pack
from prorank.training.warmup.sampling import behaviour, draw, generator_of, taken_out
from prorank.types import EncodedGroup

__all__ = ["OTHER", "Rollout", "completion_logprobs", "enumerate_outputs", "sample"]

OTHER = -1
"""In :func:`enumerate_outputs`: any token but those listed."""


class Rollout(NamedTuple):
    """m distinct completions of n prompts."""

    completions: list[tuple[int, ...]]
    """Token ids of each, the end-of-turn id included."""
    prompt: torch.Tensor
    """``(m,)`` int64: whose completion it is."""
    counts: torch.Tensor
    """``(m,)`` float32: how many of the G samples it stands for."""
    logprobs: torch.Tensor
    """``(m, t)`` float32 with gradient, at the sampling temperature and prior."""
    mask: torch.Tensor
    """``(m, t)`` float32: 1 for a token of the completion."""
    first_logits: torch.Tensor
    """``(n, V)`` float32 with gradient: the plain logits after each prompt, no temperature, no prior."""
    end_logprobs: torch.Tensor
    """``(n, 2)`` float32 with gradient: plain log-probability of the end of the turn after each label word."""
    priors: torch.Tensor
    """``(n,)`` margins taken out before sampling."""


class _Node(NamedTuple):
    prompt: int
    tokens: tuple[int, ...]
    samples: int


def sample(
    policy: Policy,
    groups: Sequence[EncodedGroup],
    *,
    group_size: int,
    seeds: Sequence[str],
    max_tokens: int = 2,
    temperature: float = 1.0,
    top_p: float = 1.0,
    priors: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> Rollout:
    """Sample ``group_size`` completions of every prompt.

    Args:
        seeds: one text a prompt: what its generator is seeded with.
        priors: from the ``(n,)`` margins the ``(n,)`` margins to be taken out of the label logits at the first token.
    """
    labels = policy.label_ids
    speculate = max_tokens > 1
    prompts = sum(len(group.own_ids) for group in groups)
    packed = pack(groups, [[(labels[0],), (labels[1],)]] * prompts if speculate else None)
    cache = _new_cache() if speculate else None
    first, branch = policy.logits(packed, cache)
    taken = taken_out(first, labels, priors)
    generators = [generator_of(seed) for seed in seeds]

    tables = [behaviour(first, temperature, labels, taken)]  # per depth the log-probabilities sampled from
    rows: dict[tuple[int, tuple[int, ...]], int] = {(p, ()): p for p in range(prompts)}
    depth_rows = [rows]
    done: list[_Node] = []
    live = [_Node(p, (), group_size) for p in range(prompts)]
    columns = {  # where a beginning's last token stands in the cache
        (prompt, beginning): tuple(packed.branches[i].tolist()) for (prompt, beginning), i in packed.branch_of.items()
    }
    visible = packed.visible
    for depth in range(max_tokens):
        grown: list[_Node] = []
        for node in live:
            row = tables[depth][depth_rows[depth][node.prompt, node.tokens]]
            for token, count in draw(row.detach(), node.samples, generators[node.prompt], top_p):
                child = _Node(node.prompt, (*node.tokens, token), count)
                (done if token == policy.end_id or depth + 1 == max_tokens else grown).append(child)
        live = grown
        if not live:
            break
        known = {key: i for key, i in packed.branch_of.items() if len(key[1]) == depth + 1}
        logits = branch[list(known.values())] if known else first[:0]
        index = {key: i for i, key in enumerate(known)}
        missing = [node for node in live if (node.prompt, node.tokens) not in index]
        if missing:
            further, visible = _continue(policy, packed, visible, columns, missing, cache)
            for i, node in enumerate(missing):
                index[node.prompt, node.tokens] = len(logits) + i
            logits = torch.cat([logits, further])
        tables.append(F.log_softmax(logits / temperature, -1))
        depth_rows.append(index)

    completions = [node.tokens for node in done]
    logprobs, mask = _gather(tables, depth_rows, done, max_tokens)
    return Rollout(
        completions,
        torch.as_tensor([node.prompt for node in done], device=first.device),
        torch.as_tensor([float(node.samples) for node in done], device=first.device),
        logprobs,
        mask,
        first,
        _end_logprobs(branch, prompts, policy.end_id, first),
        taken,
    )


def enumerate_outputs(
    policy: Policy,
    groups: Sequence[EncodedGroup],
    *,
    group_size: int,
    temperature: float = 1.0,
    priors: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> Rollout:
    """The whole output set instead of samples, each outcome weighted by G times its probability: no sampling noise.

    Outcomes of a prompt: each label word with the end of the turn, each label word with anything else, anything else.
    """
    labels = policy.label_ids
    prompts = sum(len(group.own_ids) for group in groups)
    first, branch = policy.logits(pack(groups, [[(labels[0],), (labels[1],)]] * prompts))
    taken = taken_out(first, labels, priors)
    table = behaviour(first, temperature, labels, taken)
    label = table[:, list(labels)]
    end = F.log_softmax(branch / temperature, -1)[:, policy.end_id].view(prompts, 2)
    logprobs = torch.stack(
        [
            torch.stack([label[:, 0], end[:, 0]], 1),
            torch.stack([label[:, 1], end[:, 1]], 1),
            torch.stack([label[:, 0], _log_rest(end[:, 0])], 1),
            torch.stack([label[:, 1], _log_rest(end[:, 1])], 1),
            torch.stack([_log_rest(label.logsumexp(1)), torch.zeros_like(end[:, 0])], 1),
        ],
        1,
    )  # (n, 5, 2)
    outcomes = [
        (labels[0], policy.end_id),
        (labels[1], policy.end_id),
        (labels[0], OTHER),
        (labels[1], OTHER),
        (OTHER,),
    ]
    share = logprobs.detach().sum(2).exp()
    mask = torch.ones(prompts, 5, 2, device=first.device)
    mask[:, 4, 1] = 0
    return Rollout(
        outcomes * prompts,
        torch.arange(prompts, device=first.device).repeat_interleave(5),
        (group_size * share / share.sum(1, keepdim=True)).view(-1),
        logprobs.view(-1, 2),
        mask.view(-1, 2),
        first,
        F.log_softmax(branch, -1)[:, policy.end_id].view(prompts, 2),
        taken,
    )


def completion_logprobs(
    policy: Policy, groups: Sequence[EncodedGroup], rollout: Rollout, *, temperature: float = 1.0
) -> torch.Tensor:
    """``(m, t)`` log-probabilities of a rollout's completions under a policy: later updates, and the reference."""
    prompts = sum(len(group.own_ids) for group in groups)
    width = rollout.mask.shape[1]
    owner = rollout.prompt.tolist()
    branches: list[list[tuple[int, ...]]] = [[] for _ in range(prompts)]
    for prompt, completion in zip(owner, rollout.completions, strict=True):
        for length in range(1, len(completion)):
            if completion[:length] not in branches[prompt]:
                branches[prompt].append(completion[:length])
    for beginnings in branches:
        beginnings.sort(key=len)
    packed = pack(groups, branches)
    first, branch = policy.logits(packed)
    tables = [behaviour(first, temperature, policy.label_ids, rollout.priors), F.log_softmax(branch / temperature, -1)]
    result = first.new_zeros(len(owner), width)
    for depth in range(width):
        picked = [i for i, completion in enumerate(rollout.completions) if len(completion) > depth]
        rows = [owner[i] if depth == 0 else packed.branch_of[owner[i], rollout.completions[i][:depth]] for i in picked]
        tokens = [rollout.completions[i][depth] for i in picked]
        where = torch.as_tensor(picked, device=first.device), torch.full((len(picked),), depth, device=first.device)
        result = result.index_put(where, tables[min(depth, 1)][rows, tokens])
    return result


def _continue(
    policy: Policy,
    packed: Packed,
    visible: torch.Tensor,
    columns: dict[tuple[int, tuple[int, ...]], tuple[int, ...]],
    nodes: Sequence[_Node],
    cache: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits after each node's last token, on the cache; the grown visibility ``(B, L + m, L + m)``."""
    batch, length = visible.shape[0], visible.shape[1]
    per_row: list[list[_Node]] = [[] for _ in range(batch)]
    for node in nodes:
        per_row[int(packed.last[node.prompt, 0])].append(node)
    width = max(map(len, per_row))
    ids = torch.zeros(batch, width, dtype=torch.long)
    positions = torch.zeros(batch, width, dtype=torch.long)
    grown = torch.zeros(batch, length + width, length + width, dtype=torch.bool)
    grown[:, :length, :length] = visible
    grown[:, range(length, length + width), range(length, length + width)] = True
    place: dict[_Node, tuple[int, int]] = {}
    for row, members in enumerate(per_row):
        for offset, node in enumerate(members):
            beginning = (node.prompt, node.tokens[:-1])
            parent = columns[beginning][1] if node.tokens[:-1] else int(packed.last[node.prompt, 1])
            last = int(packed.last[node.prompt, 1])
            ids[row, offset] = node.tokens[-1]
            positions[row, offset] = int(packed.positions[row, last]) + len(node.tokens)
            grown[row, length + offset] |= grown[row, parent]
            columns[node.prompt, node.tokens] = (row, length + offset)
            place[node] = (row, offset)
    logits = policy.continue_logits(ids, positions, grown[:, length:], cache)
    rows, offsets = zip(*(place[node] for node in nodes), strict=True)
    return logits[list(rows), list(offsets)], grown


def _gather(
    tables: Sequence[torch.Tensor],
    depth_rows: Sequence[dict[tuple[int, tuple[int, ...]], int]],
    done: Sequence[_Node],
    width: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    device = tables[0].device
    logprobs = tables[0].new_zeros(len(done), width)
    mask = torch.zeros(len(done), width, device=device)
    for depth, table in enumerate(tables):
        picked = [i for i, node in enumerate(done) if len(node.tokens) > depth]
        if not picked:
            continue
        rows = [depth_rows[depth][done[i].prompt, done[i].tokens[:depth]] for i in picked]
        tokens = [done[i].tokens[depth] for i in picked]
        where = torch.as_tensor(picked, device=device), torch.full((len(picked),), depth, device=device)
        logprobs = logprobs.index_put(where, table[rows, tokens])
        mask[where] = 1
    return logprobs, mask


def _end_logprobs(branch: torch.Tensor, prompts: int, end_id: int, like: torch.Tensor) -> torch.Tensor:
    if not len(branch):
        return like.new_zeros(prompts, 2)
    return F.log_softmax(branch, -1)[:, end_id].view(prompts, 2)


def _log_rest(logprob: torch.Tensor) -> torch.Tensor:
    """log(1 - exp(logprob)), finite where the probability is 1."""
    return torch.log1p(-logprob.exp().clamp(max=1 - 1e-6))


def _new_cache() -> Any:
    from transformers import DynamicCache

    return DynamicCache()
