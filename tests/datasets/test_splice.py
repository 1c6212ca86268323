"""What a splice promises, on files of any shape: many small worlds, with failures, several images and repeated rows."""

from collections import Counter

import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pairs import configure_pairs

from bettersynth.core.layout import Layout
from bettersynth.core.records import END_OF_CHUNK, FAILED, IMAGE_TOKEN, ROWS, Record, caption_of, write_records
from bettersynth.core.tables import write_table
from bettersynth.datasets.build import build_dataset
from bettersynth.datasets.ledger import read_dropped, reason_of
from bettersynth.pool.ingest import INDEX
from bettersynth.pool.rows import load_records, read_rows
from bettersynth.sources.captioners.choice import captioned_text
from bettersynth.workflow.plan import Plan

FATES = ("untouched", "failed", "not confirmed", "replaced")
DATASETS = {
    "strong": {"from": "pool", "sample": {"fraction": 1.0, "seed": 1}},
    "base": {"from": "strong", "repeat": 2},
    "weak": {"from": "base", "sample": {"fraction": 1.0}},
    "rewritten": {"from": "weak", "recaption": {"captioner": "blip2"}},
    "better": {"from": "rewritten", "sample": {"fraction": 1.0, "seed": 2}},
    "kept": {"from": "base", "splice": "better"},
    "dropped": {"from": "base", "splice": {"dataset": "better", "unmatched": "drop"}},
}

chunks = st.lists(
    st.tuples(st.integers(1, 2), st.sampled_from(["a cat", "two dogs on a boat", "straße © 2012"])),
    min_size=1,
    max_size=2,
)
worlds = st.lists(st.tuples(chunks, st.sampled_from(FATES)), min_size=1, max_size=8)
orders = st.randoms(use_true_random=False)


def text(parts):
    """Data-Juicer's text: chunks of so many images and a caption."""
    return "".join(f"{IMAGE_TOKEN * images}\n{caption} {END_OF_CHUNK}" for images, caption in parts)


def write_rows(layout, dataset, rows):
    """Rows as an earlier verb would leave them."""
    write_table(layout.rows(dataset), pa.table([list(column) for column in zip(*rows, strict=True)] or [[], []], ROWS))


def build(folder, world, chance):
    """The datasets, with the rewriting played by hand; returns the layout, the plan and the base's rows."""
    captioners = {"blip2": {"model": "any"}}
    configuration = configure_pairs(folder, {"pool": []}, shards=1, captioners=captioners, datasets=DATASETS)
    layout, plan = Layout(folder / "results"), Plan(configuration)
    records = {
        f"r{place}": Record(f"r{place}", text(parts), [f"{place}-{n}.png" for n in range(sum(n for n, _ in parts))])
        for place, (parts, _) in enumerate(world)
    }
    fates = {f"r{place}": fate for place, (_, fate) in enumerate(world)}
    write_records(layout.records("pool", "pool-0000"), records.values())
    write_table(layout.index, pa.table([list(records), ["pool-0000"] * len(records)], INDEX))

    base = list(records) * 2
    chance.shuffle(base)
    write_rows(layout, "base", [(key, "pool") for key in base])
    write_rows(layout, "weak", [(key, "pool") for key in base if fates[key] != "untouched"])
    made = [
        record._replace(text=captioned_text(record.text, [f"new {n}" for n in range(len(record.images))]))
        for key, record in records.items()
        if fates[key] in ("not confirmed", "replaced")
    ]
    write_records(layout.records("rewritten", "rewritten-0000"), made)
    failed = [(key, "pool", "refusal") for key in records if fates[key] == "failed"]
    columns = list(zip(*failed, strict=True)) or [(), (), ()]
    write_table(
        layout.failed("rewritten", "rewritten-0000"),
        pa.table([pa.array(column, pa.string()) for column in columns], FAILED),
    )
    build_dataset("rewritten", configuration, layout, plan)
    better = [(key, "rewritten") for key in records if fates[key] == "replaced"]
    chance.shuffle(better)
    write_rows(layout, "better", better)
    cards = {name: build_dataset(name, configuration, layout, plan) for name in ("kept", "dropped")}
    return layout, plan, base, fates, records, cards


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(worlds, orders)
def test_a_splice_changes_exactly_what_was_confirmed(tmp_path_factory, world, chance):
    layout, plan, base, fates, records, cards = build(tmp_path_factory.mktemp("world"), world, chance)
    sources = {key: "rewritten" if fate == "replaced" else "pool" for key, fate in fates.items()}
    unmatched = {key for key, fate in fates.items() if fate in ("failed", "not confirmed")}

    kept = read_rows("kept", layout).to_pylist()
    assert [(row["id"], row["source"]) for row in kept] == [(key, sources[key]) for key in base]
    dropped = read_rows("dropped", layout).to_pylist()
    assert [(row["id"], row["source"]) for row in dropped] == [
        (key, sources[key]) for key in base if key not in unmatched
    ]

    changed = sum(fates[key] == "replaced" for key in base)
    gone = sum(key in unmatched for key in base)
    assert cards["kept"]["ledger"] == ledger(len(base), changed, {}, gone)
    reasons = {"rewritten, not in better": gone} if gone else {}
    assert cards["dropped"]["ledger"] == ledger(len(base), changed, reasons, gone)

    for row in load_records(read_rows("kept", layout), layout, plan).to_pylist():
        original = records[row["id"]]
        assert row["images"] == original.images
        assert structure(row["text"]) == structure(original.text)
        if fates[row["id"]] == "replaced":
            assert caption_of(row["text"]).split("new ")[1:] != []
        else:
            assert row["text"] == original.text

    failed = Counter(reason_of(row).words for row in read_dropped(layout.dropped("rewritten")).to_pylist())
    assert failed == Counter("refusal" for key in base if fates[key] == "failed")


def ledger(rows, changed, dropped, unmatched):
    out = rows - sum(dropped.values())
    return {"in": rows, "added": 0, "out": out, "changed": changed, "dropped": dropped, "unmatched": unmatched}


def structure(text):
    """Images of each chunk."""
    return [chunk.count(IMAGE_TOKEN) for chunk in text.split(END_OF_CHUNK) if chunk.strip()]
