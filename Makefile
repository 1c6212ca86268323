# The commands a person types. `make` alone lists them.
SHELL := /bin/bash
PYTHON ?= python3
CONFIG ?= config/miniature.yaml
CORES ?= all
TORCH ?=
TORCH_INDEX ?=
RECIPE ?=
DATASET ?=
FROM ?=
WHEELS ?=
PLATFORM ?=
PYTHON_VERSION ?=
PIN ?=
DRY_RUN ?=
OFFLINE ?=
TO ?=
UNTIL ?=
PART ?=
SPLIT ?=
MODELS ?=
RESULTS ?=
REPLACE ?=
YES ?=
CANCEL ?=
GPUS ?=
IMAGE ?=
QUESTION ?=
SEED ?=
ID ?=
A ?=
B ?=
DIFFERENCE ?=
SEEDS ?=
RECIPES ?=
SCATTER ?=
BESIDE ?=
KEEP ?=
SERVE ?=
PORT ?=
LIKE ?=
IMAGES ?=
CAPTION ?=
ROOM ?=

AGAIN ?=
READ ?=

# What a command line may set: for every command, and for each; anything else would be ignored, so it is refused.
RUNS := RECIPE CORES GPUS ROOM
SETS_UP := TORCH TORCH_INDEX OFFLINE
TAKES_setup := $(SETS_UP)
TAKES_demo := $(SETS_UP) $(RUNS)
TAKES_run := $(RUNS) AGAIN
TAKES_dry-run := $(TAKES_run)
TAKES_report := $(RUNS)
TAKES_lint := CORES GPUS
TAKES_resume := CANCEL
TAKES_new := FROM NAME TO IMAGES CAPTION LIKE IMAGE
TAKES_import := RECIPE LIKE NAME TO
TAKES_export-recipe := DATASET TO
TAKES_explain := DATASET RECIPE
TAKES_why := ID IMAGE
TAKES_compare := A B
TAKES_power := DIFFERENCE SEEDS RECIPES SCATTER
TAKES_analyse := DATASET BESIDE
TAKES_what-if := DATASET KEEP
TAKES_explore := SERVE PORT
TAKES_ask := IMAGE QUESTION RECIPE SEED
TAKES_upload := TO RECIPE SEED
TAKES_publish := DATASET RECIPE SEED IMAGES TO UPLOAD PUBLIC
TAKES_dag := RECIPE
TAKES_verify := RECIPE
TAKES_audit := READ
TAKES_stage := RECIPE FROM PIN DRY_RUN WHEELS PLATFORM PYTHON_VERSION TORCH_INDEX
TAKES_bundle := TO RECIPE UNTIL PART SPLIT MODELS RESULTS
TAKES_unbundle := FROM REPLACE YES
TAKES_clean-results := YES
TAKES_gc := YES
TAKES_merge := FROM REPLACE
GOALS := $(or $(MAKECMDGOALS),help)
TAKEN := CONFIG PYTHON TAKES_run $(foreach goal,$(GOALS),$(TAKES_$(goal)))
GIVEN := $(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),$(name)))
NEAREST = $(shell $(PYTHON) -c 'import difflib, sys; print(*difflib.get_close_matches(sys.argv[1], sys.argv[2:], 1))' '$(1)' $(TAKEN))
REFUSED = $(1)=… means nothing to `make $(GOALS)`$(patsubst %,; did you mean %,$(call NEAREST,$(1))). It takes $(sort $(filter-out TAKES_run,$(TAKEN)))
$(foreach name,$(filter-out $(TAKEN),$(GIVEN)),$(error $(call REFUSED,$(name))))

