"""The door for launchers: `accelerate launch -m concise_rl.train` is `concise-rl train` on several processes."""

from concise_rl.commands.launched import end_with_launcher


def main() -> None:
    end_with_launcher()

    from concise_rl.commands.train import main as train

    train()


if __name__ == "__main__":
    main()
