#!/usr/bin/env bash
# Stage 3: experts and projectors are initialized from stage 2, and everything but the Inductor trains (Sec. 3.3,
# Tab. 8). DRY_RUN=1 prints the command, what it would train and an estimate of its memory.
#
#   LLAVA_NEXT=LLaVA-NeXT MODEL=stage2-qwen DATA=stage3.yaml VIDEO_FOLDER=videos OUT=stage3-qwen \
#       bash scripts/stage3_all.sh
#
# MODEL          the checkpoint of stage 2, or a dense LLaVA checkpoint (with a ZeRO-3 DEEPSPEED: tam upcycle it first)
# EXPERTS, TOP_K the mixture: 4 and 2
# The other variables are those of stage2_llm_first.sh.
DEFAULT_NODES=2
source "$(dirname "${BASH_SOURCE[0]}")/_common.sh"

# Tab. 8: 16 GPUs, one sample each, accumulated twice, 3200 steps, ZeRO-2 with offloading.
BATCH_PER_GPU="${BATCH_PER_GPU:-1}"
ACCUMULATION="${ACCUMULATION:-2}"
MAX_STEPS="${MAX_STEPS:-3200}"
DEEPSPEED="${DEEPSPEED:-$SCRIPTS/zero2_offload.json}"

check_machines
need_model MODEL "the checkpoint of stage 2"
check_data

common_arguments
# Open in the paper: the projectors' rate (the language model's here) and the gates' (the vision tower's here).
launch "${ARGUMENTS[@]}" \
    --tam_moe True \
    --tam_num_experts "${EXPERTS:-4}" \
    --tam_top_k "${TOP_K:-2}" \
    --tam_balance_loss_weight 0.001 \
    --tam_z_loss_weight 0.0005 \
    --tam_projector_gate resolution \
    --mm_tunable_parts mm_vision_tower,mm_mlp_adapter,mm_language_model \
    --learning_rate "$(rate 2.5e-5)" \
    --mm_vision_tower_lr "$(rate 5e-6)" \
    "$@"