export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PYTHONPATH := $(CURDIR)/scripts:$(CURDIR)
export BETTERSYNTH_CONFIG := $(CONFIG)
export BETTERSYNTH_ROOM := $(ROOM)
# The configuration's name is its file's, unless it names itself.
NAME = $(or $(shell sed -n 's/^name: *["'"'"']\{0,1\}\([a-z0-9_]*\).*/\1/p' $(CONFIG) 2>/dev/null),$(subst -,_,$(notdir $(basename $(CONFIG)))))
# A path with a blank is two words to make, and so are the paths that follow from it.
$(if $(word 2,$(CONFIG)),$(error CONFIG=$(CONFIG): a path with a blank; rename the file or its folder))
# Where the account's cache cannot be written to, as in a container, Snakemake's records and ours are kept here.
ifneq ($(shell mkdir -p "$${XDG_CACHE_HOME:-$${HOME:-/nonexistent}/.cache}" 2>/dev/null && test -w "$${XDG_CACHE_HOME:-$$HOME/.cache}" && echo yes),yes)
export XDG_CACHE_HOME := $(CURDIR)/.snakemake/cache
endif
TARGET = $(if $(RECIPE),recipe_$(RECIPE),all)
SNAKEMAKE = snakemake --configfile $(CONFIG) --cores $(CORES) $(if $(GPUS),--resources gpu=$(GPUS)) $(if $(AGAIN),--forcerun $(AGAIN))
# The miniature's raw pairs are rendered; other configurations name files that are there already.
WORLD = ready $(if $(shell grep -l data/miniature/ $(CONFIG) 2>/dev/null),data/miniature/world.json)

.DEFAULT_GOAL := help
.PHONY: ready environment
environment:
	@test -x .venv/bin/snakemake || { echo "There is no environment yet; first run: make setup (OFFLINE=1 from staged wheels)"; exit 1; }
	@test -x "$$(sed -n '1s/^#!//p' .venv/bin/snakemake)" || { echo ".venv was made for another folder; first run: make setup (OFFLINE=1 from staged wheels)"; exit 1; }

ready: environment
	@test -f $(CONFIG) || { echo "$(CONFIG): no such configuration; there are: $(wildcard config/*.yaml)"; exit 1; }
	@python -m bettersynth.configuration $(CONFIG)

.PHONY: help setup demo world new import export-recipe run status doctor resume dry-run explain compare power published \
	why ask audit upload publish dag report page explore analyse what-if scores-table test test-slurm test-faults test-quick \
	lint format reference lock stage verify profile unprofile miniature-models quality \
	bench-dry-run bench-data-plane bench-explorer bench-full-size bench-scoring bench-decoding bench-training \
	bench-verdicts bench-captions captions-quality clean-results gc bundle unbundle merge

help:  ## list these commands
	@echo "make COMMAND [CONFIG=$(CONFIG)] [RECIPE=…] [CORES=$(CORES)] [GPUS=…]"; echo
	@grep -hE '^[a-z-]+:.*  ## ' $(MAKEFILE_LIST) | sed -E 's/:.*  ## /\t/' | sort | awk -F'\t' '{printf "  %-18s %s\n", $$1, $$2}'

setup:  ## make .venv from the locked versions (TORCH=cuda on GPU nodes, OFFLINE=1 from staged wheels)
	@$(PYTHON) scripts/setup.py $(if $(TORCH),--torch $(TORCH)) $(if $(TORCH_INDEX),--torch-index $(TORCH_INDEX)) \
		$(if $(OFFLINE),--offline) \
		$(if $(filter command line,$(origin PYTHON)),--this-python)
	@$(if $(filter demo,$(MAKECMDGOALS)),:,echo "Ready. Next: make run CONFIG=$(CONFIG)")

demo: setup  ## set up, run everything on the miniature, print the report's path
	@$(MAKE) --no-print-directory run TAKES_run='$(TAKES_demo)'

run: $(WORLD)  ## run a configuration, or one RECIPE of it (AGAIN="rules or files" made anew; ROOM=any: however little room there is)
	@$(SNAKEMAKE) --quiet host reason -- $(TARGET)
	@echo "$(if $(RECIPE),Results: $(CURDIR)/results/$(NAME)/runs/$(RECIPE),Report: $(CURDIR)/results/$(NAME)/report/index.html)"

