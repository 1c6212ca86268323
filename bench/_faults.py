"""The thirty faults that a run has to survive: how each is injected, what happens, and the tests that show it.

`python -m bench._faults` writes the page anew, with the figures that are kept.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import NamedTuple

from bench import MEASUREMENTS, ROOT
from bettersynth.core.publish import publish, read_json

DOCUMENT = ROOT / "docs" / "faults.md"
KEPT = MEASUREMENTS / "faults.json"


class Fault(NamedTuple):
    """A row of the table of `docs/faults.md`."""

    what: str
    injected: str
    happens: str
    tests: tuple[str, ...]
    """Node ids of pytest, from `tests/` on."""
    left_out: str = ""
    """What of it no test injects, and why."""


FAULTS: dict[int, Fault] = {
    1: Fault(
        "SIGKILL of a scoring job",
        "SIGKILL at each write, fsync and rename that the job makes; a run that is cut off between jobs",
        "No half file has a final name. The next run scores the shards that are missing, and the bytes are the same",
        (
            "faults/test_kill_points.py::test_a_job_killed_anywhere_is_done_by_the_next_run",
            "core/test_protections.py::test_a_kill_between_any_two_steps_leaves_the_old_or_the_new",
            "workflow/test_passes.py::test_an_interrupted_run_goes_on_with_the_jobs_that_are_left",
        ),
    ),
    2: Fault(
        "SIGKILL of Snakemake while SLURM's jobs run",
        "SIGKILL, then `--unlock`, a second run and `make resume`, on a SLURM of its own; the same with local jobs",
        "The second run is refused with the jobs' numbers; `make resume` waits for them, and no job runs twice",
        (
            "slurm/test_slurm.py::test_a_killed_snakemake_is_resumed_and_no_job_runs_twice",
            "slurm/test_slurm.py::test_jobs_of_a_killed_snakemake_are_cancelled_when_asked",
            "runtime/test_lease.py::test_a_driver_is_refused_beside_a_job_that_a_killed_one_left_on_this_machine",
            "runtime/test_lease.py::test_resume_waits_for_jobs_on_this_machine_and_goes_on",
        ),
    ),
    3: Fault(
        "SIGTERM, as before preemption",
        "SIGTERM to a job at work, and SIGKILL to a stage of training at any moment",
        "The job exits with 143, gives its lease back and keeps its log; training goes on from its last saved step",
        (
            "core/test_protections.py::test_a_job_that_is_asked_to_end_gives_its_lease_back_and_keeps_its_log",
            "runtime/test_lease.py::test_a_terminated_job_gives_its_lease_back",
            "training/test_mgm_processes.py::test_a_stage_killed_at_any_moment_goes_on_to_the_same_result",
        ),
    ),
    4: Fault(
        "A node fails and its job starts again",
        "A node's daemon and jobs are killed; a second job for the same output is started beside the first",
        "The job is submitted again to another node. Of two jobs for one output the second ends and touches nothing",
        (
            "slurm/test_slurm.py::test_the_job_of_a_lost_node_is_submitted_again_elsewhere",
            "runtime/test_lease.py::test_a_second_job_for_the_same_output_ends_at_once_and_touches_nothing",
            "runtime/test_lease.py::test_a_job_that_lost_its_lease_stops_writing",
        ),
    ),
    5: Fault(
        "A raw file's last line is torn",
        "Lines, lists and compressed files cut at any byte",
        "A torn line is quarantined as `torn JSON`; a list or a compressed file that breaks off ends ingest by name",
        (
            "pool/test_ingest.py::test_a_fault_has_its_reason",
            "pool/test_ingest.py::test_a_list_that_breaks_off_fails_with_the_entry",
            "pool/test_ingest.py::test_a_compressed_file_cut_short_fails_with_its_name",
            "faults/test_hostile_input.py::test_raw_files",
        ),
    ),
    6: Fault(
        "A shard that we wrote is torn",
        "Records, scores, captions and rows cut short by some bytes in a finished run",
        "Reading it is an error that names file and command; that command makes the one file again, byte for byte",
        (
            "faults/test_torn_shards.py::test_a_torn_shard_is_named_and_made_again_alone",
            "core/test_damage.py::test_no_flipped_bit_of_a_table_is_read_as_other_data",
            "core/test_damage.py::test_the_command_that_an_error_names_makes_the_file_again",
        ),
    ),
    7: Fault(
        "Bytes that are no text",
        "No UTF-8, byte order marks, CRLF, NUL, lone surrogates, U+2028, one by one and at random",
        "Each is quarantined with its reason or read as it stands; only a line feed ends a line",
        (
            "pool/test_ingest.py::test_a_fault_has_its_reason",
            "pool/test_ingest.py::test_only_a_line_feed_ends_a_line_and_windows_files_are_read",
            "faults/test_hostile_input.py::test_raw_files",
        ),
    ),
    8: Fault(
        "Ids that are missing, odd or there twice",
        "Records with each of these, within a file and across files, in several orders",
        "Of equal ids the first stays, the others are counted; a missing id is a digest of the record's content",
        (
            "pool/test_ingest.py::test_the_first_of_equal_ids_stays_and_numbers_are_ids_too",
            "pool/test_ingest.py::test_a_missing_id_comes_from_the_content_wherever_the_line_stands",
            "pool/test_ingest.py::test_the_earlier_file_wins_an_id_that_two_files_hold",
        ),
    ),
    9: Fault(
        "Records of another form",
        "`images` a string, empty or two; no image token; an empty caption; misshapen conversations",
        "Each has a reason of its own in quarantine; no record without an image is kept by a filter",
        (
            "pool/test_ingest.py::test_a_fault_has_its_reason",
            "pool/test_ingest.py::test_the_ledger_adds_up_over_every_fault_at_once",
            "pool/test_ingest.py::test_llava_entries_that_are_no_caption_of_one_image_are_quarantined",
        ),
    ),
    10: Fault(
        "Odd and damaged pictures",
        "Cut short, empty, of another name than format, CMYK, 16 bits, palette, animated, turned by EXIF; random bytes",
        "One function decodes for scoring, captions, training and pages; what it refuses has a reason",
        (
            "pool/test_images.py::test_unusable_headers_have_their_own_reasons",
            "pool/test_images.py::test_every_kind_of_image_is_decoded_as_data_juicer_decodes_it",
            "pool/test_images.py::test_an_image_cut_short_is_refused_even_after_data_juicer_allowed_it",
            "training/test_trainset.py::test_training_reads_the_same_picture_that_was_scored",
            "faults/test_hostile_input.py::test_pictures",
        ),
    ),
    11: Fault(
        "Decompression bombs",
        "Headers that state huge sizes, bombs in zips and bundles, the longest pictures that are taken",
        "Refused by the header before anything is decoded; no picture takes a job more than 2 GB",
        (
            "pool/test_images.py::test_too_large_an_image_is_refused_by_its_header",
            "pool/test_storages.py::test_a_bomb_in_a_zip_is_refused_unpacked_no_further_than_it_says",
            "deploy/test_hostile_bundle.py::test_a_head_that_unpacks_into_hundreds_of_megabytes_is_not_read",
            "pool/test_memory.py::test_no_picture_takes_more_than_two_gigabytes",
        ),
    ),
    12: Fault(
        "Paths that leave the image folder",
        "`..`, absolute paths, links that lead out, URLs, members of archives",
        "Quarantined as `image path`; no URL is opened by anything",
        (
            "pool/test_images.py::test_paths_that_leave_the_folder_are_refused",
            "pool/test_images.py::test_a_link_out_of_the_folder_is_refused_and_a_linked_folder_is_not",
            "pool/test_storages.py::test_links_in_zips_and_names_that_leave_them_are_never_read",
            "faults/test_hostile_input.py::test_image_paths",
        ),
    ),
    13: Fault(
        "A picture vanishes between scoring and training",
        "Files are deleted or cut after they were scored, and after the training file was checked",
        "The training file is refused with every record; training names a picture that is lost later, and counts it",
        (
            "training/test_trainset.py::test_the_preflight_names_every_record_that_could_not_be_trained_on",
            "training/test_mgm_data.py::test_an_unreadable_image_is_an_error_that_names_the_record",
            "training/test_mgm_data.py::test_a_picture_lost_since_the_preflight_ends_nothing_where_rows_may_be_dropped",
        ),
    ),
    14: Fault(
        "The disk is full",
        "Results on small disks of many sizes, by bytes and by inodes; `/tmp` full; a fetch that will not fit",
        "The job fails, finished files are whole, nothing half-made stays, and the run goes on once there is room",
        (
            "faults/test_full_disk.py::test_a_full_disk_leaves_what_is_finished_and_the_run_goes_on",
            "faults/test_full_disk.py::test_a_run_that_does_not_fit_is_refused_before_it_starts",
            "workflow/test_odd_disks.py::test_a_run_on_exfat_with_tmp_full",
            "deploy/test_stage.py::test_a_disk_that_is_too_small_is_named_before_anything_is_fetched",
        ),
    ),
    15: Fault(
        "A GPU's memory runs out",
        "Models that raise as PyTorch does, for any batch above a size, down to a batch of one",
        "The batch is halved, with a word in the log; a record that does not fit alone is named. Scores stay the same",
        (
            "operators/test_batched_scorer.py::test_batches_are_halved_when_memory_runs_out",
            "operators/test_batched_scorer.py::test_out_of_memory_with_one_image_names_the_record",
            "operators/test_batched_operators.py::test_a_score_does_not_depend_on_its_company",
            "sources/test_generators.py::test_out_of_memory_halves_the_batch",
        ),
    ),
    16: Fault(
        "A process hangs or dies among others",
        "A process of training fails, or never comes to the meeting; a job runs out of its time",
        "The job ends and says who came; SLURM submits it again with more time, and not to the lost node",
        (
            "training/test_mgm_processes.py::test_whoever_waits_in_vain_is_ended_and_the_job_says_who_came",
            "training/test_mgm_processes.py::test_a_process_that_fails_fails_the_job_and_says_why",
            "slurm/test_slurm.py::test_the_next_attempt_gets_more_time_and_memory",
        ),
        left_out="errors of a GPU's own memory, which nothing can cause at will: they end the process, as these do",
    ),
    17: Fault(
        "Times that mean nothing",
        "Files touched, copied and restored; clocks two days ahead",
        "Nothing that costs a GPU runs again; a dry run says why anything would",
        (
            "workflow/test_workflow.py::test_touched_files_rerun_nothing",
            "workflow/test_pictures.py::test_touched_and_replaced_pictures_rerun_nothing",
            "workflow/test_failures.py::test_a_job_that_a_skewed_clock_fails_is_not_taken_for_finished",
        ),
    ),
    18: Fault(
        "Weights that are others than they should be",
        "A byte altered, a pointer instead of weights, a pickle under any name, another revision",
        "The job ends before it loads anything, with what was expected, what was found and what mends it",
        (
            "core/test_file_digests.py::test_an_altered_byte_is_seen_even_when_size_and_time_are_as_before",
            "core/test_protections.py::test_no_pickle_is_a_models_file_whatever_its_name",
            "deploy/test_stage.py::test_a_pointer_is_not_taken_for_a_model",
            "deploy/test_relay.py::test_an_altered_byte_is_found_before_any_training",
        ),
    ),
    19: Fault(
        "A job reaches for the network",
        "Programs that connect, look names up or swallow the error, and a hub's client",
        "The attempt is an error that names host and job, and it is logged even where it is swallowed",
        (
            "runtime/test_network.py::test_an_attempt_names_host_and_job",
            "runtime/test_network.py::test_the_hub_client_gives_up_at_once",
            "runtime/test_network.py::test_a_swallowed_attempt_is_logged",
        ),
    ),
    20: Fault(
        "Mistakes in the configuration",
        "Misspelt keys and operators, impossible ranges, odd names, equal datasets, keys twice; random changes",
        "Refused before the graph is built, all at once, with the nearest spelling",
        (
            "configuration/test_configuration.py::test_a_typing_error_is_named_with_the_nearest_spelling",
            "configuration/test_configuration.py::test_impossible_configurations_are_refused",
            "configuration/test_configuration.py::test_a_key_twice_is_refused_with_its_line",
            "faults/test_hostile_input.py::test_configurations",
        ),
    ),
    21: Fault(
        "A threshold, a model or a comment changes",
        "Each on a finished run",
        "What depends on it runs again, and nothing else; a comment reruns nothing",
        (
            "workflow/test_workflow.py::test_a_threshold_scores_nothing_and_touches_only_what_is_below",
            "workflow/test_workflow.py::test_another_model_invalidates_its_scores",
            "workflow/test_workflow.py::test_a_comment_in_a_script_reruns_nothing",
        ),
    ),
    22: Fault(
        "Captions that are missing, empty or repeat themselves",
        "Generators that answer so, that leave rows out, or name one twice; random splices",
        "Ids and order stay, exactly the confirmed rows change; a bad answer fails with a reason, and is counted",
        (
            "datasets/test_splice.py::test_a_splice_changes_exactly_what_was_confirmed",
            "sources/test_generators.py::test_bad_answers_fail_with_a_reason",
            "sources/test_generators.py::test_every_row_is_made_or_dropped",
            "datasets/test_datasets.py::test_a_generator_that_is_silent_about_a_row_is_refused",
        ),
    ),
    23: Fault(
        "Rows are lost or doubled by repeating",
        "Random rows, repeated any number of times and trained on in any order",
        "As many of each row as asked for, and every row once in an epoch",
        (
            "datasets/test_verbs.py::test_repeat_is_the_whole_set_again",
            "training/test_mgm_data.py::test_an_epoch_has_every_row_once_but_for_an_unfilled_step",
        ),
    ),
    24: Fault(
        "A seed collapses",
        "A loss that is no number, in one process and in several; early losses above the others'",
        "The run stops by the rule that was stated before, stays on the board as stopped, and is never replaced",
        (
            "training/test_mgm_training.py::test_a_loss_that_is_no_number_ends_the_run_on_record",
            "training/test_rungs.py::test_a_seed_that_fails_is_stopped_listed_and_never_replaced",
            "report/test_leaderboard.py::test_a_failed_seed_is_on_record_and_its_recipe_goes_on",
        ),
    ),
    25: Fault(
        "Some answers are missing",
        "Answers left out, there twice, of unknown questions; a process that answers dies",
        "No score is computed; what is missing is named",
        (
            "evaluation/test_textvqa.py::test_answer_files_that_are_not_whole_are_refused",
            "evaluation/test_mmbench.py::test_answer_files_that_are_not_whole_are_refused",
            "training/test_mgm_processes.py::test_two_processes_answer_what_one_answers",
        ),
    ),
    26: Fault(
        "More rows than the contest's cap",
        "Training sets above the cap, with the kit's own code beside ours",
        "The kit's choice, row by row; seed and left-out rows are on record",
        (
            "training/test_trainset.py::test_the_cap_is_the_kits_own_sampling",
            "training/test_trainset.py::test_a_recipe_caps_its_own_way",
        ),
    ),
    27: Fault(
        "SLURM's bad days",
        "Nodes drained, a job cancelled, out of time, out of memory, a controller away, on a SLURM of its own",
        "Every file is made; what ended badly is done again, nothing else, and nothing is left behind",
        (
            "slurm/test_slurm.py::test_every_mishap_ends_with_its_file",
            "slurm/test_slurm.py::test_only_those_that_ended_badly_are_done_again",
            "slurm/test_slurm.py::test_after_a_bad_day_nothing_is_left_behind",
            "slurm/test_submission.py::test_every_rule_asks_for_what_was_agreed",
        ),
    ),
    28: Fault(
        "A node's file is seen late",
        "A job's outputs appear seconds after it ended, as on a shared file system",
        "Snakemake waits `latency-wait` seconds, a minute in the profile, and runs nothing twice",
        ("faults/test_late_files.py::test_a_file_that_appears_late_is_waited_for_and_not_made_twice",),
    ),
    29: Fault(
        "Two runs in one folder",
        "A second Snakemake beside a live one",
        "The second exits at once, with the first one's process and host",
        (
            "runtime/test_lease.py::test_a_second_driver_is_refused_with_the_first_ones_process",
            "runtime/test_lease.py::test_of_many_that_want_a_dead_ones_lease_one_gets_it",
        ),
    ),
    30: Fault(
        "Another locale, time zone, hash seed, order or number of workers",
        "Each of these on the same data, with other shards and batches",
        "Every data file has the same bytes",
        (
            "faults/test_same_bytes.py::test_surroundings_change_no_byte",
            "pool/test_ingest.py::test_the_same_records_in_another_order_make_the_same_shards",
            "miniature/test_miniature.py::test_same_bytes_on_two_workers_and_another_hash_seed",
        ),
    ),
}


def document(figures: Mapping[str, float]) -> str:
    """`docs/faults.md`, of the table and of the figures of the last whole run of the tests."""
    rows = [
        f"| {number} | {fault.what} | {fault.injected} | {fault.happens} | {_held(figures, number)} |"
        for number, fault in FAULTS.items()
    ]
    left_out = [f"- Row {number}: {fault.left_out}." for number, fault in FAULTS.items() if fault.left_out]
    tests = [
        f"{number}. {fault.what}\n" + "\n".join(f"   - `tests/{test}`" for test in fault.tests)
        for number, fault in FAULTS.items()
    ]
    return "\n".join([INTRODUCTION, *_said(figures), "", TABLE, *rows, "", *left_out, "", "## Tests", "", *tests, ""])


INTRODUCTION = """# Faults, and what happens

