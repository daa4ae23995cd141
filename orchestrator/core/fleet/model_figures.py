"""What clients are told of a model: its names, its status, and its size: from the engine where it is loaded, else from
the profile and the header. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from orchestrator.core.dialect.capabilities import Kind
from orchestrator.core.profile.settings import Value
from orchestrator.core.profile.variants import Variant


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """The figures of one model; None where nobody said.

    :param context_tokens: of one slot: what one request has
    :param trained_tokens: the context that the model was trained with
    :param planned: what the profile asks for; a loaded engine may have less
    :param inputs: what a message may hold: `text`, `image`, `audio`. Which of them a projector reads, its engine says
    """

    context_tokens: int | None = None
    trained_tokens: int | None = None
    architecture: str = ""
    size_bytes: int | None = None
    parameters: int | None = None
    planned: bool = True
    inputs: tuple[str, ...] | None = None


UNKNOWN = ModelFigures()


@dataclass(frozen=True, slots=True)
class Model:
    """One profile as `/v1/models` shows it.

    :param status: `loaded`, `loading` or `unloaded`
    :param created: seconds since 1970, as OpenAI's field of this name
    :param version: differs once a start would meet something else: another text, model file or program
    :param variants: more names, with what they change of a request
    :param idle_limit_s: after so long without a request it is unloaded, by all rules together; 0 for never
    :param unloaded_since: monotonic, where the next request loads it again; else None
    """

    name: str
    aliases: tuple[str, ...]
    description: str
    status: str
    created: int
    figures: ModelFigures = UNKNOWN
    version: str = ""
    variants: tuple[Variant, ...] = ()
    idle_limit_s: float = 0.0
    unloaded_since: float | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that clients may send for it."""
        return (self.name, *self.aliases, *(variant.name for variant in self.variants))


def listed_model(
    model: Model, status: str, figures: ModelFigures | None, idle_limit_s: float, unloaded_since: float | None
) -> Model:
    """Return a model as it is listed at this moment.

    :param figures: what the engine that has loaded it says of it; None where none has, or it was not asked
    """
    return replace(
        model,
        status=status,
        figures=model.figures if figures is None else loaded_figures(model.figures, figures),
        idle_limit_s=idle_limit_s,
        unloaded_since=unloaded_since,
    )


def planned_figures(settings: Mapping[str, Value], kind: Kind, header: ModelFigures) -> ModelFigures:
    """Return the figures with the context that a slot would have.

    :param settings: of the profile, for the engine that it would run on
    :param header: what the model's file says; `UNKNOWN` where it cannot be read
    """
    header = replace(header, inputs=None if settings.get("multimodal.mmproj") else ("text",))
    size, parallel = settings.get("context.size"), settings.get("context.parallel", 1)
    trained = header.trained_tokens
    if not isinstance(size, int) or not size:
        size = trained

    if size is None or not isinstance(parallel, int):
        return header

    shared = settings.get("context.unified_kv") is True and kind != "ik"
    slot = size if shared else size // parallel
    if trained is not None and kind != "ik":  # upstream gives no slot more than the model was trained with
        slot = min(slot, trained)

    return replace(header, context_tokens=slot)


def engine_figures(props: object, models: object) -> ModelFigures:
    """Return what an engine says of its model.

    :param props: its answer to GET /props; it may be anything
    :param models: its answer to GET /v1/models; likewise
    """
    meta = _within(models, "data", 0, "meta")
    context = _count(_within(props, "default_generation_settings", "n_ctx")) or _count(_within(meta, "n_ctx"))
    return ModelFigures(
        context_tokens=context,
        trained_tokens=_count(_within(meta, "n_ctx_train")),
        size_bytes=_count(_within(meta, "size")),
        parameters=_count(_within(meta, "n_params")),
        planned=context is None,
        inputs=_inputs(_within(props, "modalities")),
    )


def loaded_figures(planned: ModelFigures, said: ModelFigures) -> ModelFigures:
    """Return what an engine has said, and what was planned where it has said nothing."""
    return ModelFigures(
        context_tokens=said.context_tokens or planned.context_tokens,
        trained_tokens=said.trained_tokens or planned.trained_tokens,
        architecture=said.architecture or planned.architecture,
        size_bytes=said.size_bytes or planned.size_bytes,
        parameters=said.parameters or planned.parameters,
        planned=said.planned,
        inputs=said.inputs or planned.inputs,
    )


def _inputs(modalities: object) -> tuple[str, ...] | None:
    if not isinstance(modalities, dict):
        return None

    return ("text", *(name for key, name in (("vision", "image"), ("audio", "audio")) if modalities.get(key) is True))


def _within(value: object, *keys: str | int) -> object:
    for key in keys:
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and isinstance(key, int):
            value = value[key] if key < len(value) else None
        else:
            return None

    return value


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**63 else None