resume: ready  ## go on with a run that was cut off: wait for its SLURM jobs (or CANCEL=1), unlock, run
	@bettersynth resume --config $(CONFIG) $(if $(CANCEL),--cancel)

status: ready  ## say how far the run is, and what each job at work, queued or failed is doing
	@bettersynth status --config $(CONFIG)

doctor: ready  ## look at the SLURM cluster and say what to change in the profile
	@bettersynth doctor --config $(CONFIG)

world: data/miniature/world.json  ## render the miniature's raw pairs and questions

data/miniature/world.json: resources/miniature/world.yaml
	@python -m miniature render --settings $< --out $(@D)
	@touch $@

dry-run: $(WORLD)  ## say what would run, why, and what it will cost
	@$(SNAKEMAKE) --quiet host rules progress --logger cost --dry-run -- $(TARGET)

explain: ready  ## say in words where a DATASET or RECIPE comes from, with row counts
	@bettersynth explain --config $(CONFIG) $(DATASET:%=--dataset %) $(RECIPE:%=--recipe %)

export IMAGE QUESTION ID KEEP
compare: ready  ## say whether two recipes differ by more than luck: A=best B=matched
	@bettersynth compare --config $(CONFIG) $(or $(A),$(error A=…: a recipe)) $(or $(B),$(error B=…: the recipe beside it))

.PHONY: new
new: environment  ## look at the pairs in FROM=… and write config/NAME.yaml for them (LIKE=…, IMAGES=…, CAPTION=…, IMAGE=…)
	@bettersynth new "$(or $(FROM),$(error FROM=…: a folder of tars or Parquet, or a JSON))" $(if $(filter command line,$(origin NAME)),--name "$(NAME)") \
		$(if $(TO),--to "$(TO)") $(IMAGES:%=--images "%") $(if $(CAPTION),--caption "$(CAPTION)") $(if $(IMAGE),--image "$(IMAGE)") \
		$(if $(LIKE),--like "$(LIKE)")

power: ready  ## say what difference so many seeds can show, and what a wanted one takes: [DIFFERENCE=1.05 SEEDS=… RECIPES=… SCATTER=…]
	@bettersynth power --config $(CONFIG) $(DIFFERENCE:%=--difference %) $(SEEDS:%=--seeds %) $(RECIPES:%=--recipes %) \
		$(SCATTER:%=--scatter %)

.PHONY: import export-recipe
import: environment  ## turn the Data-Juicer recipe RECIPE=process.yaml into config/NAME.yaml, for the pool and models of LIKE=…
	@bettersynth import-recipe "$(or $(RECIPE),$(error RECIPE=process.yaml: a Data-Juicer recipe))" --like "$(or $(LIKE),$(CONFIG))" \
		$(if $(filter command line,$(origin NAME)),--name "$(NAME)") $(if $(TO),--to "$(TO)")

export-recipe: ready  ## write DATASET=… as a Data-Juicer recipe that keeps the same rows (TO=…)
	@bettersynth export-recipe --config $(CONFIG) --dataset $(or $(DATASET),$(error DATASET=…: which)) $(if $(TO),--to "$(TO)")

published: environment  ## say which differences the contest's published tables support, with one run of each recipe
	@bettersynth published

why: ready  ## say everything that happened to one record: ID=… or IMAGE=…
	@bettersynth why --config $(CONFIG) $${ID:+--id "$$ID"} $${IMAGE:+--image "$$IMAGE"}

ask: ready  ## ask a trained model: IMAGE=picture.jpg QUESTION="What is this?" [RECIPE=… SEED=…]
	@bettersynth ask "$$IMAGE" "$$QUESTION" --config $(CONFIG) $(if $(RECIPE),--recipe $(RECIPE)) \
		$(if $(SEED),--seed $(SEED))

