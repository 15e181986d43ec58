"""Casemate runs code that nobody should trust, on machines that people care about.

The public names are loaded when they are first asked for: whoever needs one does not pay for all.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from casemate.config import Config, EngineConfig, PoolConfig, load_config, read_config
    from casemate.engine.api import AsyncStream, Stream, aexecute, arun, astream, execute, run, stream
    from casemate.engine.async_sandbox import AsyncSandbox, AsyncTerminal
    from casemate.engine.cancel import CancelToken
    from casemate.engine.check import acheck_syntax, check_syntax
    from casemate.engine.engine import Engine
    from casemate.engine.fork import AsyncFork, Fork
    from casemate.engine.items import arun_items, run_items
    from casemate.engine.sandbox import Sandbox, Terminal
    from casemate.errors import (
        AddressRefused,
        BudgetExceeded,
        BuildFailed,
        CapacityError,
        CasemateError,
        ConfigError,
        Conflict,
        FileTransferError,
        InternalError,
        InvalidInput,
        LaunchError,
        LayerMissing,
        NodeLost,
        NodeUnavailable,
        NotAllowed,
        NotFound,
        PermissionDenied,
        RecordsDamaged,
        RecordsUnavailable,
        RuntimeUnavailable,
        SandboxClosed,
        ServiceError,
        ServiceUnavailable,
        SetDamaged,
        StateLost,
        TooManyRequests,
        Unauthenticated,
        UnknownRuntime,
    )
    from casemate.model.debug import Debug, DebugRecord
    from casemate.model.display import Display
    from casemate.model.flow import Flow
    from casemate.model.function import Item, ItemResult, Source
    from casemate.model.layers import Layer, Tier
    from casemate.model.network import Injection, NetworkPolicy
    from casemate.model.packages import PackageSet
    from casemate.model.resources import Limits
    from casemate.model.result import Chunk, Event, GuestError, Isolation, OutputFile, Reason, Result, Status, Usage
    from casemate.model.runtime import Ability, Channel, Runtime
    from casemate.model.service import Execution, Function, FunctionVersion, Invocation
    from casemate.model.syntax import SyntaxReport
    from casemate.model.workers import WorkersReport
    from casemate.sdk.async_client import AsyncClient, AsyncServiceStream
    from casemate.sdk.client import Client, ServiceStream
    from casemate.sets.api import Sets

__version__ = "0.1.0"

__all__ = [
    "Ability",
    "AddressRefused",
    "AsyncClient",
    "AsyncFork",
    "AsyncSandbox",
    "AsyncServiceStream",
    "AsyncStream",
    "AsyncTerminal",
    "BudgetExceeded",
    "BuildFailed",
    "CancelToken",
    "CapacityError",
    "CasemateError",
    "Channel",
    "Chunk",
    "Client",
    "Config",
    "ConfigError",
    "Conflict",
    "Debug",
    "DebugRecord",
    "Display",
    "Engine",
    "EngineConfig",
    "Event",
    "Execution",
    "FileTransferError",
    "Flow",
    "Fork",
    "Function",
    "FunctionVersion",
    "GuestError",
    "Injection",
    "InternalError",
    "InvalidInput",
    "Invocation",
    "Isolation",
    "Item",
    "ItemResult",
    "LaunchError",
    "Layer",
    "LayerMissing",
    "Limits",
    "NetworkPolicy",
    "NodeLost",
    "NodeUnavailable",
    "NotAllowed",
    "NotFound",
    "OutputFile",
    "PackageSet",
    "PermissionDenied",
    "PoolConfig",
    "Reason",
    "RecordsDamaged",
    "RecordsUnavailable",
    "Result",
    "Runtime",
    "RuntimeUnavailable",
    "Sandbox",
    "SandboxClosed",
    "ServiceError",
    "ServiceStream",
    "ServiceUnavailable",
    "SetDamaged",
    "Sets",
    "Source",
    "StateLost",
    "Status",
    "Stream",
    "SyntaxReport",
    "Terminal",
    "Tier",
    "TooManyRequests",
    "Unauthenticated",
    "UnknownRuntime",
    "Usage",
    "WorkersReport",
    "acheck_syntax",
    "aexecute",
    "arun",
    "arun_items",
    "astream",
    "check_syntax",
    "execute",
    "load_config",
    "read_config",
    "run",
    "run_items",
    "stream",
]

if not TYPE_CHECKING:
    _HOMES: Final = {
        name: module
        for module, names in (
            ("config", "Config EngineConfig PoolConfig load_config read_config"),
            ("engine.api", "AsyncStream Stream aexecute arun astream execute run stream"),
            ("engine.async_sandbox", "AsyncSandbox AsyncTerminal"),
            ("engine.cancel", "CancelToken"),
            ("engine.check", "acheck_syntax check_syntax"),
            ("engine.engine", "Engine"),
            ("engine.fork", "AsyncFork Fork"),
            ("engine.items", "arun_items run_items"),
            ("engine.sandbox", "Sandbox Terminal"),
            ("errors", "BuildFailed CapacityError CasemateError ConfigError FileTransferError InternalError"),
            ("errors", "Conflict InvalidInput NodeLost NodeUnavailable NotFound PermissionDenied ServiceUnavailable"),
            ("errors", "RecordsDamaged RecordsUnavailable SetDamaged StateLost TooManyRequests Unauthenticated"),
            ("errors", "AddressRefused BudgetExceeded NotAllowed ServiceError"),
            ("errors", "LaunchError LayerMissing RuntimeUnavailable SandboxClosed UnknownRuntime"),
            ("model.debug", "Debug DebugRecord"),
            ("model.display", "Display"),
            ("model.flow", "Flow"),
            ("model.function", "Item ItemResult Source"),
            ("model.layers", "Layer Tier"),
            ("model.network", "Injection NetworkPolicy"),
            ("model.packages", "PackageSet"),
            ("model.resources", "Limits"),
            ("model.result", "Chunk Event GuestError Isolation OutputFile Reason Result Status Usage"),
            ("model.runtime", "Ability Channel Runtime"),
            ("model.workers", "WorkersReport"),
            ("model.syntax", "SyntaxReport"),
            ("model.service", "Execution Function FunctionVersion Invocation"),
            ("sdk.async_client", "AsyncClient AsyncServiceStream"),
            ("sdk.client", "Client ServiceStream"),
            ("sets.api", "Sets"),
        )
        for name in names.split()
    }

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
