"""The commands about objects, files of jobs, secrets and the audit log, as data."""

from __future__ import annotations

from typing import Final

from casemate.cli.arguments import Argument, Command, Example, Option
from casemate.cli.operating_commands import HELP
from casemate.cli.service_commands import COMMON, LIMIT

_OBJECTS: Final = "casemate.cli.objects"
KEY: Final = Argument(metavar="KEY", help="shared/PATH, templates/PATH or jobs/ID/AREA/PATH")
JOB: Final = Argument(metavar="ID", help="the job")
QUIET: Final = Option(names=("--quiet",), group="Transfer", help="show no bar, which is shown on a terminal alone")
TARGET: Final = Argument(metavar="FILE", help="where it goes; `-` is stdout; the name's last part unless given")
LIST: Final = Command(
    name="objects list",
    module=_OBJECTS,
    function="list_objects",
    optional=1,
    summary="list objects",
    arguments=(Argument(metavar="PREFIX", help="what their keys begin with; all unless given"),),
    options=(LIMIT, *COMMON),
    examples=(Example("casemate objects list shared/", "what jobs may share"),),
)
PUT: Final = Command(
    name="objects put",
    module=_OBJECTS,
    function="put_object",
    optional=0,
    summary="send a file",
    about="Sends a file, in the place of what was there. A large one goes in parts, of which one that is lost is sent "
    "again, and takes its place when all of it is there.",
    arguments=(Argument(metavar="FILE", help="the file; `-` is stdin", values="file"), KEY),
    options=(QUIET, *COMMON),
    examples=(Example("casemate objects put prices.csv shared/prices.csv", "for jobs that name it"),),
)
GET: Final = Command(
    name="objects get",
    module=_OBJECTS,
    function="get_object",
    optional=1,
    summary="get an object",
    about="Writes an object into a file, which is there when all of it has come and its digest is right. Where the way "
    "breaks off, it goes on from there.",
    arguments=(KEY, TARGET),
    options=(QUIET, *COMMON),
    examples=(Example("casemate objects get shared/prices.csv", "into prices.csv"),),
)
DELETE: Final = Command(
    name="objects delete",
    module=_OBJECTS,
    function="delete_object",
    optional=0,
    summary="delete an object, for good",
    arguments=(KEY,),
    options=COMMON,
)
SIGN: Final = Command(
    name="objects sign",
    module=_OBJECTS,
    function="sign_object",
    optional=0,
    summary="print an address that stands for one object, without a key",
    about="Whoever has the address can get the object, or put it, until it expires or the key that has signed it ends.",
    arguments=(KEY,),
    options=(
        Option(names=("--put",), group="Address", help="for putting it; unless given for getting it"),
        Option(
            names=("--expires",), metavar="TIME", group="Address", default="1h", help="how long it is good: 10m, 7d"
        ),
        Option(
            names=("--max",),
            metavar="SIZE",
            group="Address",
            help="how large what is put may be: 512Mi; with --direct exactly that",
        ),
        Option(names=("--direct",), group="Address", help="at the object store itself, where that is S3"),
        *COMMON,
    ),
    examples=(Example("casemate objects sign shared/prices.csv --expires 10m", "for somebody without a key"),),
)
JOB_FILES: Final = Command(
    name="jobs files",
    module=_OBJECTS,
    function="list_files",
    optional=0,
    summary="list the files of a job",
    arguments=(JOB,),
    options=(
        Option(names=("--area",), metavar="AREA", group="Which", help="input, output, logs or artifacts"),
        LIMIT,
        *COMMON,
    ),
    examples=(Example("casemate jobs files nightly --area output", "what it has put out"),),
)
JOB_PATH: Final = Argument(metavar="PATH", help="AREA/PATH, or the path of an output")
JOB_GET: Final = Command(
    name="jobs get",
    module=_OBJECTS,
    function="get_file",
    optional=1,
    summary="get a file of a job",
    arguments=(JOB, JOB_PATH, TARGET),
    options=(QUIET, *COMMON),
    examples=(Example("casemate jobs get nightly report.html", "the output of that name"),),
)
JOB_PUT: Final = Command(
    name="jobs put",
    module=_OBJECTS,
    function="put_file",
    optional=0,
    summary="put a file beside a job, into its artifacts",
    arguments=(JOB, Argument(metavar="FILE", help="the file; `-` is stdin", values="file"), JOB_PATH),
    options=(QUIET, *COMMON),
    examples=(Example("casemate jobs put nightly notes.txt notes.txt", "as artifacts/notes.txt"),),
)
ROTATE: Final = Command(
    name="objects rotate-key",
    module=_OBJECTS,
    function="rotate_key",
    optional=0,
    summary="put a new master key before those that objects on this machine are encrypted with",
    about="What is written from the next start of the service on needs the new key; what was written before can "
    "still be read. For the user whose service it is, on its machine.",
    options=(
        Option(
            names=("--data",), metavar="DIR", values="directory", group="Service", help="the service's data directory"
        ),
        HELP,
    ),
)
SECRET_NAME: Final = Argument(metavar="NAME", help="of the variable that jobs find it in")
SECRETS_SET: Final = Command(
    name="secrets set",
    module=_OBJECTS,
    function="set_secret",
    optional=0,
    summary="set a secret from stdin, or from a file",
    about="Jobs that name the secret find it as a variable. Nothing shows it again. The value comes from stdin, "
    "without its last newline: a value on a command line could be seen by others.",
    arguments=(SECRET_NAME,),
    options=(
        Option(names=("--from",), metavar="FILE", values="file", group="Secret", help="the file that it is in"),
        *COMMON,
    ),
    examples=(Example("casemate secrets set API_TOKEN < token.txt", "for jobs with `secrets: [API_TOKEN]`"),),
)
SECRETS_LIST: Final = Command(
    name="secrets list",
    module=_OBJECTS,
    function="list_secrets",
    optional=0,
    summary="list the secrets, without what they are",
    options=COMMON,
)
SECRETS_DELETE: Final = Command(
    name="secrets delete",
    module=_OBJECTS,
    function="delete_secret",
    optional=0,
    summary="forget a secret",
    arguments=(SECRET_NAME,),
    options=COMMON,
)
AUDIT_LIST: Final = Command(
    name="audit list",
    module=_OBJECTS,
    function="list_audit",
    optional=0,
    summary="show who has done what, youngest first",
    options=(
        Option(names=("--action",), metavar="ACTION", group="Which", help="what it begins with: objects., jobs.submit"),
        Option(names=("--tenant",), metavar="ID", group="Which", help="one tenant's; for the operator's keys"),
        LIMIT,
        *COMMON,
    ),
    examples=(Example("casemate audit list --action keys. --limit 20", "what became of keys"),),
)
AUDIT_VERIFY: Final = Command(
    name="audit verify",
    module=_OBJECTS,
    function="verify_audit",
    optional=0,
    summary="look whether the audit log is what was written",
    options=COMMON,
    notes=("Exit status: 0 when it is, 1 when it is not; then the first record that is not as it was is named.",),
)
JOB_COMMANDS: Final = (JOB_FILES, JOB_GET, JOB_PUT)
COMMANDS: Final = {
    command.name: command
    for command in (
        *(LIST, PUT, GET, DELETE, SIGN, ROTATE),
        *(SECRETS_SET, SECRETS_LIST, SECRETS_DELETE),
        *(AUDIT_LIST, AUDIT_VERIFY),
    )
}
