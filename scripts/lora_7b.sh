#!/usr/bin/env bash
# Upgrade of a 7B checkpoint by LoRA: the language model by LoRA; gates, experts, projectors and newline in full; the
# tower's attention gets no LoRA. DRY_RUN=1 prints the command, what it would train and an estimate of its memory.
#
#   LLAVA_NEXT=LLaVA-NeXT MODEL=lmms-lab/LLaVA-Video-7B-Qwen2 DATA=stage3.yaml VIDEO_FOLDER=videos OUT=lora-qwen-7b \
#       bash scripts/lora_7b.sh
#   tam merge lora-qwen-7b tallva-7b --base $MODEL
#
# MODEL          a LLaVA-Video or LLaVA-OneVision checkpoint
# LORA_R, LORA_ALPHA, LORA_DROPOUT
# The other variables are those of stage2_llm_first.sh. Every checkpoint in OUT is complete; the same command resumes.
# The paper trains no 7B model by LoRA: all of this is ours, but the rates and the losses, which are its stage 3.
source "$(dirname "${BASH_SOURCE[0]}")/_common.sh"

BATCH_PER_GPU="${BATCH_PER_GPU:-1}"
ACCUMULATION="${ACCUMULATION:-2}"
MAX_STEPS="${MAX_STEPS:-3200}"
DEEPSPEED="${DEEPSPEED:-$SCRIPTS/zero2_offload.json}"

check_machines
need_model MODEL "a LLaVA-Video or LLaVA-OneVision checkpoint"
check_data

common_arguments
lora_arguments
launch "${ARGUMENTS[@]}" "$@"
