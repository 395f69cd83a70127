"""Fit `probability` to judged candidates: sigmoid(slope * margin + intercept). The order of results never changes.

Candidates without a judgment count as not relevant. The probability is therefore that of a first-stage candidate being
judged relevant or, with --prior 0.5, what it would be if half of the candidates were. Fits on half of the queries,
chosen by a hash of their ids, and reports calibration error and log loss before and after on the other half. The two
numbers go into the checkpoint's prorank.json.

  prorank calibrate --model runs/refined/best --data DATA/nfcorpus --split dev
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from prorank.cli._model import add_model_arguments, load_options, load_reranker, positive, share
from prorank.cli._queries import add_query_arguments, chosen_queries
from prorank.pipeline.checks import folder_writable, installed, models_known
from prorank.progress import progress_bar

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from prorank.data.collection import Collection
    from prorank.pipeline.queries import Candidates

__all__ = ["add_arguments", "run"]

_SALT = "calibrate:"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``prorank calibrate``."""
    add_query_arguments(parser, split="dev", candidates=20)
    parser.add_argument(
        "--held-out", action="store_true", help="use only queries that training held out (by their ids)"
    )
    parser.add_argument(
        "--min-relevance",
        type=positive,
        default=1,
        metavar="N",
        help="lowest grade that counts as relevant (default: 1)",
    )
    parser.add_argument(
        "--prior",
        type=share,
        metavar="SHARE",
        help="share of relevant candidates, between 0 and 1 (default: the data's)",
    )
    parser.add_argument("--dry-run", action="store_true", help="report without changing the checkpoint")
    add_model_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Score, fit, report, write."""
    import numpy as np

    from prorank.evaluate.calibration import fit_probability, prior_weights
    from prorank.evaluate.expressiveness import expected_calibration_error, reliability_bins
    from prorank.model.checkpoint import built_in_rerankers, checkpoint_folder
    from prorank.model.manifest import read_manifest, write_manifest
    from prorank.reranker import default_model
    from prorank.scoring import probability

    name = args.model or default_model()
    folder = checkpoint_folder(name)
    manifest = read_manifest(folder)
    if manifest is None:
        raise ValueError(f"--model: {name} is not a prorank checkpoint folder")
    if name in built_in_rerankers() and not args.dry_run:
        raise ValueError(f"--model: {name} comes with the package and cannot be changed; pass --dry-run, or a folder")
    installed("scipy", extra="evaluate")
    if not args.dry_run:
        folder_writable("--model", folder)
    models_known(load_options(args), [name])
    jobs = _jobs(args)
    reranker = load_reranker(args)
    margins, relevant, fitted_on = _scored(args, jobs, reranker)
    slope, intercept = fit_probability(margins[fitted_on], relevant[fitted_on], prior=args.prior)
    rest = ~fitted_on
    weights = prior_weights(relevant[rest], args.prior)
    print(f"{int(fitted_on.sum())} pairs fitted on, {int(rest.sum())} others, {relevant.mean():.1%} relevant")
    for label, parameters in (("as it is", reranker.calibration), ("fitted", (slope, intercept))):
        p = np.clip(probability(margins[rest], *parameters), 1e-12, 1 - 1e-12)
        y = relevant[rest]
        log_loss = float(-(weights * np.where(y, np.log(p), np.log1p(-p))).mean())
        error = expected_calibration_error(reliability_bins(p, y, weights=weights))
        print(f"{label:<12} calibration error {error:.4f}   log loss {log_loss:.4f}")
    print(f"probability = sigmoid({slope:.4f} * margin {intercept:+.4f})")
    if not args.dry_run:
        write_manifest(folder, replace(manifest, calibration=(slope, intercept), calibration_prior=args.prior))
    return 0


def _jobs(args: argparse.Namespace) -> list[Candidates]:
    """Judged queries with candidates.

    Raises:
        ValueError: there are none.
    """
    from prorank.training.held_out import is_held_out

    def accepts(collection: Collection, query_id: str) -> bool:
        return query_id in collection.qrels and (not args.held_out or is_held_out(query_id, 0.1))

    return chosen_queries(args, "dev", salt=_SALT, accepts=accepts)


def _scored(
    args: argparse.Namespace, jobs: list[Candidates], reranker: Any
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Margins, whether relevant, and whether to be fitted on, of every judged query's candidates."""
    import numpy as np

    from prorank.pipeline.queries import hash_of

    margins: list[Any] = []
    relevant: list[bool] = []
    fitted_on: list[bool] = []
    with progress_bar("scoring", len(jobs)) as advance:
        for job in jobs:
            margins.extend(reranker.margins(job.query, job.texts, instruction=args.instruction))
            judged = job.collection.qrels[job.query_id]
            relevant += [judged.get(d, 0) >= args.min_relevance for d in job.doc_ids]
            fitted_on += [int(hash_of(_SALT + job.query_id)[-1], 16) % 2 == 0] * len(job.doc_ids)
            if advance is not None:
                advance(1)
    return np.array(margins, dtype=np.float64), np.array(relevant), np.array(fitted_on)
