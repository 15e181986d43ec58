"""`casemate jobs`: submit jobs to a service, and look after them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from casemate.cli import options
from casemate.cli.arguments import Parsed, UsageError
from casemate.cli.functions import code_of, language_of
from casemate.cli.messages import printable, say, show, show_json
from casemate.cli.service import (
    client_of,
    document,
    labels_of,
    limit_of,
    number_of,
    show_facts,
    show_rows,
    show_value,
    text_of,
)
from casemate.errors import InvalidInput
from casemate.model.job_told import JobQueue, JobRecord
from casemate.service_limits import SERVICE_REQUEST_MAX_BYTES

if TYPE_CHECKING:
    from casemate.sdk.client import Client

SHOWN: Final = 50
FILTERS: Final = ("state", "reason", "schedule", "since", "until")
TIMED_OUT: Final = 124
CANCELLED: Final = 130
RAISED_BY: Final = {
    "timeout": "--timeout",
    "memory": "--memory",
    "cpu": "--cpu-time",
    "processes": "--processes",
    "disk": "--disk",
}
"""The option for the limit that a reason names."""
_FACTS: Final = (
    *("id", "state", "reason", "exit_code", "command", "runtime", "labels", "attempt", "attempts_max", "lost"),
    *("created_at", "started_at", "ended_at", "wall_s", "schedule_id", "template", "request_id"),
)


def submit(parsed: Parsed) -> int:
    """Its id, or with `--wait` what it prints and its status."""
    with client_of(parsed) as client:
        body = job_of(parsed, "jobs submit")
        made = client.jobs.submit_document({**body, **_given(id=parsed.one("id"))})
        return _told(parsed, client, made)


def _told(parsed: Parsed, client: Client, job: JobRecord) -> int:
    if parsed.flag("wait"):
        return _waited(parsed, client, job)
    show_value(parsed, job, printable(job.id))
    return 0


def _waited(parsed: Parsed, client: Client, job: JobRecord) -> int:
    from casemate.cli.job_logs import write_entry

    if not parsed.flag("json"):
        for entry in client.logs.follow(job.id):
            write_entry(entry, sys.stderr if entry.stream == "stderr" else sys.stdout)
    ended = client.jobs.wait(job.id)
    if parsed.flag("json"):
        show_json(document(ended))
    elif not ended.ok:
        say(f"{printable(ended.id)} {how_it_ended(ended)}")
    return status_of(ended)


def how_it_ended(job: JobRecord) -> str:
    """In a few words, and with what the service or the sandbox has to say about it."""
    if job.state == job.reason:
        return f"is {job.state}"
    why = f"exit code {job.exit_code}" if job.reason == "exit" else str(job.reason)
    attempts = f" at attempt {job.attempt} of {job.attempts_max}" if job.attempts_max > 1 else ""
    return f"is {job.state}: {why}{attempts}{_more(job)}"


def _more(job: JobRecord) -> str:
    if job.reason in RAISED_BY:
        return f"; raise the limit with {RAISED_BY[job.reason]}"
    error = (job.result or {}).get("error")
    return f": {printable(error['message'])}" if error else ""


def status_of(job: JobRecord) -> int:
    """The exit status that says how a job ended."""
    if job.ok:
        return 0
    if job.state == "cancelled":
        return CANCELLED
    if job.reason == "timeout":
        return TIMED_OUT
    return job.exit_code or 1


def list_jobs(parsed: Parsed) -> int:
    """Youngest first."""
    limit = limit_of(parsed, "jobs list", SHOWN)
    with client_of(parsed) as client:
        text = parsed.one("text")
        asked = {name: parsed.one(name) for name in FILTERS}
        if text is None:
            found = client.jobs.list(**asked, label=parsed.all("label"), limit=limit)
        elif any(asked.values()) or parsed.all("label"):
            raise UsageError("jobs list", "--text goes with --limit alone")
        else:
            found = client.jobs.find(text, limit=limit)
        show_jobs(parsed, found)
    return 0


def show_jobs(parsed: Parsed, found: Any) -> None:  # noqa: ANN401 - any number of jobs
    """As a table."""
    columns = {
        "ID": lambda each: each.id,
        "STATE": lambda each: each.state,
        "REASON": lambda each: each.reason,
        "ATTEMPT": lambda each: each.attempt,
        "CREATED": lambda each: each.created_at,
        "COMMAND": lambda each: " ".join(each.command)[:60] or each.runtime,
    }
    show_rows(parsed, found, columns)


def show_job(parsed: Parsed) -> int:
    """One of them."""
    with client_of(parsed) as client:
        if parsed.flag("wait"):
            return _waited(parsed, client, client.jobs.get(parsed.words[0]))
        found = client.jobs.get(parsed.words[0])
    show_facts(parsed, found, {name: getattr(found, name) for name in _FACTS})
    if not parsed.flag("json"):
        show(["", *(_step(each) for each in found.transitions or ())])
        _show_error(found)
        _show_events(found)
    return 0


def _step(each: Any) -> str:  # noqa: ANN401 - a JobStep
    return printable(f"{text_of(each.at)} {each.state:<10} {each.detail}".rstrip())


def _show_error(job: JobRecord) -> None:
    error = (job.result or {}).get("error")
    if error:
        show(["", printable(f"{error['type']}: {error['message']}")])


def _show_events(job: JobRecord) -> None:
    events = (job.result or {}).get("events")
    if events:
        show(["", *(printable(f"event {each['kind']}: {each['detail']}") for each in events)])


def cancel(parsed: Parsed) -> int:
    """End it."""
    with client_of(parsed) as client:
        found = client.jobs.cancel(parsed.words[0])
    show_value(parsed, found, f"{printable(found.id)} is {found.state}")
    return 0


def rerun(parsed: Parsed) -> int:
    """The new one's id."""
    with client_of(parsed) as client:
        return _told(parsed, client, client.jobs.rerun(parsed.words[0], id=parsed.one("id")))


