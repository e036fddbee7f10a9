"""Checks values.yaml against the schema of the official Dagster chart, as Helm does before it installs.

    helm pull dagster/dagster --version 1.13.27 --untar
    .venv/bin/python deploy/kubernetes/check_values.py dagster/values.schema.json

What lives here: the check alone. Nothing is installed and nobody is asked: what the schema refers to elsewhere, as for
parts that Kubernetes defines, is left to Helm. The chart is not part of this project.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from jsonschema.exceptions import best_match
from jsonschema.validators import validator_for

VALUES: Final = Path(__file__).with_name("values.yaml")


def main() -> int:
    """Prints what is wrong, one line each; 1 if something is."""
    arguments = _arguments()
    schema = json.loads(arguments.schema.read_text(encoding="utf-8"))
    defaults = yaml.safe_load(arguments.schema.with_name("values.yaml").read_text(encoding="utf-8"))
    values = yaml.safe_load(arguments.values.read_text(encoding="utf-8"))
    found = faults(laid_over(defaults, values), schema=schema)
    sys.stdout.writelines(f"{arguments.values}: {fault}\n" for fault in found)
    return 1 if found else 0


def faults(values: Mapping[str, Any], *, schema: Mapping[str, Any]) -> list[str]:
    """What the schema refuses: where, and why. Empty if nothing is wrong."""
    own = _without_references_elsewhere(schema)
    errors = validator_for(own)(own).iter_errors(values)
    closest = [best_match([error]) or error for error in errors]  # of alternatives, the one that fits best
    return sorted(f"{error.json_path}: {error.message}" for error in closest)


def laid_over(defaults: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that Helm validates and uses: maps are merged, null takes a default away, all else replaces it."""
    merged = dict(defaults)
    for name, value in values.items():
        default = defaults.get(name)
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, Mapping) and isinstance(default, Mapping):
            merged[name] = laid_over(default, value)
        else:
            merged[name] = value
    return merged


def _without_references_elsewhere(part: Any) -> Any:
    if isinstance(part, Mapping):
        kept = {name: value for name, value in part.items() if not (name == "$ref" and str(value).startswith("http"))}
        return {name: _without_references_elsewhere(value) for name, value in kept.items()}
    return [_without_references_elsewhere(item) for item in part] if isinstance(part, list) else part


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Check values against the schema of the official Dagster chart.")
    parser.add_argument("schema", type=Path, help="the chart's values.schema.json, with its values.yaml beside it")
    parser.add_argument("values", type=Path, nargs="?", default=VALUES, help="default: the values.yaml of this folder")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
