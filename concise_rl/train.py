"""The door for launchers: `accelerate launch -m concise_rl.train` is `concise-rl train` on several processes."""

from concise_rl.commands.train import main

if __name__ == "__main__":
    main()
