"""What protects data, taken out one at a time: for each, the change, and the tests that have to fail with it.

`pytest tests/mutations` tries them all; `python tests/support/mutations.py` lists them.
"""

from __future__ import annotations

from typing import NamedTuple

PROTECTIONS = "tests/core/test_protections.py"


class Mutation(NamedTuple):
    """A protection that is taken out of a file below `scripts/bettersynth`: `old` becomes `new`."""

    name: str
    file: str
    old: str
    new: str
    tests: str
    """What pytest is given: a file, or some tests of it (`-k` behind a blank)."""


MUTATIONS = [
    Mutation(
        "publish by rename",
        "core/publish.py",
        "        yield temporary\n        _share(temporary)\n        _sync(temporary)\n",
        "        yield path\n        return\n",
        f"{PROTECTIONS} -k a_file_is_what_it_was",
    ),
    Mutation(
        "fsync of a published file",
        "core/publish.py",
        "        _share(temporary)\n        _sync(temporary)\n",
        "        _share(temporary)\n",
        f"{PROTECTIONS} -k a_file_is_what_it_was",
    ),
    Mutation(
        "fsync of its folder",
        "core/publish.py",
        "        _sync(path.parent)\n    finally:\n        temporary.unlink",
        "    finally:\n        temporary.unlink",
        f"{PROTECTIONS} -k a_file_is_what_it_was",
    ),
    Mutation(
        "fsync of a folder's files",
        "core/publish.py",
        "                _share(file)\n                _sync(file)\n",
        "                _share(file)\n",
        f"{PROTECTIONS} -k a_folder_is_what_it_was",
    ),
    Mutation(
        "a failed job's half file is removed",
        "core/publish.py",
        "    finally:\n        temporary.unlink(missing_ok=True)\n",
        "    finally:\n        pass\n",
        f"{PROTECTIONS} -k what_fails_half_way",
    ),
    Mutation(
        "a killed job's half file is swept",
        "core/publish.py",
        "    sweep(path.parent)\n",
        "",
        f"{PROTECTIONS} -k a_kill_between",
    ),
    Mutation(
        "sha256 of score shards",
        "operators/gather.py",
        '    check(path, card["sha256"], card_path)\n',
        "",
        f"{PROTECTIONS} -k shard_of_scores",
    ),
    Mutation(
        "the handler of SIGTERM",
        "runtime/job.py",
        "        signal.signal(signal.SIGTERM, _terminated)\n",
        "",
        f"{PROTECTIONS} -k asked_to_end",
    ),
    Mutation(
        "a failed job's log is kept",
        "runtime/job.py",
        "    _ends_badly()\n    sys.exit(128",
        "    sys.exit(128",
        f"{PROTECTIONS} -k asked_to_end",
    ),
    Mutation(
        "a journal's torn line is cut off",
        "sources/journal.py",
        "            os.truncate(self.path, whole)\n",
        "            pass\n",
        f"{PROTECTIONS} -k torn_line",
    ),
    Mutation(
        "fsync of a journal",
        "sources/journal.py",
        "            os.fsync(file.fileno())\n",
        "",
        f"{PROTECTIONS} -k torn_line",
    ),
    Mutation(
        "the seal of a journal's line",
        "sources/journal.py",
        "line.pop(SEAL, None) in (None, seal_of(line))",
        "line.pop(SEAL, None) is not line",
        f"{PROTECTIONS} -k other_bytes",
    ),
    Mutation(
        "fsync of a lease",
        "runtime/lease.py",
        "            os.fsync(file.fileno())\n",
        "",
        f"{PROTECTIONS} -k a_lease_is_on_the_disk",
    ),
    Mutation(
        "the sha256 in a table",
        "core/tables.py",
        "    if stamp is not None and stamp != _sha256_around(path, place):\n",
        "    if False:\n",
        f"{PROTECTIONS} -k every_byte_of_a_table",
    ),
    Mutation(
        "the sha256 on a card",
        "core/digests.py",
        "    if (found := sha256_folder(path)) != sha256:\n",
        "    if (found := sha256_folder(path)) == '':\n",
        f"{PROTECTIONS} -k by_its_card",
    ),
    Mutation(
        "a digest is remembered by the time of the last change",
        "core/digests.py",
        "    return [stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]\n",
        "    return [stat.st_ino, stat.st_size, stat.st_mtime_ns, 0]\n",
        "tests/core/test_file_digests.py -k altered_byte",
    ),
    Mutation(
        "one holder of a lease",
        "runtime/lease.py",
        "        except FileExistsError:\n            return False\n        except OSError as error:\n",
        "        except FileExistsError:\n            return True\n        except OSError as error:\n",
        "tests/runtime/test_lease.py -k live_holder",
    ),
    Mutation(
        "a held lease ends the second driver",
        "runtime/lease.py",
        "            if found and is_live(path, found):\n                raise HeldError(path, found)\n",
        "",
        "tests/runtime/test_lease.py -k second_driver",
    ),
    Mutation(
        "paths stay below the image folder",
        "core/image_paths.py",
        "    if not real.is_relative_to(real_root):\n",
        "    if False:\n",
        "tests/pool/test_images.py -k link_out",
    ),
    Mutation(
        "no URL is a path",
        "core/image_paths.py",
        "    if _URL.match(name):\n",
        "    if False:\n",
        "tests/pool/test_images.py -k leave_the_folder",
    ),
    Mutation(
        "formats of images are listed",
        "pool/images.py",
        ", formats=FORMATS)",
        ")",
        "tests/pool/test_images.py -k unusable_headers",
    ),
    Mutation(
        "an image's size is asked before it is decoded",
        "pool/images.py",
        'reading.max_pixels, "pixels")',
        '10**12, "pixels")',
        "tests/pool/test_images.py -k too_large",
    ),
    Mutation(
        "one record for each id",
        "pool/ingest.py",
        "            if record.id in first_line:\n",
        "            if False:\n",
        "tests/pool/test_ingest.py -k first_of_equal_ids",
    ),
    Mutation(
        "answers to every question, once",
        "evaluation/answers.py",
        "    if faults:\n",
        "    if False:\n",
        "tests/evaluation/test_textvqa.py -k refused",
    ),
    Mutation(
        "scores of the records that are there",
        "datasets/scores.py",
        "    if other:\n",
        "    if False:\n",
        "tests/datasets/test_datasets.py -k other_records",
    ),
    Mutation(
        "a source says what became of every row",
        "datasets/generated.py",
        "    if pc.any(unclear).as_py():\n",
        "    if False:\n",
        "tests/datasets/test_datasets.py -k silent_about_a_row",
    ),
    Mutation(
        "no pickle is loaded",
        "core/model_files.py",
        "    if path.suffix in PICKLE_NAMES or _is_pickle(path, head):\n",
        "    if False:\n",
        f"{PROTECTIONS} -k no_pickle",
    ),
    Mutation(
        "no network in a job",
        "runtime/network.py",
        "    sys.addaudithook(",
        "    str(",
        "tests/runtime/test_network.py",
    ),
    Mutation(
        "an unpacked file has the bytes that were listed",
        "deploy/archive.py",
        "            raise ArchiveError(f\"{piece.name}: sha256 {found}, expected {entry['sha256']}\")\n",
        "            pass\n",
        "tests/deploy/test_hostile_bundle.py -k other_bytes",
    ),
    Mutation(
        "the seal of a card",
        "inspect/audit/links.py",
        "card.get(SEAL, seal_of(card)) != seal_of(card)",
        "False",
        f"{PROTECTIONS} -k a_card_with_another_number",
    ),
]


if __name__ == "__main__":
    for mutation in MUTATIONS:
        print(f"{mutation.name}: {mutation.file}, found by {mutation.tests}")
