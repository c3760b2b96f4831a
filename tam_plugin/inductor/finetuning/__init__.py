"""Fine-tuning of Inductors: stage 1 on any Hugging Face base, and a further task type by LoRA (Tab. 12)."""
