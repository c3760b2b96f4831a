# What the training scripts share: checks of paths, the launch, DRY_RUN. Sourced, not run.

set -euo pipefail

SCRIPTS="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
PYTHON="${PYTHON:-python3}"
export HF_HUB_OFFLINE="${HF_HUB_OFFLINE:-0}"

# Machines: GPUS on each of NODES. LAUNCHER: torchrun, deepspeed, or python (one process).
GPUS="${GPUS:-8}"
NODES="${NODES:-${DEFAULT_NODES:-1}}"
NODE_RANK="${NODE_RANK:-0}"
MASTER_ADDR="${MASTER_ADDR:-127.0.0.1}"
MASTER_PORT="${MASTER_PORT:-29500}"
LAUNCHER="${LAUNCHER:-torchrun}"
DRY_RUN="${DRY_RUN:-0}"

fail() { echo "$(basename "$0"): $*" >&2; exit 2; }

# need NAME WHAT: the variable is set.
need() { [[ -n "${!1:-}" ]] || fail "$1 is not set: expected $2"; }

# need_path NAME WHAT: the variable names something that exists.
need_path() { need "$1" "$2"; [[ -e "${!1}" ]] || fail "$1=${!1} does not exist: expected $2"; }

# need_model NAME WHAT: a folder with config.json, or a hub name.
need_model() {
    need "$1" "$2"
    case "${!1}" in
        /* | ./* | ../* | ~*) [[ -f "${!1}/config.json" ]] || fail "$1=${!1} holds no config.json: expected $2" ;;
    esac
}

need_whole() { [[ "${!1}" =~ ^[1-9][0-9]*$ ]] || fail "$1=${!1}: expected a whole number from 1"; }

check_machines() {
    for name in GPUS NODES; do need_whole "$name"; done
    command -v "$PYTHON" >/dev/null || fail "PYTHON=$PYTHON cannot be run: expected the environment's python"
    "$PYTHON" -c 'import tam_plugin' 2>/dev/null || fail "tam_plugin is not installed for $PYTHON: pip install it there"
    need_path LLAVA_NEXT "a checkout of LLaVA-NeXT"
    LLAVA_NEXT="$(cd "$LLAVA_NEXT" && pwd)"
    [[ -f "$LLAVA_NEXT/llava/train/train_mem.py" ]] || fail "LLAVA_NEXT=$LLAVA_NEXT holds no llava/train/train_mem.py"
    export PYTHONPATH="$LLAVA_NEXT${PYTHONPATH:+:$PYTHONPATH}"
}

check_data() {
    need_path DATA "the training set: a JSON, JSON lines, or a YAML list of them (scripts/data/*.yaml are templates)"
    need_path VIDEO_FOLDER "the folder that the data's video paths start from"
    IMAGE_FOLDER="${IMAGE_FOLDER:-$VIDEO_FOLDER}"
    need_path IMAGE_FOLDER "the folder that the data's image paths start from"
    need OUT "a folder for the checkpoints"
    if [[ -n "${PLANS:-}" ]]; then need_path PLANS "a folder that tam plan-data wrote"; fi
    if [[ -n "${SKIP:-}" ]]; then need_path SKIP "the bad_rows.jsonl that tam plan-data wrote"; fi
    if [[ "$DEEPSPEED" != none ]]; then need_path DEEPSPEED "a DeepSpeed configuration, or none"; fi
}

tam() { "$PYTHON" -m tam_plugin.cli.main "$@"; }

# batch_size: samples of one optimizer step.
batch_size() { echo $((BATCH_PER_GPU * ACCUMULATION * GPUS * NODES)); }

# rate LR0: the learning rate of Eq. 3 for this batch size.
rate() { tam recipe learning-rate "$1" --batch-size "$(batch_size)"; }

# common_arguments: what every stage passes to the host, into the array ARGUMENTS.
common_arguments() {
    ARGUMENTS=(
        --model_name_or_path "$MODEL"
        --version qwen_1_5
        --vision_tower tam
        --data_path "$DATA"
        --image_folder "$IMAGE_FOLDER"
        --video_folder "$VIDEO_FOLDER"
        --mm_projector_type mlp2x_gelu
        --mm_vision_select_layer -2
        --mm_use_im_start_end False
        --mm_use_im_patch_token False
        --mm_patch_merge_type spatial_unpad
        --mm_newline_position grid
        --image_aspect_ratio anyres_max_9
        --image_grid_pinpoints "(1x1),...,(6x6)"
        --group_by_modality_length True
        --add_time_instruction True
        --bf16 True
        --tf32 True
        --gradient_checkpointing True
        --lazy_preprocess True
        --dataloader_num_workers 4
        --dataloader_drop_last True
        --num_train_epochs 1
        --max_steps "$MAX_STEPS"
        --per_device_train_batch_size "$BATCH_PER_GPU"
        --gradient_accumulation_steps "$ACCUMULATION"
        --lr_scheduler_type cosine
        --warmup_ratio 0.03
        --weight_decay 0.
        --model_max_length 21000
        --evaluation_strategy no
        --save_strategy steps
        --save_steps "${SAVE_STEPS:-100}"
        --save_total_limit 2
        --logging_steps 1
        --report_to "${REPORT_TO:-none}"
        --run_name "$(basename "$OUT")"
        --output_dir "$OUT"
    )
    if [[ "$DEEPSPEED" != none ]]; then ARGUMENTS+=(--deepspeed "$DEEPSPEED"); fi
    if [[ -n "${PLANS:-}" ]]; then ARGUMENTS+=(--tam_plans "$PLANS"); fi
    if [[ -n "${SKIP:-}" ]]; then ARGUMENTS+=(--tam_skip "$SKIP"); fi
    if [[ -n "${SIGLIP:-}" ]]; then ARGUMENTS+=(--vision_tower_pretrained "$SIGLIP"); fi
    if [[ -n "${POLICY:-}" ]]; then ARGUMENTS+=(--tam_policy "$POLICY"); fi
    if [[ -n "${INDUCTOR:-}" ]]; then ARGUMENTS+=(--tam_inductor "$INDUCTOR"); fi
}

# lora_arguments: what the LoRA upgrades add to ARGUMENTS.
lora_arguments() {
    ARGUMENTS+=(
        --lora_enable True
        --lora_r "${LORA_R:-64}"
        --lora_alpha "${LORA_ALPHA:-128}"
        --lora_dropout "${LORA_DROPOUT:-0.05}"
        --tam_moe True
        --tam_num_experts "${EXPERTS:-4}"
        --tam_top_k "${TOP_K:-2}"
        --tam_balance_loss_weight 0.001
        --tam_z_loss_weight 0.0005
        --mm_tunable_parts mm_language_model
        --tam_tunable_parts gates,experts,projectors,newline
        --learning_rate "$(rate 2.5e-5)"
        --mm_vision_tower_lr "$(rate 5e-6)"
    )
}

# launch ARGUMENT...: run the host's script, or with DRY_RUN=1 print what would be run and what it would train.
launch() {
    local script="$LLAVA_NEXT/llava/train/train_mem.py" command
    case "$LAUNCHER" in
        torchrun)
            command=("$PYTHON" -m torch.distributed.run --nproc_per_node "$GPUS" --nnodes "$NODES"
                --node_rank "$NODE_RANK" --master_addr "$MASTER_ADDR" --master_port "$MASTER_PORT" "$script") ;;
        deepspeed)
            command=("$PYTHON" -m deepspeed.launcher.runner --num_gpus "$GPUS" --num_nodes "$NODES"
                --master_addr "$MASTER_ADDR" --master_port "$MASTER_PORT" "$script") ;;
        python) command=("$PYTHON" "$script") ;;
        *) fail "LAUNCHER=$LAUNCHER: expected torchrun, deepspeed or python" ;;
    esac
    if [[ "$DRY_RUN" == 1 ]]; then
        printf '%q ' "${command[@]}" "$@"
        printf '\n\n'
        tam recipe preview --gpus $((GPUS * NODES)) -- "$@"
    else
        # What training refuses is said here in one line; each launcher would end in a report of its own.
        if [[ "$LAUNCHER" != python ]]; then
            tam recipe preview --gpus $((GPUS * NODES)) -- "$@" >/dev/null || exit $?
        fi
        exec "${command[@]}" "$@"
    fi
}
