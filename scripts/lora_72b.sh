#!/usr/bin/env bash
# Upgrade of a 72B checkpoint by LoRA: the language model by LoRA; gates, experts, projectors and newline in full; the
# tower's attention gets no LoRA. DRY_RUN=1 prints the command, what it would train and an estimate of its memory.
#
#   LLAVA_NEXT=LLaVA-NeXT MODEL=tam-qwen-72b DATA=stage3.yaml VIDEO_FOLDER=videos OUT=lora-qwen-72b \
#       bash scripts/lora_72b.sh
#   tam merge lora-qwen-72b tallva-72b --base $MODEL
#
# MODEL          a TAM checkpoint on disk: tam upcycle LLaVA-Video-72B tam-qwen-72b
# LORA_R, LORA_ALPHA, LORA_DROPOUT
# The other variables are those of stage2_llm_first.sh. Every checkpoint in OUT is complete; the same command resumes.
# The paper trains no 72B model by LoRA: all of this is ours, but the rates and the losses, which are its stage 3.
DEFAULT_NODES=2
source "$(dirname "${BASH_SOURCE[0]}")/_common.sh"

BATCH_PER_GPU="${BATCH_PER_GPU:-1}"
ACCUMULATION="${ACCUMULATION:-2}"
MAX_STEPS="${MAX_STEPS:-3200}"
DEEPSPEED="${DEEPSPEED:-$SCRIPTS/zero3.json}"

check_machines
need_model MODEL "a TAM checkpoint on disk: tam upcycle LLaVA-Video-72B tam-qwen-72b"
check_data

common_arguments
lora_arguments
launch "${ARGUMENTS[@]}" "$@"
