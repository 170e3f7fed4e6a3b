"""Where the chain's runs are, and which command reads which of their files."""

from pathlib import Path

from tests.faults.chain import CHAIN, differences

TEACHER = Path("results/Gen_teacher/smallcnndigits_cosine_n0.2")
STUDENT = Path("results/Distill_smallcnndigits_cosine_n0.2/table_best_acc_digits_cosine_n0.2")
PATHS = Path("results/Gen_path/run_digits_cosine")
HUMAN = Path("results/Gen_path/run_digitsh_cosine")
COMPARISON = Path("results/noisy_digits/run_c")
RUNS = {
    "main_gen_teacher": TEACHER,
    "main_distill": STUDENT,
    "main_gen_path": PATHS,
    "cifar10h_gen_path": HUMAN,
    "old_cifar_noisy": COMPARISON,
}
ANALYZED = {PATHS: ["PATH_TRAIN_COARSE", "PATH_BATCH_FINE"], HUMAN: ["PATH_ALL_COARSE", "PATH_ALL_FINE"]}
KEPT = ("best_acc", "best_loss", "epoch_3")


def resume(script):
    return script, *CHAIN[script], "--resume"


def evaluate(checkpoint):
    return "evaluate", TEACHER, "--checkpoint", checkpoint, "--device", "cpu"


def teach(kind, name):
    """A student of the chain's teacher, in results/new/new."""
    quick = "--net smallcnn --lr 0.05 --device cpu --amp off --batch_size 100 --epochs 1 --run_name new --proj_name new"
    return "main_distill", *quick.split(), "--teach_path", TEACHER.name, "--teach_type", kind, "--teach_name", name


def analyze(run):
    return "analyze_paths", run


# (file, a command that reads it)
READ = [
    *[
        (RUNS[script] / name, resume(script))
        for script in RUNS
        for name in ("args.json", "environment.json", "checksums.json", "last.pt")
        if script != "old_cifar_noisy" or name != "last.pt"
    ],
    *[(TEACHER / f"{name}.pt", evaluate(name)) for name in KEPT],
    *[(TEACHER / f"{name}.pt", teach("net", name)) for name in KEPT],
    *[(TEACHER / f"{name}.{end}", teach("table", name)) for name in KEPT for end in ("npy", "json")],
    *[
        (TEACHER / name, command)
        for name in ("args.json", "checksums.json")
        for command in (evaluate("best_acc"), teach("net", "best_acc"), teach("table", "best_acc"))
    ],
    *[
        (run / f"{name}.{end}", command)
        for script, run in (("main_gen_path", PATHS), ("cifar10h_gen_path", HUMAN))
        for name in ANALYZED[run]
        for end in ("npy", "json")
        for command in (resume(script), analyze(run))
    ],
    *[(PATHS / f"PATH_BATCH_COARSE.{end}", resume("main_gen_path")) for end in ("npy", "json")],
    *[(run / name, analyze(run)) for run in ANALYZED for name in ("args.json", "checksums.json", "labels.npz")],
    (HUMAN / "true_probs.npy", analyze(HUMAN)),
    *[
        (COMPARISON / f"seed_{seed}" / method / name, resume("old_cifar_noisy"))
        for seed, method in ((10086, "OHT"), (10086, "ESKD"), (10087, "ES-FilterKD"))
        for name in ("result.json", "checksums.json")
    ],
]


def differs(script, whole, folder):
    """Files of a script's run that are not as in the folder `whole`, pictures aside."""
    names = [name for name in differences(whole, folder) if name.startswith(f"{RUNS[script]}/")]
    return [name for name in names if not name.endswith(".png")]
