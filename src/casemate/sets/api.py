"""`casemate.Sets`: package sets as a small Python API; the command line does no more than call it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from casemate import limits as bound
from casemate.config import data_directory
from casemate.engine.engine import Engine, default_engine
from casemate.engine.request import LimitsLike, check_limits
from casemate.errors import BuildFailed, InvalidInput
from casemate.model.packages import PackageSet, Recipe, check_preload, check_set_name
from casemate.runtimes.registry import DEFAULT_RUNTIME, builtin_runtimes
from casemate.runtimes.sets import SetDirectory
from casemate.sets.build import DEFAULT_LIMITS, Build, Progress
from casemate.sets.workplace import forget, prepare, publish, sweep, workplace


def _say_nothing(_: str) -> None:
    """No progress is shown."""


class Sets:
    """The package sets of this user. Safe to use from many threads and processes."""

    def __init__(self, engine: Engine | None = None) -> None:
        self._engine = engine or default_engine()
        self._directory = SetDirectory(data_directory(self._engine.config))

    def list(self) -> tuple[PackageSet, ...]:
        """All of them, by name. Raises SetDamaged."""
        found = (self._directory.find(name) for name in self._directory.list())
        return tuple(each for each in found if each is not None)

    def get(self, name: str, *, check: bool = False) -> PackageSet:
        """One of them; with `check` every byte is read and compared. Raises InvalidInput or SetDamaged."""
        found = self._directory.find(name)
        if found is None:
            raise self._missing(name)
        if check:
            self._directory.check_content(found, thorough=True)
        return found

    def build(
        self,
        name: str,
        packages: Iterable[str],
        *,
        runtime: str = DEFAULT_RUNTIME,
        preload: Iterable[str] = (),
        source: str = "",
        allow: Iterable[str] = (),
        limits: LimitsLike = None,
        progress: Progress = _say_nothing,
    ) -> PackageSet:
        """Install packages for a runtime, in sandboxes, into a new set; `name` is a runtime of its own then.

        `source` is a directory of packages to use instead of the network; `allow` names further hosts that may be
        reached; `preload` has to be importable at the end; zygotes import it ahead of programs. Raises InvalidInput,
        BuildFailed, and what a run raises.
        """
        check_set_name(name, self._engine.runtimes.taken)
        if name in self._directory.list():
            raise InvalidInput(
                "name", f"a package set {name!r} exists", hint=f"`casemate runtimes update {name}` makes it anew"
            )
        recipe = Recipe(
            runtime=self._base(runtime),
            packages=_checked(packages),
            preload=check_preload(preload),
            source=_absolute(source),
            allow=tuple(allow),
        )
        return self._build(name, recipe, limits, progress, replace=False)

    def update(self, name: str, *, limits: LimitsLike = None, progress: Progress = _say_nothing) -> PackageSet:
        """Make a set anew, by the recipe that it was made by. Sandboxes that use the old one keep it."""
        return self._build(name, self._recipe(name), limits, progress, replace=True)

    def remove(self, name: str) -> None:
        """Forget a set; its files go when nobody uses them. Raises InvalidInput if there is none."""
        prepare(self._directory)
        if name not in self._directory.list() or not forget(self._directory, name):
            raise self._missing(name)
        sweep(self._directory)

    def sweep(self) -> tuple[str, ...]:
        """Remove sets that nobody needs and what dead builders left; the digests of the sets."""
        prepare(self._directory)
        return tuple(sweep(self._directory))

    def _base(self, runtime: str) -> str:
        """A runtime that packages may be for: a declared one, so none that is a set itself."""
        if runtime not in self._engine.runtimes.taken and runtime in self._directory.list():
            raise InvalidInput("runtime", f"{runtime!r} is a package set", hint="name the runtime that it is for")
        return self._engine.runtimes.declared(runtime)

    def _missing(self, name: str) -> InvalidInput:
        hint = "`casemate runtimes list` has those"
        if name in builtin_runtimes():
            return InvalidInput("name", f"{name!r} is a built-in runtime, no package set", hint=hint)
        if name in self._engine.runtimes.taken:
            return InvalidInput("name", f"{name!r} is a runtime or an alias of one, no package set", hint=hint)
        return InvalidInput("name", f"no package set {name[:80]!r}", hint=hint)

    def _recipe(self, name: str) -> Recipe:
        """Also that of a set whose files are damaged: making it anew is how that is mended."""
        found = self._directory.named(name)
        if found is None:
            raise self._missing(name)
        return found.recipe

    def _build(self, name: str, recipe: Recipe, limits: LimitsLike, progress: Progress, *, replace: bool) -> PackageSet:
        runtime = self._engine.runtimes.get(recipe.runtime)
        wanted = check_limits(DEFAULT_LIMITS, limits)
        build = Build(self._engine, runtime, recipe, wanted=wanted, progress=progress)
        prepare(self._directory)
        try:
            with workplace(self._directory) as work:
                built = build.run(work)
                progress("publishing")
                publish(self._directory, work, name, built.manifest, recipe=recipe, flows=built.flows, replace=replace)
            sweep(self._directory)
        except OSError as error:
            raise BuildFailed(f"the package set cannot be kept: {error}") from error
        return self.get(name)


def _checked(packages: Iterable[str]) -> tuple[str, ...]:
    found = tuple(packages) if not isinstance(packages, str) else (packages,)
    if not found or len(found) > bound.SET_PACKAGES_MAX:
        raise InvalidInput("packages", f"must be 1 to {bound.SET_PACKAGES_MAX} packages")
    return found


def _absolute(source: str) -> str:
    return str(Path(source).absolute()) if source else ""
