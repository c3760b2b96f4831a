#!/usr/bin/env bash
# Stage 1: the Inductor (Sec. 3.3). DRY_RUN=1 prints the commands. Further arguments go to `tam inductor train`.
#
#   DATA=mixture.yaml OUT=inductor bash scripts/stage1_inductor.sh
#
# DATA     the instruction data whose questions are tagged; or TAGGED, questions with labels
# OUT      folder of the Inductor
# TAGGER   URL of an OpenAI-compatible endpoint, with OPENAI_API_KEY; TAGGER_MODEL its model
# BASE     the classifier's base model
#
# Open in the paper: the optimizer's settings of stage 1 (`tam inductor train --help` shows ours), the prompt of the
# tagger (ours: tam_plugin/inductor/tagging/prompts.py), and which 116,000 questions were taken.
SCRIPTS="$(dirname "${BASH_SOURCE[0]}")"
source "$SCRIPTS/_common.sh"

BASE="${BASE:-HuggingFaceTB/SmolLM2-135M-Instruct}"
TAGGER="${TAGGER:-https://api.deepseek.com}"
TAGGER_MODEL="${TAGGER_MODEL:-deepseek-reasoner}"
need OUT "a folder for the Inductor"

run() {
    if [[ "$DRY_RUN" == 1 ]]; then
        printf '%q ' "$PYTHON" -m tam_plugin.cli.main "$@"; printf '\n'
    else
        tam "$@"
    fi
}

if [[ -z "${TAGGED:-}" ]]; then
    need_path DATA "instruction data: LLaVA JSON, JSON lines, a YAML list, CSV or parquet"
    [[ "$DRY_RUN" == 1 ]] || mkdir -p "$OUT.data"
    run data collect "$DATA" --out "$OUT.data/queries.jsonl"
    run data dedup "$OUT.data/queries.jsonl" --out "$OUT.data/unique.jsonl"
    run data tag "$OUT.data/unique.jsonl" --out "$OUT.data/tagged.jsonl" --base-url "$TAGGER" --model "$TAGGER_MODEL"
    TAGGED="$OUT.data/tagged.jsonl"
else
    need_path TAGGED "JSON lines with question and label"
fi
run inductor train --data "$TAGGED" --base "$BASE" --out "$OUT" "$@"
