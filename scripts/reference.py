"""Write `config/schema.json` and `docs/configuration.md` from the configuration's types (`make reference`)."""

from pathlib import Path

from bettersynth.configuration.reference import page, schema
from bettersynth.publish import publish

ROOT = Path(__file__).resolve().parent.parent

for path, text in ((ROOT / "config" / "schema.json", schema()), (ROOT / "docs" / "configuration.md", page())):
    with publish(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(path.relative_to(ROOT))
