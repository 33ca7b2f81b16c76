"""Whether a sensor may start in the triggerer, told while the DAG is parsed.

Airflow renders such a task's templates in the triggerer, and much of what a worker can do never returns there, or
holds up all the triggers of its process: what is not known to be safe is refused. Imported only where it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jinja2
from airflow.providers.common.compat.sdk import BaseSensorOperator
from jinja2 import nodes
from jinja2.meta import find_referenced_templates, find_undeclared_variables

from machfive_provider.formatting import kind_of

if TYPE_CHECKING:
    from machfive_provider.sensors.lead_list import MachFiveListSensor

__all__ = ["refusal"]

_OLDEST = (3, 3)
_TASK = frozenset({"ti", "task_instance"})
# Plain facts about the run: the triggerer has them at hand and asks nobody.
_FACTS = frozenset(
    {"params", "run_id", "dag_run", "logical_date", "data_interval_start", "data_interval_end"}
    | {"ds", "ds_nodash", "ts", "ts_nodash", "ts_nodash_with_tz"}
)
_FACTS_OF_TASK = frozenset({"dag_id", "task_id", "run_id", "map_index", "try_number"})
_PULL = "{{ ti.xcom_pull(task_ids=%r, map_indexes=-1) }}"


def refusal(sensor: MachFiveListSensor) -> str | None:
    """Return why this task cannot safely start in the triggerer, with what to do, or None if it can."""
    from airflow import __version__
    from packaging.version import Version

    if Version(__version__).release[:2] < _OLDEST:
        return f"it takes Airflow 3.3 or later, and this is {__version__}: older ones render no template there"
    return (
        _own_code(sensor)
        or _value("list_id", sensor.list_id, sensor)
        or _value("machfive_conn_id", sensor.machfive_conn_id, sensor)
    )


def _own_code(sensor: MachFiveListSensor) -> str | None:
    from machfive_provider.sensors.lead_list import MachFiveListSensor

    cls = type(sensor)
    if cls.execute is not MachFiveListSensor.execute:
        return f"{cls.__name__} has an execute of its own, which only a worker would run"
    if cls.pre_execute is not BaseSensorOperator.pre_execute or getattr(sensor, "_pre_execute_hook", None):
        return "only a worker runs pre_execute"
    if sensor.on_execute_callback:
        return "only a worker runs on_execute_callback"
    return None


def _value(parameter: str, value: Any, sensor: MachFiveListSensor) -> str | None:
    if isinstance(value, str):
        reason = _template(value) if parameter in sensor.template_fields else None
        return reason and f"{parameter} {reason}"
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return next(filter(None, (_value(parameter, each, sensor) for each in value)), None)
    if hasattr(value, "iter_references"):
        task_id = next((operator.task_id for operator, _ in value.iter_references()), "submit")
        return (
            f"{parameter} is an XComArg, which reaches the triggerer unresolved: write "
            f'{parameter}="{_PULL % task_id}" and put this task after {task_id!r} with >>'
        )
    return f"{parameter} must be text, or a list of it, not {kind_of(value)}"


def _template(text: str) -> str | None:
    """Return what is wrong with a template, None if it is safe or none at all."""
    try:
        tree = jinja2.Environment(autoescape=True).parse(text)
        strange = sorted(find_undeclared_variables(tree) - _FACTS - _TASK)
    except jinja2.TemplateSyntaxError as error:
        # A user's own filters and tests are among these: they do not reach the triggerer.
        return f"cannot be rendered in the triggerer: {error.message}"
    if strange:
        return (
            f"uses {', '.join(map(repr, strange))}, not known to be safe in the triggerer: it may use {_may_use()}, "
            f"and {_PULL % 'submit'}"
        )
    if any(find_referenced_templates(tree)):
        return "loads another template, which the triggerer cannot"
    return next(filter(None, map(_use_of_task, _uses_of_task(tree))), None)


def _uses_of_task(tree: nodes.Template) -> Iterator[tuple[nodes.Name, nodes.Node | None, nodes.Node | None]]:
    """Yield each place where the task instance is named, what is around it, and what is around that."""
    around = {id(child): parent for parent in _all(tree) for child in parent.iter_child_nodes()}
    for name in tree.find_all(nodes.Name):
        if name.name in _TASK:
            parent = around.get(id(name))
            yield name, parent, around.get(id(parent))


def _all(tree: nodes.Node) -> Iterator[nodes.Node]:
    yield tree
    for child in tree.iter_child_nodes():
        yield from _all(child)


def _use_of_task(use: tuple[nodes.Name, nodes.Node | None, nodes.Node | None]) -> str | None:
    name, attribute, call = use
    if isinstance(attribute, nodes.Getattr):
        if attribute.attr in _FACTS_OF_TASK:
            return None
        if attribute.attr == "xcom_pull" and isinstance(call, nodes.Call) and call.node is attribute:
            if any(each.key == "map_indexes" and _is_number(each.value) for each in call.kwargs):
                return None
            return (
                "pulls an XCom without map_indexes=-1, and in the triggerer that never returns: write "
                f"{_PULL % 'submit'}"
            )
    return f"uses {name.name!r} for something not known to be safe in the triggerer: it may use {_may_use()}"


def _is_number(node: nodes.Node) -> bool:
    value = node.node if isinstance(node, nodes.Neg) else node
    return isinstance(value, nodes.Const) and type(value.value) is int


def _may_use() -> str:
    return f"{', '.join(sorted(_FACTS))}, ti.{', ti.'.join(sorted(_FACTS_OF_TASK))}"
