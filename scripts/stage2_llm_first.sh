#!/usr/bin/env bash
# Stage 2: the language model learns dynamic frames and resolution; tower and projector are frozen (Sec. 3.3, Tab. 8).
# DRY_RUN=1 prints the command, what it would train and an estimate of its memory. Further arguments go to the host.
#
#   LLAVA_NEXT=LLaVA-NeXT MODEL=lmms-lab/LLaVA-Video-7B-Qwen2 DATA=stage2.yaml VIDEO_FOLDER=videos OUT=stage2-qwen \
#       bash scripts/stage2_llm_first.sh
#
# LLAVA_NEXT     checkout of LLaVA-NeXT; nothing in it is changed
# MODEL          a LLaVA checkpoint with a SigLIP tower (the host wants "qwen" in the name)
# DATA           training set; VIDEO_FOLDER, IMAGE_FOLDER its media
# OUT            checkpoints; rerun the same command to resume
# ORDER          llm_first, or an ablation of Tab. 3b: projector_first, tower_and_projector_first
# PLANS          optional: folder of `tam plan-data`
# SKIP           optional: its bad_rows.jsonl, rows that are left out
# GPUS, NODES, NODE_RANK, MASTER_ADDR, MASTER_PORT, LAUNCHER, DEEPSPEED, POLICY, INDUCTOR: see _common.sh
DEFAULT_NODES=2
source "$(dirname "${BASH_SOURCE[0]}")/_common.sh"

# Tab. 8: 16 GPUs, one sample each, accumulated twice, 1200 steps, ZeRO-1 with offloading.
BATCH_PER_GPU="${BATCH_PER_GPU:-1}"
ACCUMULATION="${ACCUMULATION:-2}"
MAX_STEPS="${MAX_STEPS:-1200}"
DEEPSPEED="${DEEPSPEED:-$SCRIPTS/zero1_offload.json}"
ORDER="${ORDER:-llm_first}"

check_machines
need_model MODEL "a LLaVA checkpoint with a SigLIP tower"
check_data
TUNABLE="$("$PYTHON" -c 'import sys; from tam_plugin.training.recipe import STAGE2_ORDERS as o
sys.exit(f"ORDER={sys.argv[1]}: expected one of " + ", ".join(o)) if sys.argv[1] not in o else print(o[sys.argv[1]])' \
    "$ORDER")" || exit 2
case "$ORDER" in  # what of the visual side trains
    llm_first) VISUAL=none ;;
    projector_first) VISUAL=projectors ;;
    *) VISUAL=tower,projectors ;;
esac

common_arguments
# A dense tower and a single projector: the mixtures come in stage 3. Open in the paper: weight decay (the host's 0)
# and BS0 of Eq. 3 (32, the product of Tab. 8).
launch "${ARGUMENTS[@]}" \
    --tam_moe False \
    --tam_projector_gate single \
    --mm_tunable_parts "$TUNABLE" \
    --tam_tunable_parts "$VISUAL" \
    --learning_rate "$(rate 2.5e-5)" \
    --mm_vision_tower_lr "$(rate 5e-6)" \
    "$@"