def delete(parsed: Parsed) -> int:
    """Forget it."""
    with client_of(parsed) as client:
        client.jobs.delete(parsed.words[0])
    if not parsed.flag("json"):
        say(f"{printable(parsed.words[0])} is forgotten")
    return 0


def dead(parsed: Parsed) -> int:
    """List them, or queue one again."""
    action, *words = parsed.words or ("list",)
    if (action, len(words)) not in {("list", 0), ("retry", 1)}:
        raise UsageError("jobs dead", "write `jobs dead`, or `jobs dead retry ID`")
    with client_of(parsed) as client:
        if action == "retry":
            again = client.jobs.retry(words[0])
            show_value(parsed, again, f"{printable(again.id)} is {again.state}")
        else:
            limit = limit_of(parsed, "jobs dead", SHOWN)
            show_jobs(parsed, client.jobs.dead(limit=limit))
    return 0


def queue(parsed: Parsed) -> int:
    """Show it, or hold it back."""
    action = parsed.words[0] if parsed.words else "show"
    with client_of(parsed) as client:
        if action == "show":
            found = client.jobs.queue()
        elif action in {"pause", "resume"}:
            turn = client.jobs.pause if action == "pause" else client.jobs.resume
            found = turn(all=parsed.flag("all"))
        else:
            raise UsageError("jobs queue", f"unknown action {action!r}; there are show, pause and resume")
    _show_queue(parsed, found)
    return 0


def _show_queue(parsed: Parsed, found: JobQueue) -> None:
    names = ("waiting", "active", "dead", "paused", "all_paused")
    show_facts(parsed, found, {name: getattr(found, name) for name in names})


# What is asked for ----------------------------------------------------------------------------------


def job_of(parsed: Parsed, command: str) -> dict[str, Any]:
    """A job as the service takes it, from options and words. What is given by option comes before a file."""
    written = _written(parsed)
    words = list(parsed.rest or ())
    if parsed.flag("shell") and len(words) != 1:
        raise UsageError(command, "give the text for the shell as one word")
    path = parsed.one("code")
    code = None if path is None else code_of(path)
    if not (words or code or written or parsed.one("template")):
        raise UsageError(command, "give a command after --")
    limits = options.limits_of(parsed)
    timeout = limits.pop("timeout", None)
    hosts = list(parsed.all("allow"))
    own = _given(
        command=(words[0] if parsed.flag("shell") else words) or None,
        shell=parsed.flag("shell") or None,
        code=code,
        runtime=parsed.one("runtime") or _guessed(parsed, written, code),
        template=parsed.one("template"),
        environment=options.environment_of(parsed) or None,
        secrets=list(parsed.all("secret")) or None,
        timeout=timeout,
        resources=limits or None,
        network={"outbound": True, "allowed_hosts": hosts} if hosts else None,
        files=_files(parsed) or None,
        shared=list(parsed.all("shared")) or None,
        collect=list(parsed.all("collect")) or None,
        priority=number_of(parsed.one("priority"), "--priority", command),
        retries=_retries(parsed, command),
        labels=labels_of(parsed),
    )
    return {**written, **own}


def _given(**values: object) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _written(parsed: Parsed) -> dict[str, Any]:
    path = parsed.one("from")
    if path is None:
        return {}
    data = options.read_file(path, SERVICE_REQUEST_MAX_BYTES, field="from")
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput("from", f"{path[:200]!r} is no object of JSON: {error}") from error


def _guessed(parsed: Parsed, written: dict[str, Any], code: str | None) -> str | None:
    """The language of `--code`, unless a file or a template may say it."""
    if code is None or {"runtime", "template"} & set(written) or parsed.one("template"):
        return None
    return language_of(str(parsed.one("code")), code)


def _files(parsed: Parsed) -> list[dict[str, Any]]:
    found = [_file(inside, source) for inside, source in options.files_of(parsed).items()]
    for word in parsed.all("object"):
        name, colon, target = word.rpartition(":")
        if not (name and colon and target):
            raise InvalidInput("object", f"{word[:80]!r} is not NAME:DST")
        found.append({"path": target, "object": name})
    return found


def _file(inside: str, source: Path) -> dict[str, Any]:
    import binascii

    data = options.read_file(str(source), SERVICE_REQUEST_MAX_BYTES, field="file")
    mode = f"{source.stat().st_mode & 0o777:04o}"
    return {"path": inside, "content": {"base64": binascii.b2a_base64(data, newline=False).decode()}, "mode": mode}


def _retries(parsed: Parsed, command: str) -> dict[str, Any] | None:
    count = number_of(parsed.one("retries"), "--retries", command)
    if count is None and parsed.one("backoff") is not None:
        raise UsageError(command, "--backoff needs --retries")
    return _given(max=count, backoff=parsed.one("backoff")) if count is not None else None
