"""The command and the environment that the chart gives the code location: they start it, and it answers its probe."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ss_pipeline_tests.conftest import PROJECT_ROOT
from ss_pipeline_tests.servers import new_database
from ss_pipeline_tests.stacks import free_port, wait_for

pytestmark = pytest.mark.stack


def test_the_code_location_of_the_chart_starts_and_answers_its_probe(tmp_path: Path) -> None:
    values = yaml.safe_load((PROJECT_ROOT / "deploy" / "kubernetes" / "values.yaml").read_text(encoding="utf-8"))
    [code] = values["dagster-user-deployments"]["deployments"]
    secrets = {"SS_JOB_STORE_POSTGRES_DSN": new_database()}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SS_")}
    environment = inherited | code["env"] | secrets | {"DAGSTER_HOME": str(tmp_path)}
    dagster = [str(Path(sys.executable).with_name("dagster")), "api"]
    port = ["-p", str(free_port())]

    def answers() -> bool:
        asked = subprocess.run([*dagster, "grpc-health-check", *port], capture_output=True, check=False)
        return asked.returncode == 0

    command = [*dagster, "grpc", "-h", "127.0.0.1", *port, *code["dagsterApiGrpcArgs"]]
    with subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.DEVNULL) as server:
        try:
            wait_for(answers, 120)
            assert server.poll() is None
        finally:
            server.terminate()
