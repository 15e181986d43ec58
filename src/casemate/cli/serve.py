"""`casemate serve`: the service, until it is told to end."""

from __future__ import annotations

import gc
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from casemate.cli.arguments import Parsed
from casemate.cli.messages import say
from casemate.config import CONFIG_VARIABLE, load_config
from casemate.egress.settings import settings_of
from casemate.errors import ConfigError
from casemate.jobs.config import load_jobs
from casemate.service_config import SERVICE_PREFIX, Service, load_service
from casemate.tenancy.destinations import configured

AS_VARIABLES: Final = {
    "data": f"{SERVICE_PREFIX}DATA",
    "host": f"{SERVICE_PREFIX}HOST",
    "port": f"{SERVICE_PREFIX}PORT",
    "config": CONFIG_VARIABLE,
}
PATHS: Final = ("data", "config")


def command(parsed: Parsed) -> int:
    """Serve, or only check; 0 unless something is wrong, which is raised."""
    environment = environment_with(parsed)
    config = load_config(environment)
    service = load_service(config, environment)
    load_jobs(config, environment)
    configured(service.accounting.webhook_hosts)
    settings_of(config.network)
    _check_driver(service)
    if parsed.flag("check"):
        say("the configuration is right")
        return 0
    _serve(service, environment)
    return 0


def _check_driver(service: Service) -> None:
    """Before anything is started: what is not installed does not come by starting again."""
    if service.database and find_spec("psycopg") is None:
        raise ConfigError("service.database", "PostgreSQL needs the package psycopg", hint="install casemate[postgres]")


def environment_with(parsed: Parsed) -> dict[str, str]:
    """Our environment with what the options say: whatever is started finds all of it in one place."""
    environment = dict(os.environ)
    for option, variable in AS_VARIABLES.items():
        value = parsed.one(option)
        if value is not None:
            environment[variable] = str(Path(value).absolute()) if option in PATHS else value
    return environment


def _serve(service: Service, environment: dict[str, str]) -> None:
    from casemate.cluster.supervisor import Supervisor  # a check does without

    gc.enable()
    Supervisor(service, environment, say).run()
    say("ended")
