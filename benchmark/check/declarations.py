"""Checks of what a method declares, its parameters, and what it says of where it runs."""

from __future__ import annotations

from pydantic import BaseModel, ValidationError

from ddbench.benchmark.check.runs import IPC
from ddbench.benchmark.check.subject import Broken, Subject, in_words
from ddbench.benchmark.core.registry import DATASETS
from ddbench.benchmark.core.spec import MethodSpec
from ddbench.methods.base import CostClass


def contract(subject: Subject) -> str:
    method, entry = subject.method, subject.entry
    expected_name = entry.variant_of or entry.name
    if method.name != expected_name:
        raise Broken(f"registered as {expected_name!r}, but its class says name = {method.name!r}")
    if type(method.version) is not int or method.version < 1:
        raise Broken(f"version: expected a whole number from 1, got {method.version!r}")
    if not isinstance(method.cost_class, CostClass):
        raise Broken(f"cost_class: expected a CostClass, got {method.cost_class!r}")
    for flag in ("needs_prior", "selects", "uses_seed", "whole_set"):
        if type(getattr(method, flag)) is not bool:
            raise Broken(f"{flag}: expected True or False, got {getattr(method, flag)!r}")
    if method.cost_class is CostClass.SELECTION and method.needs_prior:
        raise Broken("cost class selection, but needs_prior = True: a selection needs nothing but the images")
    if method.whole_set and method.selects:
        raise Broken("whole_set and selects exclude each other: the whole set has no IPC")
    if not entry.summary:
        raise Broken("no summary; the first line of the class's docstring is shown in `bench list methods`")
    return f"version {method.version}, {method.cost_class}"


def parameters(subject: Subject) -> str:
    params: type[BaseModel] = subject.method.Params
    for key, about in params.model_fields.items():
        if not (about.description or "").strip().endswith("."):
            raise Broken(f"{key}: expected a description that is a sentence, got {about.description!r}")
        if about.is_required():
            raise Broken(f"{key} has no default")
    defaults = params()
    for what, given in (("defaults", {}), ("overrides", dict(subject.entry.overrides))):
        try:
            resolved = params.model_validate(given)
            as_json = resolved.model_dump(mode="json")
            MethodSpec(name="check", version=1, params=as_json)
            again = params.model_validate(as_json)
        except ValidationError as error:
            raise Broken(f"its own {what} are refused: {error.errors()[0]['msg']}") from error
        if again != resolved:
            raise Broken(f"{what} do not come back from JSON as they were; use numbers, true, false, null or words")
    if _accepts(params, "no_such_parameter", 1):
        raise Broken("unknown parameters are accepted; derive Params from ddbench.methods.base.Params")
    for key, about in params.model_fields.items():
        try:
            setattr(defaults, key, getattr(defaults, key))
        except ValidationError:
            pass
        else:
            raise Broken(f"{key} can be changed after planning; derive Params from ddbench.methods.base.Params")
        for value, called in ((float("nan"), "NaN"), (float("inf"), "infinity")):
            if about.annotation is float and _accepts(params, key, value):
                raise Broken(f"{key} accepts {called}; derive Params from ddbench.methods.base.Params")
    return f"{len(params.model_fields)} documented" if params.model_fields else "it has none"


def _accepts(params: type[BaseModel], key: str, value: float) -> bool:
    try:
        params.model_validate({key: value})
    except ValidationError:
        return False
    return True


def supports(subject: Subject) -> str:
    method = subject.method(subject.params)
    refused = 0
    for entry in DATASETS:
        for ipc in (None,) if subject.method.whole_set else (1, 10):
            reason = method.supports(DATASETS.load(entry.name), ipc)
            if reason is not None and not (isinstance(reason, str) and reason.strip()):
                raise Broken(f"supports({entry.name}, {ipc}): expected None or a reason in words, got {reason!r}")
            refused += reason is not None
    if subject.unsupported is not None:
        return f"says that it does not run on digits: {subject.unsupported}"
    try:
        _ = subject.reference
    except Exception as error:  # a contestant's code may raise anything
        raise Broken(f"says that it runs on digits at IPC {IPC}, but the run failed: {in_words(error)}") from error
    used = subject.runs.prior_loads > 0
    if subject.method.needs_prior and not used:
        raise Broken("declares needs_prior = True, but its run loaded none")
    return "what it says was true" + (f"; it refuses {refused} of the other cases" if refused else "")
