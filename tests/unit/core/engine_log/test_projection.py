"""What upstream's `--fit` tells of the settings as they were given."""

from __future__ import annotations

from orchestrator.core.engine_log.projection import read_projection

MIB = 1 << 20

WITH_MTP = """\
0.00.023.575 I common_params_fit_impl: getting device memory data for initial parameters:
0.00.635.338 I common_memory_breakdown_print: | memory breakdown [MiB]     | total    free    self   model   context   compute    unaccounted |
0.00.635.341 I common_memory_breakdown_print: |   - RPC0 (127.0.0.1:21040) | 60000 = 59799 + (2833 =  2396 +     337 +     100) +       -2632 |
0.00.635.342 I common_memory_breakdown_print: |   - Host                   |                   525 =   497 +       0 +      28                |
0.00.682.975 I operator(): getting device memory data for the extra model at a context size of 8192:
0.01.075.654 I common_memory_breakdown_print: | memory breakdown [MiB]     | total    free    self   model   context   compute    unaccounted |
0.01.075.696 I common_memory_breakdown_print: |   - RPC0 (127.0.0.1:21040) | 60000 = 60000 + (2510 =  2396 +      32 +      82) +       -2510 |
0.01.075.710 I common_memory_breakdown_print: |   - Host                   |                   515 =   497 +       0 +      18                |
0.01.118.464 I common_params_fit_impl: projected to use 2947 MiB of device memory vs. 59799 MiB of free device memory
"""  # noqa: E501

SECOND_PROBE = """\
0.01.572.316 I common_params_fit_impl: getting device memory data with all MoE tensors moved to system memory:
0.02.241.812 I common_memory_breakdown_print: | memory breakdown [MiB]     | total    free     self   model   context   compute    unaccounted |
0.02.241.845 I common_memory_breakdown_print: |   - RPC0 (127.0.0.1:21050) | 12000 = 11748 + ( 2038 =  1291 +     591 +     156) +       -1787 |
"""  # noqa: E501

TWO_CARDS = """\
common_memory_breakdown_print: | memory breakdown [MiB]   | total   free     self   model   context   compute    unaccounted |
common_memory_breakdown_print: |   - CUDA0 (RTX 4090)     | 24077 =  945 + (19187 = 17904 +     384 +     898) +        3945 |
common_memory_breakdown_print: |   - CUDA1 (RTX 3060)     | 12011 = 9451 + ( 1918 =  1790 +      38 +      90) +         642 |
common_memory_breakdown_print: |   - Host                 |                    140 =    58 +      17 +      65                |
common_params_fit_impl: projected memory use with initial parameters [MiB]:
"""  # noqa: E501


def test_the_drafters_context_is_added_and_the_models_weights_are_not_counted_twice() -> None:
    found = read_projection(WITH_MTP.splitlines(), mtp_in_model=True)
    assert found is not None
    assert found.weights == {"RPC0": 2396 * MIB, "host": 497 * MIB}
    assert found.context["RPC0"] == 337 * MIB
    assert found.draft_context["RPC0"] == 32 * MIB
    assert found.compute == {"RPC0": 182 * MIB, "host": 46 * MIB}
    assert found.total("RPC0") == 2947 * MIB


def test_a_drafter_of_its_own_has_weights() -> None:
    found = read_projection(WITH_MTP.splitlines(), mtp_in_model=False)
    assert found is not None and found.draft_weights["RPC0"] == 2396 * MIB


def test_what_a_fit_tries_after_the_settings_as_given_is_not_read() -> None:
    both = WITH_MTP + SECOND_PROBE
    assert read_projection(both.splitlines(), mtp_in_model=True) == read_projection(
        WITH_MTP.splitlines(), mtp_in_model=True
    )


def test_each_device_has_its_figures() -> None:
    found = read_projection(TWO_CARDS.splitlines(), mtp_in_model=True)
    assert found is not None
    assert found.places == ("CUDA0", "CUDA1", "host")
    assert [found.total(place) // MIB for place in found.places] == [19186, 1918, 140]


def test_a_placement_by_hand_is_projected_all_the_same() -> None:
    text = WITH_MTP.replace("projected to use", "ignored")
    text += "W common_fit_params: failed to fit params to free device memory: n_gpu_layers already set by user to 99\n"
    found = read_projection(text.splitlines(), mtp_in_model=True)
    assert found is not None and found.total("RPC0") == 2947 * MIB
    assert found.error == "n_gpu_layers already set by user to 99"


def test_an_error_before_any_table_is_told() -> None:
    line = "E common_fit_params: encountered an error while trying to fit params to free device memory: no memory"
    found = read_projection([line], mtp_in_model=False)
    assert found is not None and found.error == "no memory" and not found.weights


def test_a_log_without_tables_says_nothing() -> None:
    assert read_projection(["error: invalid argument: --fit", ""], mtp_in_model=False) is None
