"""Prints the scores of the rule-based drafter: `python -m ss_pipeline.evaluation [FOLDER]`."""

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Final

from ss_pipeline.evaluation.drafts import evaluate, table
from ss_pipeline.llm.rules.client import RuleDrafter

DEFAULT_FOLDER: Final = Path("../shared/corpus")


def main() -> int:
    """Runs the benchmark in the folder given; exit code 2 where the folder has none."""
    parser = argparse.ArgumentParser(prog="python -m ss_pipeline.evaluation", description=__doc__)
    parser.add_argument(
        "folder",
        type=Path,
        nargs="?",
        default=DEFAULT_FOLDER,
        help=f"the folder with drafts.jsonl and datasets.json (default {DEFAULT_FOLDER})",
    )
    folder: Path = parser.parse_args().folder
    if not (folder / "drafts.jsonl").is_file():
        sys.stderr.write(f"there is no drafts.jsonl in {folder}\n")
        return 2
    sys.stdout.write(table(asyncio.run(evaluate(RuleDrafter(), folder))) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