audit: ready  ## hold every file of a run against what it was made of, and name the first broken link (READ=1: every byte)
	@bettersynth audit --config $(CONFIG) $(if $(READ),--all-bytes)

upload: ready  ## write a trained model's answers for MMBench's server: TO=….xlsx [RECIPE=… SEED=…]
	@bettersynth upload --config $(CONFIG) --to $(or $(TO),$(error TO=….xlsx: where to)) \
		$(if $(RECIPE),--recipe $(RECIPE)) $(if $(SEED),--seed $(SEED))

publish: ready  ## prepare DATASET=… (IMAGES=no), or the model of RECIPE=…, for the hub; upload it with TO=owner/name UPLOAD=1 (PUBLIC=1)
	@bettersynth publish --config $(CONFIG) $(DATASET:%=--dataset %) $(RECIPE:%=--recipe %) $(SEED:%=--seed %) \
		$(if $(filter no,$(IMAGES)),--no-images) $(TO:%=--to %) $(if $(UPLOAD),--upload) $(if $(PUBLIC),--public)

dag: $(WORLD)  ## draw rules and datasets of CONFIG as SVG; of one RECIPE, its jobs too
	@bettersynth dag --config $(CONFIG) $(if $(RECIPE),--recipe $(RECIPE))

report: $(WORLD)  ## Snakemake's own report of what ran
	@$(SNAKEMAKE) --report results/$(NAME)/report/snakemake.html $(TARGET)

page: ready  ## write the leaderboard and the page from what is there so far
	@bettersynth page --config $(CONFIG)

explore: ready  ## write the page in which thresholds are chosen by looking (SERVE=1 [PORT=…] shows every picture)
	@bettersynth explore --config $(CONFIG) $(if $(SERVE),--serve) $(PORT:%=--port %)

analyse: ready  ## figures of every score of a DATASET (the pool, unless named), or of two (BESIDE=…), as dj-analyze gives them
	@bettersynth analyse --config $(CONFIG) $(DATASET:%=--dataset %) $(BESIDE:%=--beside %)

what-if: ready  ## rows that thresholds would keep of DATASET (KEEP='words_num>=6,8 image_size<=1e6' for joint ones)
	@bettersynth what-if --config $(CONFIG) $(DATASET:%=--dataset %) $${KEEP:+--keep "$$KEEP"}

scores-table: ready  ## write all scores, captions and image paths as Parquet for pandas, DuckDB and others
	@bettersynth scores-table --config $(CONFIG)

test:  ## run every test (about ten minutes); those on a SLURM of their own where it is installed, unless SLURM_TESTS=0
	@pytest -q --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder -m "not faults"

test-slurm:  ## run the tests that start a SLURM of their own on this machine (as root, with SLURM installed)
	@pytest -q tests/slurm/test_slurm.py

test-faults:  ## run every test of a fault in its long form, and write docs/faults.md and docs/measurements/faults.json
	@python -m bench faults

test-quick:  ## run the tests that start no workflow and load no model (under a minute)
	@pytest -q --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder -m "not workflow and not models and not slurm and not faults" \
		$(addprefix --ignore tests/,operators sources training miniature)

lint: $(WORLD)  ## ruff, snakefmt, mypy, import-linter and Snakemake's own linter
	@ruff check . && ruff format --check . && snakefmt --check Snakefile rules && mypy && lint-imports && $(SNAKEMAKE) --lint

format:  ## format Python and Snakemake files
	@ruff check --fix --quiet . ; ruff format . && snakefmt Snakefile rules

reference:  ## write the schema and the reference page from the configuration's types
	@bettersynth reference

lock:  ## pin what is installed in .venv
	@bettersynth lock