What can go wrong is made to go wrong: `make test-faults` injects each of these on real parts, in its long form, and
writes this page and its figures ([measurements](measurements/faults.json)); `make test` has a sample of each.
The rule of the table: never a wrong number, never a silent drop, always a next command.
"""
TABLE = "| | fault | how it is injected | what happens | tests |\n| - | --- | --- | --- | --- |"
SAID = {
    "fault_rows_tested": "{:,.0f} of these thirty rows held when their tests were last run.",
    "kill_points": "Jobs were killed at {:,.0f} places;",
    "kill_points_survived": "after {:,.0f} of them the next run ended in the same files.",
    "fuzzed_inputs": "Readers were given {:,.0f} hostile inputs.",
    "corruptions_planted": "Of {:,.0f} corruptions, one of each kind of file that a run makes,",
    "corruptions_found": "`make audit` named {:,.0f}.",
    "mutations": "Of {:,.0f} protections that were taken out, one at a time,",
    "mutations_noticed": "tests noticed {:,.0f}.",
    "audit_410k_cpu_seconds": "It takes {:,.0f} s of one processor for 410,000 records,",
    "audit_410k_seconds": "{:,.0f} s by the clock of the machine that it was measured on.",
}


def _held(figures: Mapping[str, float], number: int) -> str:
    passed = figures.get(f"row_{number}_tests_passed")
    return "not run" if not passed else f"{passed:.0f} held"


def _said(figures: Mapping[str, float]) -> list[str]:
    words = [sentence.format(figures[name]) for name, sentence in SAID.items() if name in figures]
    return textwrap.wrap(" ".join(words), 118)


def write_document(figures: Mapping[str, float]) -> None:
    """Publish `docs/faults.md`."""
    with publish(DOCUMENT) as temporary:
        temporary.write_text(document(figures), encoding="utf-8")


if __name__ == "__main__":  # after a change of the table alone
    write_document(read_json(KEPT)["figures"])
