"""The dashboard's place in the service."""

from __future__ import annotations

from fastapi import FastAPI

from casemate.dashboard.pages import entrance, executions, functions, jobs, operation, tenants
from casemate.dashboard.site import Site
from casemate.executions.service import Executions
from casemate.store.database import Database
from casemate.tenancy.tenants import Tenancy


def mount(app: FastAPI, tenancy: Tenancy, running: Executions, database: Database) -> Site:
    """Add the pages to the application whose API they ask. They are not part of its OpenAPI document."""
    site = Site(app, tenancy, running, database)
    for module in (entrance, executions, functions, jobs, operation, tenants):
        app.router.routes.extend(module.routes(site))
    return site
