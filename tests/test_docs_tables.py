"""What the documents say is checked, is: each row of their tables names tests."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PROBE = "tests/models/test_probe.py::"
MEMBERS = "tests/models/test_probe_members.py::"
FIRST = "tests/training/test_first_look.py::"
FIGURES = "tests/evaluation/test_silent_figures.py::"
UNTRUSTED = "tests/models/untrusted/"

# By document and the header of the table; each row by its first cell.
TABLES = {
    ("docs/reliability.md", "What is looked at"): {
        "pixels outside [0, 1]": [
            "tests/training/test_robust_model.py::test_refusals",
            FIRST + "test_validation_pixels",
        ],
        "arrays of 0/1, of 0 to 32 or divided by 255 twice, in an `npz:` file": [
            "tests/datasets/test_files.py::test_npz_refusals"
        ],
        "labels: none, fractions, below 0, of classes that the network does not have": [
            FIRST + "test_labels_that_make_no_sense",
            "tests/evaluation/test_robustness.py::test_refuses_bad_data",
        ],
        "outputs, gradients, dependence on pass and batch, scale of pixels": [
            PROBE + "test_unusable_networks_are_refused",
            PROBE + "test_doubtful_networks_are_told",
        ],
        "second derivatives of each layer": [
            "tests/second_order/test_second_order_check.py::test_wrong_code_between_layers_is_found"
        ],
        "losses that want probabilities, ignore a class, sum over the batch or weigh it "
        "themselves; `loss_weights`": [
            FIRST + "test_losses_that_a_train_step_cannot_honour",
            FIRST + "test_loss_weights",
        ],
        "threat model: a radius that the norm cannot have, or that is for another range of "
        "pixels": [
            "tests/attacks/test_pixel_range.py::test_a_radius_for_another_range_is_refused",
            "tests/attacks/test_pixel_range.py::test_the_largest_radius_is_the_range",
        ],
        "answers of one class only, images of one class only": [
            "tests/evaluation/test_robustness.py::"
            "test_a_network_of_one_answer_and_labels_of_one_class_are_told"
        ],
        "another order of the classes that would explain the labels": [
            "tests/evaluation/test_class_order.py::test_evaluation_says_it"
        ],
        "what a folder's files were read as: classes, counts, sizes, what was skipped or dropped": [
            "tests/datasets/test_files.py::test_folder_says_what_decoding_left_out",
            "tests/datasets/test_files.py::"
            "test_folder_says_what_was_skipped_and_the_order_of_numbered_classes",
        ],
        "fewer images than there are, of data in order of their classes": [
            "tests/datasets/test_sampling.py::test_a_sorted_set_is_sampled_and_says_so"
        ],
        "a penalty that is all clip, or costs 10 points of accuracy": [
            "tests/training/test_harm.py::test_a_penalty_that_is_all_clip_is_told",
            "tests/training/test_harm.py::test_lost_clean_accuracy_is_told_once",
        ],
    },
    ("docs/reliability.md", "File"): {
        "`.keras`": [
            UNTRUSTED + "test_archives.py::test_a_member_that_leaves_the_folder_is_refused",
            UNTRUSTED + "test_keras_configs.py::test_a_function_that_is_not_on_the_list_is_refused",
            UNTRUSTED + "test_keras_configs.py::test_a_class_that_is_not_on_the_list_is_refused",
        ],
        "SavedModel": [
            UNTRUSTED + "test_saved_models.py::"
            "test_a_model_that_writes_a_file_is_refused_and_writes_nothing"
        ],
        "`.npz`": [UNTRUSTED + "test_archives.py::test_a_pickle_in_an_npz_is_refused"],
        "checkpoints": [
            UNTRUSTED + "test_special_files.py::test_a_checkpoint_is_checked_as_any_weights_file_is"
        ],
        "`config.toml`, `manifest.json`": [
            UNTRUSTED + "test_special_files.py::test_a_file_that_is_too_large_is_refused_unread"
        ],
        "run directories": [
            UNTRUSTED + "test_special_files.py::test_a_subfolder_that_is_a_link_is_refused",
            UNTRUSTED + "test_special_files.py::test_a_runs_file_that_is_a_link_is_refused",
        ],
    },
    ("docs/guides/own_model.md", "What"): {
        "pixels": [FIGURES + "test_a_network_of_0_to_255_is_refused_and_can_be_wrapped"],
        "output": [
            FIGURES + "test_heads_that_are_no_logits_are_refused",
            FIGURES + "test_an_operation_of_a_softmax_can_be_taken_off",
        ],
        "inference": [
            MEMBERS + "test_random_networks",
            MEMBERS + "test_networks_that_look_at_the_rest_of_the_batch",
        ],
        "layers": [
            "tests/second_order/test_second_order_check.py::test_wrong_code_between_layers_is_found"
        ],
    },
    ("docs/evaluation.md", "Finding"): {
        "`probabilities`, `sigmoid`": [
            MEMBERS + "test_probabilities_in_disguise",
            MEMBERS + "test_other_outputs_that_are_no_logits",
        ],
        "`one_output`, `shape`, `several_outputs`": [PROBE + "test_unusable_networks_are_refused"],
        "`not_finite`": [PROBE + "test_unusable_networks_are_refused"],
        "`batch_dependent`": [MEMBERS + "test_networks_that_look_at_the_rest_of_the_batch"],
        "`fixed_batch`, `integer_input`": [
            PROBE + "test_a_fixed_batch_size_is_refused",
            PROBE + "test_integer_inputs_are_refused_and_can_be_wrapped",
        ],
        "`scale`": [
            PROBE + "test_another_scale_is_told_with_its_accuracy",
            PROBE + "test_a_rescaling_layer_before_any_weight_is_told",
        ],
        "`random`": [MEMBERS + "test_random_networks"],
        "`no_gradient`": [MEMBERS + "test_no_gradient"],
        "`zero_gradient`": [PROBE + "test_doubtful_networks_are_told"],
        "`misleading_gradient`": [MEMBERS + "test_gradients_that_are_not_the_outputs_own"],
        "`clipped`, `rounded`, `tiny`, `bounded`": [
            PROBE + "test_doubtful_networks_are_told",
            MEMBERS + "test_other_outputs_that_are_no_logits",
        ],
    },
}


def first_cells(document, header):
    """The first cells of the table whose header begins so."""
    lines = (ROOT / document).read_text(encoding="utf-8").splitlines()
    (start,) = (n for n, line in enumerate(lines) if line.startswith(f"| {header} |"))
    cells = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            return cells
        cells.append(line.split(" | ")[0].removeprefix("| ").strip())
    return cells


@pytest.mark.parametrize("table", TABLES, ids=" ".join)
def test_every_row_has_a_test_and_every_test_exists(table):
    rows = TABLES[table]
    assert set(first_cells(*table)) == set(rows)
    for row, tests in rows.items():
        assert tests, row
        for test in tests:
            file, *names = test.split("::")
            source = (ROOT / file).read_text(encoding="utf-8")
            assert re.search(rf"^ *def {names[-1]}\(", source, re.M), test