stage: $(WORLD)  ## fetch all that CONFIG or RECIPE needs for machines without a network (FROM=copies, WHEELS=cpu|cuda, PIN=1, DRY_RUN=1)
	@bettersynth stage --config $(CONFIG) $(if $(RECIPE),--recipe $(RECIPE)) $(if $(FROM),--from $(FROM)) $(if $(PIN),--pin) $(if $(DRY_RUN),--dry-run) \
		$(if $(WHEELS),--wheels $(WHEELS) $(PLATFORM:%=--platform %) \
		$(if $(PYTHON_VERSION),--python-version $(PYTHON_VERSION)) $(if $(TORCH_INDEX),--torch-index $(TORCH_INDEX)))

verify: ready  ## check what was staged for CONFIG or RECIPE, without a network
	@bettersynth verify --config $(CONFIG) $(if $(RECIPE),--recipe $(RECIPE))

bundle: ready  ## pack what the next jobs of RECIPE need as TO=….tar.zst (UNTIL=rule PART=1/3 MODELS=1 SPLIT=4G), or RESULTS=1
	@bettersynth bundle --config $(CONFIG) --to $(or $(TO),$(error TO=….tar.zst: where to)) \
		$(if $(RECIPE),--recipe $(RECIPE)) $(if $(UNTIL),--until $(UNTIL)) $(if $(PART),--part $(PART)) \
		$(if $(SPLIT),--split $(SPLIT)) $(if $(MODELS),--models) $(if $(RESULTS),--results)

unbundle: environment  ## open a bundle of work here (FROM=….tar.zst)
	@bettersynth unbundle --from $(or $(FROM),$(error FROM=….tar.zst: which)) $(if $(REPLACE),--replace) $(if $(YES),--yes)

merge: environment  ## take the results of another machine in (FROM=….tar.zst)
	@bettersynth unbundle --results --from $(or $(FROM),$(error FROM=….tar.zst: which)) $(if $(REPLACE),--replace)

profile:  ## link the SLURM profile into your Snakemake folder, for other working directories
	@bettersynth profile link

unprofile:  ## undo `make profile`
	@bettersynth profile unlink

miniature-models:  ## train the miniature's models again (an hour on a GPU)
	@python -m miniature.train_models train

quality:  ## measure the miniature's models on held-out scenes
	@python -m miniature.train_models quality

bench-data-plane:  ## time every verb and training file of the contest over 410,000 records with drawn scores
	@python -m bench data-plane

bench-explorer:  ## size and speed of the explorer over 410,000 records, in Chromium
	@python -m bench explorer

bench-full-size:  ## render 410,000 records of the miniature's world and time ingest, every verb and training files
	@python -m bench full-size

bench-captions:  ## time captions and redraws, Data-Juicer's mappers and ours (needs a GPU)
	@python -m bench captions

captions-quality: $(WORLD)  ## are the miniature's captions right, before and after, by captioner
	@python -m bench captions-quality

bench-dry-run:  ## time a dry run of every recipe (of the contest, unless CONFIG says otherwise)
	@python -m bench dry-run $(if $(filter-out file,$(origin CONFIG)),--config $(CONFIG))

bench-scoring:  ## Data-Juicer's operators and ours on one GPU: rates, differences and all six in one pass
	@python -m bench scoring

bench-decoding:  ## JPEG decoders and resizing, on one core
	@python -m bench decoding

bench-verdicts:  ## how often the leaderboard's words are true, on simulated boards beside other rules
	@python -m bench verdicts

bench-training:  ## MGM-2B at its real size on one GPU: rates of both stages and of answering
	@python -m bench mgm-training

clean-results: environment  ## delete the results of CONFIG, its logs and benchmarks, after asking (YES=1: without)
	@bettersynth clean-results --config "$(CONFIG)" $(if $(YES),--yes)

gc: environment  ## list by size what no configuration in config/ needs any more of the results (YES=1: remove it)
	@bettersynth gc --config "$(CONFIG)" $(if $(YES),--yes)
