"""What is usual in weight space among the adapters of a home: ``python benchmarks/calibrate.py HOME [--write]``.

Reads every adapter of the home's store that is for the default base and passes the tensor checks, prints the range of
each statistic and how many of the population would be warned about if they had been left out of it (leave one out).
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

from ecology.contracts.artifact import CONFIG_FILE, WEIGHTS_FILE
from ecology.contracts.policy import AdapterLimits
from ecology.errors import EcologyError
from ecology.gate import anomaly, tensors
from ecology.gate.configuration import check_configuration
from ecology.gate.weighing import weigh
from ecology.kernel.canonical import canonical
from ecology.pipeline.bench import known_base
from ecology.pipeline.house import open_house
from ecology.store.header import header_of


def main() -> None:
    """Reads the command line, calibrates, prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("home", type=Path)
    parser.add_argument("--write", action="store_true", help="keep the calibration with the package")
    options = parser.parse_args()
    base = known_base("smollm2-135m", open_house(None, quiet=True))
    population = []
    for folder in sorted((options.home / "store" / "artifacts").glob("[0-9a-f]*")):
        config = json.loads((folder / CONFIG_FILE).read_bytes())
        data = (folder / WEIGHTS_FILE).read_bytes()
        if check_configuration(config, AdapterLimits()):
            continue
        try:
            stream = io.BytesIO(data)
            header = header_of(stream, len(data), folder / WEIGHTS_FILE)
            meant, wrong = tensors.implied(config, base.tensor_schema, CONFIG_FILE)
            wrong = wrong or tensors.check_keys(header, meant, base.tensor_schema, AdapterLimits())
            changes = () if wrong else weigh(stream, header, meant, AdapterLimits()).changes
            said = anomaly.statistics(changes, base.weight_norms)
        except EcologyError:
            continue
        if said:
            population.append(said)
            print(folder.name[:16], {name: round(value, 4) for name, value in said.items()})
    warned = sum(
        bool(
            anomaly.anomalies(one, anomaly.calibrated(population[:i] + population[i + 1 :], base.identity.base_weights))
        )
        for i, one in enumerate(population)
    )
    found = anomaly.calibrated(population, base.identity.base_weights)
    print(f"{len(population)} adapters; left out of it, {warned} of them would be warned about")
    for name, (low, high) in found.ranges.items():
        print(f"{name:<14} {low:.4g} to {high:.4g}")
    if options.write:
        folder = Path(anomaly.__file__).parent / "calibrations"
        folder.mkdir(exist_ok=True)
        name = f"{base.identity.base_weights.removeprefix('sha256:')[:16]}.json"
        rounded = {key: [round(low, 6), round(high, 6)] for key, (low, high) in found.ranges.items()}
        said = {"base_weights": found.base_weights, "population": found.population, "ranges": rounded}
        (folder / name).write_bytes(canonical(said))


if __name__ == "__main__":
    main()
