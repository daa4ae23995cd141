"""A key that no profile has: the nearest meaning is said, and the nearest spelling where it is a slip."""

from __future__ import annotations

import pytest

from tests.unit.core.profile.test_reading import problems_of


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[yarn]\noriginal_context = 1", "`--yarn-orig-ctx` is said by `rope.original_context`"),
        ("[yarn]\next_factor = 1", "`--yarn-ext-factor` is said by `rope.yarn_ext_factor`"),
        ("[rope]\nyarn_orig_ctx = 1", "is said by `rope.original_context`"),
        ("[rope]\nfactor = 2", "is said by `rope.scale`"),
        ("[context]\nrope_scale = 2", "`--rope-scale` is said by `rope.scale`"),
        ("[context]\nctx_size = 2", "is said by `context.size`"),
        ("[context]\nnum_ctx = 2", "is said by `context.size`"),
        ("[memory]\nngl = 2", "`-ngl` is said by `memory.gpu_layers`"),
        ("[memory]\nno_mmap = true", "`--no-mmap` is said by `memory.mmap`"),
        ("[memory]\ncache_type_k = 'f16'", "is said by `kv.k`"),
        ("[multimodal]\nmin_image_tokens = 2", "is said by `multimodal.image_min_tokens`"),
        ("[sampling]\npenalty_freq = 2", "is said by `sampling.frequency_penalty`"),
        ("[speculative]\nspec_type = 'mtp'", "is said by `speculative.type`"),
        ("[speculative]\nnum_speculative_tokens = 3", "is said by `speculative.draft_max`"),
        ("[server]\nthreads_http = 2", "no key for `--threads-http`: put it into `[engine.upstream] extra_args`"),
        ("[memory]\nsmart_expert_reduction = 2", "put it into `[engine.ik-fork] extra_args`"),
        ("[server]\nport = 8080", "`--port` belongs to orch"),
        ("[server]\ncont_batching = true", "both engines do it by themselves"),
        ("n_ctx = 4", "is said by `context.size`"),
        ("lora_scaled = 1", "`--lora-scaled` is said by `lora.scales`"),
        ("[engine.upstream.yarn]\nbeta_fast = 1", "is said by `rope.yarn_beta_fast`"),
        ("[memory]\nfit_margn = 1", "did you mean `fit_margin`?"),
        ("[context]\nfrequency_penalty = 1", "did you mean `sampling.frequency_penalty`?"),
    ],
)
def test_an_unknown_key_is_told_what_it_means(text: str, hint: str) -> None:
    [problem] = problems_of(text)
    assert "unknown key" in problem
    assert hint in problem


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[memory]\ngpu_layers = -1", 'orch writes `"auto"`'),
        ("[memory]\ngpu_layers = -2", 'orch writes `"all"`'),
        ("[speculative]\ndraft_gpu_layers = -1", 'orch writes `"auto"`'),
        ("[cpu]\nthreads = -1", 'orch writes `"auto"`'),
        ("[cpu]\nthreads_batch = 0", 'orch writes `"auto"`'),
        ("[context]\nsize = -1", "orch writes 0, the model's own"),
        ("[context]\nparallel = -1", "4 slots"),
        ("[sampling]\nmax_tokens = -2", "orch writes -1"),
        ("[cache]\nreuse = -1", "orch writes 0"),
    ],
)
def test_a_number_that_engines_take_for_a_word_is_told_the_word(text: str, word: str) -> None:
    [problem] = problems_of(text)
    assert word in problem
