"""The JSON Schema of a profile, for editors: generated from the tables that validation reads.

Keeps to what every editor's schema support knows (type, enum, anyOf, required, additionalProperties, minimum, maximum,
pattern, description), hence draft 4. Combinations are not in it: `orch profile check` knows them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from orchestrator.core.profile.free_tables import ENVIRONMENT, FREE_TABLES
from orchestrator.core.profile.keys import HEAD, RECOVERY, RESIDENCY
from orchestrator.core.profile.profile import NAME_PATTERN, SCHEMA_VERSION
from orchestrator.core.profile.settings import SETTINGS, TABLES, Setting
from orchestrator.core.profile.variants import KEY as VARIANTS

Schema = dict[str, object]

_JSON_TYPES: Mapping[str, str] = {
    "bool": "boolean", "int": "integer", "float": "number", "string": "string", "path": "string",
    "ints": "integer", "floats": "number", "strings": "string", "paths": "string",
    "table": "object",
}  # fmt: skip

_ARRAYS = ("ints", "floats", "strings", "paths")


def profile_schema() -> Schema:
    """Return the schema of one profile file, as a JSON document."""
    head = {key: _value(setting, may_be_empty=True) for key, setting in HEAD.items()}
    head["schema"] = {"enum": [SCHEMA_VERSION], "description": HEAD["schema"].doc}
    name: Schema = {"type": "string", "pattern": f"^{NAME_PATTERN.pattern}$"}
    head["extends"] = {**name, "description": HEAD["extends"].doc}
    tables: dict[str, object] = {table: _settings_table(table) for table in TABLES}
    tables |= {table: _free_table(table, doc) for table, doc in FREE_TABLES.items()}
    tables["recovery"] = _object({key: _value(setting, may_be_empty=True) for key, setting in RECOVERY.items()})
    tables["residency"] = _object({key: _value(setting) for key, setting in RESIDENCY.items()})
    engine: Schema = {
        "type": "object",
        "description": "the default engine, and what one engine does differently",
        "properties": {"default": name},
        "additionalProperties": _object(
            {**{name: each for name, each in tables.items() if name != "residency"}, "extra_args": head["extra_args"]}
        ),
    }
    either: Schema = {"description": "default engine, or a table of engines", "anyOf": [name, engine]}
    return {
        "$schema": "http://json-schema.org/draft-04/schema#",
        "title": "orch profile",
        **_object({**head, "engine": either, VARIANTS: _variants(), **tables}),
        "required": ["schema"],
    }


def _variants() -> Schema:
    fields: Schema = {"type": "object"}
    properties = {
        "name": {"type": "string", "description": "the name that clients send as `model`"},
        "description": {"type": "string", "description": "one line for people"},
        "set": {**fields, "description": "fields that every request gets"},
        "default": {**fields, "description": "fields that a request gets where it has none"},
        "strip": {"type": "array", "items": {"type": "string"}, "description": "fields that are removed"},
        "template_kwargs": {**fields, "description": "values for the chat template"},
    }
    one = {**_object(properties), "required": ["name"]}
    return {"type": "array", "items": one, "description": "more names for the loaded model, with what they change"}


def _settings_table(table: str) -> Schema:
    return _object({setting.key: _value(setting) for setting in SETTINGS if setting.table == table})


def _free_table(table: str, doc: str) -> Schema:
    kinds = ("string", "integer") if table == ENVIRONMENT else ("string", "integer", "number", "boolean")
    return {"type": "object", "description": doc, "additionalProperties": {"type": list(kinds)}}


def _object(properties: Mapping[str, object]) -> Schema:
    return {"type": "object", "properties": dict(properties), "additionalProperties": False}


def _value(setting: Setting, *, may_be_empty: bool = False) -> Schema:
    forms = list(_forms(setting, may_be_empty))
    described: Schema = {"description": setting.doc}
    return {**described, **forms[0]} if len(forms) == 1 else {**described, "anyOf": forms}


def _forms(setting: Setting, may_be_empty: bool) -> Iterable[Schema]:
    for kind in setting.types:
        element: Schema = {"type": _JSON_TYPES[kind]}
        if element["type"] in ("integer", "number"):
            element |= {} if setting.minimum is None else {"minimum": setting.minimum}
            element |= {} if setting.maximum is None else {"maximum": setting.maximum}
        elif element["type"] == "string" and setting.choices is not None:
            element = {"enum": list(setting.choices)}
        elif element["type"] == "string" and setting.form is not None:
            element["pattern"] = f"^(?:{setting.form[0]})$"

        if kind in _ARRAYS:
            yield {"type": "array", "minItems": 0 if may_be_empty else 1, "items": element}
        else:
            yield element
