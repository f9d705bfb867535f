"""What is public is what `__all__` says, documented and annotated, and little work to import."""

import ast
import inspect
import json
import subprocess
import sys
import typing
from collections.abc import Iterator
from importlib import resources

import pytest

import vmfsm
from tests.waiting import LIMIT
from vmfsm import hooks

PUBLIC = sorted(vmfsm.__all__)
CLASSES = [name for name in PUBLIC if inspect.isclass(getattr(vmfsm, name))]


def test_all_is_what_there_is() -> None:
    assert len(set(vmfsm.__all__)) == len(vmfsm.__all__)
    public = {name for name in dir(vmfsm) if not name.startswith("_") and name != "TYPE_CHECKING"}
    assert {name for name in public if not inspect.ismodule(getattr(vmfsm, name))} == set(vmfsm.__all__)


def test_type_checkers_and_programs_are_told_the_same() -> None:
    """What is imported for type checkers alone, programs are given from the same module."""
    told = {
        alias.name: node.module
        for node in ast.walk(ast.parse(inspect.getsource(vmfsm)))
        if isinstance(node, ast.ImportFrom) and node.level == 1
        for alias in node.names
    }
    assert told.keys() == set(vmfsm.__all__)
    assert told == vmfsm._MODULE_OF | {"jsonable": "jsonable"}


def test_each_module_can_be_the_first() -> None:
    """Imported on demand, they come in any order: none may need another one to have been there before."""
    script = """
import os, sys
import vmfsm
for module, names in vmfsm._MODULES.items():
    if os.fork() == 0:
        assert [getattr(vmfsm, name) for name in names]
        os._exit(0)
    assert os.wait()[1] == 0, module
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=LIMIT)


def test_what_there_is_not_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'vmfsm' has no attribute 'machinery'"):
        vmfsm.machinery  # type: ignore[attr-defined]  # noqa: B018


def test_all_that_the_documents_promise_is_there() -> None:
    assert {"Machine", "State", "Reason", "Event", "Transition", "TABLE", "hookimpl", "LaunchPlan"} <= set(
        PUBLIC
    )


WITHOUT_DOCSTRING = {"Action", "TABLE", "hookimpl", "hookspec"}
"""Data, a type, and objects of pluggy."""


@pytest.mark.parametrize("name", [name for name in PUBLIC if name not in WITHOUT_DOCSTRING])
def test_every_public_name_has_a_docstring_of_its_own(name: str) -> None:
    value = getattr(vmfsm, name)
    assert value.__doc__
    assert not value.__doc__.startswith(f"{name}("), "made up by NamedTuple"


def functions_of(name: str) -> Iterator[tuple[str, typing.Any]]:
    """The public functions and properties that a public class defines itself, and how it is made."""
    members: dict[str, typing.Any] = dict(vars(getattr(vmfsm, name)))
    for member, value in members.items():
        function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        if inspect.isfunction(function) and (member == "__init__" or not member.startswith("_")):
            yield f"{name}.{member}", function


FUNCTIONS = [
    *((name, getattr(vmfsm, name)) for name in PUBLIC if inspect.isfunction(getattr(vmfsm, name))),
    *(found for name in CLASSES for found in functions_of(name)),
    *((f"hooks.{name}", getattr(hooks, name)) for name in sorted(hooks.ALL_HOOKS)),
]


@pytest.mark.parametrize(("name", "function"), FUNCTIONS, ids=[name for name, _ in FUNCTIONS])
def test_every_public_function_is_annotated(name: str, function: typing.Any) -> None:
    signature = inspect.signature(function)
    assert signature.return_annotation is not inspect.Signature.empty
    for parameter in signature.parameters.values():
        if parameter.name != "self":
            assert parameter.annotation is not inspect.Parameter.empty, parameter.name


# Those that say all by their names and types.
PLAIN = {"Machine.name", "Machine.state", "Deadline.expired"}
DOCUMENTED = [
    (name, function) for name, function in FUNCTIONS if "__init__" not in name and name not in PLAIN
]


@pytest.mark.parametrize(("name", "function"), DOCUMENTED, ids=[name for name, _ in DOCUMENTED])
def test_every_public_function_is_documented(name: str, function: typing.Any) -> None:
    assert function.__doc__


@pytest.mark.parametrize("hook", sorted(hooks.ALL_HOOKS))
def test_every_hook_is_specified(hook: str) -> None:
    assert hasattr(getattr(hooks, hook), "vmfsm_spec")
    assert next(iter(inspect.signature(getattr(hooks, hook)).parameters)) == "machine"


def test_types_are_shipped() -> None:
    assert resources.files("vmfsm").joinpath("py.typed").is_file()


def imported_by(statement: str) -> tuple[list[str], int]:
    """The modules that a statement imports, and how many threads there are then."""
    script = f"""
import json, sys, threading
before = set(sys.modules)
{statement}
print(json.dumps([sorted(set(sys.modules) - before), threading.active_count()]))
"""
    modules, threads = json.loads(subprocess.check_output([sys.executable, "-c", script], timeout=LIMIT))
    return modules, threads


def test_importing_is_light() -> None:
    """What is not asked for is not imported: no machine, no thread, none of the slow modules."""
    modules, _ = imported_by("import vmfsm")
    assert [name for name in modules if name.startswith("vmfsm")] == ["vmfsm", "vmfsm.jsonable"]
    modules, threads = imported_by("from vmfsm import Machine")
    assert threads == 1
    assert "vmfsm.machine" in modules
    assert [name for name in modules if name.startswith(("vmfsm_plugins", "qemu", "pytest"))] == []
