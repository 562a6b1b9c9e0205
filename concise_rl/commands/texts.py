"""What commands say of themselves; no imports, so that `--help` answers at once."""

HELP = """\
concise-rl: train reasoning models to think no longer than they need

usage: concise-rl COMMAND [OPTIONS]        concise-rl COMMAND --help says more

run
  train       train a model            concise-rl train method=hapo seed=1
  eval        accuracy and tokens      concise-rl eval model.path=runs/a/model
  plan        memory, time and cost    concise-rl plan model=qwen3_1.7b \\
              of a run, beforehand         hardware=h100x8
  warmup      make the reasoner of     concise-rl warmup task=which_sum --out D
              an embedded task

without reinforcement learning
  sample      judged completions       concise-rl sample store=runs/s.jsonl
  select      rows or pairs of them    concise-rl select stores=runs/s.jsonl \\
                                           out=runs/rows.jsonl
  tune        SFT, DPO, SimPO,         concise-rl tune rows=runs/rows.jsonl
              O1-Pruner's weights
  merge       two models averaged      concise-rl merge A B --out M
  pipeline    stages of the above      concise-rl pipeline \\
                                           recipe=kimi_long2short

look
  diagnose    what is wrong with a     concise-rl diagnose runs/demo
              run, and why
  compare     runs and evaluations     concise-rl compare runs/grpo runs/hapo
              on one page
  replay      other methods on a       concise-rl replay runs/demo hapo kimi
              run's stored rollouts
  fit         a run's curve, and       concise-rl fit runs/demo
              what its half foretold
  predict     where a method settles   concise-rl predict method=kimi \\
              on a test bed                data=which_sum

know
  methods     the built-in methods     concise-rl methods hapo
  components  what they are made of    concise-rl components shaper
  init        a method of your own     concise-rl init my_method
  completion  for your shell           concise-rl completion bash

train and eval take KEY=VALUE, and -m for a sweep:
  method=pear model=tiny data=chain_sum run=cpu peft=lora    choose recipes
  shaper.hapo.weight=0.5 trainer.learning_rate=1e-5          set fields
  method.shapers='[hapo,my_shapers.py:Budget]'               compose; your own
  -m method=grpo,hapo seed=0,1,2                             a sweep

`accelerate launch -m concise_rl.train ...` is `concise-rl train ...` on several
processes. CONCISE_RL_TRACEBACK=1 shows where an error arose.
"""


COMPLETION = """\
concise-rl completion: complete commands, recipes and fields in your shell

  bash   add to ~/.bashrc:                   eval "$(concise-rl completion bash)"
  zsh    add to ~/.zshrc, after compinit:    eval "$(concise-rl completion zsh)"
  fish   add to ~/.config/fish/config.fish:  concise-rl completion fish | source
"""


PLAN = """\
concise-rl plan: memory of each rank by part, seconds of a step, hours, cost, and the first thing that does not fit

usage: concise-rl plan [KEY=VALUE ...]

  hardware=cpu2|h100x1|h100x8          default: what run= is made for, else cpu2
  layout=ddp|zero2|zero3|zero3_offload|fsdp2      default: ddp on one rank, zero2 on several
  prompt_tokens=256 completion_tokens=2000        of a prompt, and of a completion on average (default: half its limit)
  prompts_per_step=64 group_size=8 steps=500      default: what the recipes say
  price=3.0                                       dollars an hour of the whole machine

Every other key is an override of `concise-rl train`: model=, method=, peft=lora, trainer.max_completion_length=8192.
"""
