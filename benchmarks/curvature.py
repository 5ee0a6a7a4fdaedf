"""How fast, exact and large the curvature package is, against matfree and hessian-eigenthings. All in one run.

    .venv/bin/python benchmarks/curvature.py [--quick] [--only race,memory] [--data FOLDER] [--json FILE]

Contenders are warm and wait, and are measured by turns, five times each: medians and extremes are reported. Ratios are
those of the same turn. The case is made where it is not there yet: see curvature_case.py.

    race      64 Lanczos steps with full reorthogonalisation on an MLP of 669,706 parameters and 2,000 images: ours, 64
              bare products of ours, matfree, hessian-eigenthings; and their five largest eigenvalues against float64
    gradient  a Hessian product against a gradient, on data in memory
    memory    the peak of our Lanczos against 1.3 times its basis and one product
    vmap      8 seeds of a small network: one program with a run axis against 8 calls; on a CPU the runs are mapped
    all       60,000 images in microbatches of 500: Lanczos steps against as many gradients, and the peak
    export    cv.slq lowers for CUDA and TPU

--quick needs no data: images are made up, steps few. Its figures say nothing.
"""

import argparse
import contextlib
import json
import os
import pathlib

import timing
from train_step import at_most

STEPS = 64
OURS, BARE, MATFREE = "ours", "bare products", "matfree"
TORCH = "hessian-eigenthings"


def ours(given, what, *arguments):
    """The command of our worker."""
    return ("curvature_ours.py", what, "--case", given.case, *given.data_arguments, *arguments)


def turns(given, teams):
    """Every team's answers, one a round: name -> list. Ends the workers."""
    with contextlib.ExitStack() as stack:
        for worker in teams.values():
            stack.enter_context(worker)
        for worker in teams.values():
            worker.answer()  # it is ready
        answers = timing.alternate({name: [worker] for name, worker in teams.items()}, given.rounds)
    found = {name: [turn[0] for turn in rounds] for name, rounds in answers.items()}
    for name, rounds in found.items():
        if not all(answer.get("finite", True) for answer in rounds):
            raise RuntimeError(f"{name} gave numbers that are not finite: its times do not count.")
    return found


def seconds(rounds):
    """What the answers say of time."""
    return [answer["seconds"] for answer in rounds]


def workers(given, steps, **whats):
    """Workers of ours: name -> Worker, from name=(what, *arguments)."""
    return {
        name: timing.Worker(*ours(given, *what, "--steps", steps, "--serve"))
        for name, what in ((name.replace("_", " "), what) for name, what in whats.items())
    }


def error(top, reference):
    """The largest difference between the eigenvalues, in order, relative to the largest one."""
    if len(top) < len(reference):
        return float("nan")
    return max(abs(a - b) for a, b in zip(top, reference, strict=True)) / abs(reference[0])


def contenders(given, steps):
    """The workers of the race, by name."""
    case = ("--case", given.case, "--steps", steps, "--serve")
    teams = workers(given, steps, ours=("lanczos",), bare_products=("products",))
    if not given.no_matfree:
        teams[MATFREE] = timing.Worker("peers/matfree_lanczos.py", *case)
        teams[f"{MATFREE}, its default"] = timing.Worker("peers/matfree_lanczos.py", *case, "--custom-vjp")
    if given.peers:
        threads = ("--threads", len(os.sched_getaffinity(0)))
        ways = {"": "tridiagonal", ", spectral_density": "density", ", its default": "default"}
        for name, method in ways.items():
            arguments = ("peers/torch_eigenthings.py", *case, *threads, "--method", method)
            teams[TORCH + name] = timing.Worker(*arguments, python=given.peers)
    return teams


def race(given, reference):
    """Seconds and accuracy of every contender."""
    steps = 8 if given.quick else STEPS
    answers = turns(given, contenders(given, steps))
    rows = {}
    for name, rounds in answers.items():
        last = rounds[-1]
        rows[name] = {
            "seconds": timing.spread(seconds(rounds)),
            "ours_over_it": timing.ratio(seconds(answers[OURS]), seconds(rounds)),
            "error": error(last["top"], reference["top"]) if "top" in last else None,
            "peak_bytes": last.get("peak_bytes"),
            "top": last.get("top"),
            "bottom": last.get("bottom"),
        }
    header = ("", "s", "ours / it", "error of the top five", "own peak, bytes")
    cells = [(name, *(_or_dash(row[key]) for key in list(row)[:4])) for name, row in rows.items()]
    print(timing.table(f"{steps} Lanczos steps, full reorthogonalisation", header, cells))
    wanted = {_best(rows, MATFREE): 0.6, _best(rows, TORCH): 0.4, BARE: 1.3}
    targets = [
        at_most(f"race: seconds of ours over {name}", most, rows[name]["ours_over_it"]["median"])
        for name, most in wanted.items()
        if name
    ]
    targets.append(at_most("race: error of our top five", 1e-5, rows[OURS]["error"]))
    return {"steps": steps, "teams": rows, "reference": reference}, targets


def _best(rows, library):
    """The fastest way of a library with full reorthogonalisation; None where it does not take part."""
    names = [name for name in rows if name.startswith(library) and name != f"{TORCH}, its default"]
    return min(names, key=lambda name: rows[name]["seconds"]["median"], default=None)


def _or_dash(value):
    if value is None:
        return "-"
    return f"{value:.1e}" if isinstance(value, float) else value


def gradient(given, _):
    """A product in a loop against a gradient in a loop."""
    steps = 4 if given.quick else STEPS
    answers = turns(given, workers(given, steps, gradients=("gradients",), products=("products",)))
    each = {name: [1e3 * s / steps for s in seconds(rounds)] for name, rounds in answers.items()}
    found = {name: timing.spread(values) for name, values in each.items()}
    found["ratio"] = timing.ratio(each["products"], each["gradients"])
    rows = [("a gradient", found["gradients"]), ("a product", found["products"]), ("ratio", found["ratio"])]
    print(timing.table("A Hessian product on data in memory", ("", "ms"), rows))
    return found, [at_most("gradient: a product's seconds over a gradient's", 1.7, found["ratio"]["median"])]


def memory(given, _):
    """What the compiler says of the peak."""
    found = timing.answer_of(*ours(given, "memory", "--steps", STEPS))
    found["allowed"] = int(1.3 * found["basis"]) + found["product"]
    names = ("lanczos", "basis", "product", "gradient", "allowed")
    title = f"Bytes of temporary buffers and outputs, {STEPS} steps"
    print(timing.table(title, ("", "bytes"), [(name, found[name]) for name in names]))
    return found, [at_most("memory: share of what Lanczos may use", 1.0, found["lanczos"] / found["allowed"])]


def vmap(given, _):
    """8 seeds side by side, or one after another."""
    steps = 4 if given.quick else STEPS
    whats = {"one_vmap": ("vmap",), "one_map": ("map",), "eight_calls": ("calls",)}
    answers = turns(given, workers(given, steps, **whats))
    rows = {
        name: {
            "seconds": timing.spread(seconds(rounds)),
            "over_calls": timing.ratio(seconds(rounds), seconds(answers["eight calls"])),
        }
        for name, rounds in answers.items()
    }
    cells = [(name, *row.values()) for name, row in rows.items()]
    print(timing.table("8 seeds, MLP 784-60-32-10", ("", "s", "over 8 calls"), cells))
    best = "one map" if given.backend == "cpu" else "one vmap"  # what sweep.py does with runs
    return rows, [at_most(f"vmap: seconds of {best} over those of 8 calls", 1.0, rows[best]["over_calls"]["median"])]


def everything(given, _):
    """All images, by microbatches; fewer steps in time than in memory, for patience."""
    steps, images = (2, 2_000) if given.quick else (16, 60_000)
    sizes = ("--images", images, "--microbatch", 500)
    whats = {"gradients": ("gradients", *sizes), "lanczos": ("lanczos", *sizes)}
    answers = turns(given, workers(given, steps, **whats))
    bytes_of = timing.answer_of(*ours(given, "memory", *sizes, "--steps", STEPS))
    found = {name: timing.spread(seconds(rounds)) for name, rounds in answers.items()}
    found["ratio"] = timing.ratio(seconds(answers["lanczos"]), seconds(answers["gradients"]))
    found["peak_bytes"] = bytes_of["lanczos"] + bytes_of["arguments"]
    found["memory"] = bytes_of
    rows = [(f"{steps} {name}, s", found[name]) for name in whats]
    rows += [("ratio", found["ratio"]), (f"peak of {STEPS} steps with the data, bytes", found["peak_bytes"])]
    print(timing.table(f"{images:,} images in microbatches of 500", ("", ""), rows))
    return found, [
        at_most("all: seconds of Lanczos over those of as many gradients", 2.75, found["ratio"]["median"]),
        at_most("all: peak, GB", 1.0, found["peak_bytes"] / 1e9),
    ]


def export(given, _):
    """Both platforms, alone and together."""
    found = timing.answer_of(*ours(given, "export", "--steps", STEPS))
    rows = [(name, result.get("bytes", "-"), result.get("error", "lowers")) for name, result in found.items()]
    print(timing.table("Export of cv.slq", ("platform", "bytes", "result"), rows))
    failed = sum("error" in result for result in found.values())
    return found, [at_most("export: platforms that fail", 0.0, float(failed))]


MEASURES = {
    "race": race,
    "gradient": gradient,
    "memory": memory,
    "vmap": vmap,
    "all": everything,
    "export": export,
}


def the_case(given):
    """(what case.json says, what reference.json says); both are made where they are not there."""
    case, made_of = ("--case", given.case), given.data_arguments
    if not (given.case / "case.json").exists():
        timing.answer_of("curvature_case.py", "make", *case, *made_of)
    made = json.loads((given.case / "case.json").read_text(encoding="utf-8"))
    file = given.case / "reference.json"
    if not file.exists() or json.loads(file.read_text(encoding="utf-8"))["sha256"] != made["sha256"]:
        timing.answer_of(
            "curvature_case.py", "reference", *case, environment={"JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu"}
        )
    return made, json.loads(file.read_text(encoding="utf-8"))


def options(arguments=None):
    """The command line, and the interpreter of the peers."""
    parser = argparse.ArgumentParser(description="Speed, accuracy and memory of the curvature package.")
    parser.add_argument("--quick", action="store_true", help="few steps, one round, no data: does it run, not how fast")
    parser.add_argument("--only", type=lambda text: text.split(","), help=f"some of {','.join(MEASURES)}")
    parser.add_argument("--json", type=pathlib.Path, help="also write everything to this file")
    parser.add_argument("--case", type=pathlib.Path, help="folder of the case; default results/curvature")
    parser.add_argument("--data", help="folder that holds MNIST; default PLASTICITY_JAX_DATA")
    parser.add_argument("--peers", help="interpreter that has torch; default .venv-bench, `none` leaves it out")
    parser.add_argument("--no-matfree", action="store_true", help="leave matfree out")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args(arguments)
    for name in given.only or ():
        if name not in MEASURES:
            parser.error(f"--only {name}: there are {', '.join(MEASURES)}.")
    try:
        given.peers = timing.peers_python(given.peers)
    except ValueError as error:
        parser.error(str(error))
    if given.quick:
        given.rounds, given.data = 1, "synthetic"
    given.case = given.case or pathlib.Path("results", "curvature-quick" if given.quick else "curvature")
    given.data_arguments = ("--data", given.data) if given.data else ()
    return given


def main(arguments=None):
    """Measure the sections, print their tables and the targets."""
    given = options(arguments)
    made, reference = the_case(given)
    print(f"{made['parameters']:,} parameters, seed {made['seed']}, SHA-256 {made['sha256']}\n")
    if not given.peers:
        print("No interpreter for the peers (make bench makes .venv-bench): without hessian-eigenthings.\n")
    results = {"environment": timing.answer_of("curvature_ours.py", "environment"), "case": made}
    results |= {"quick": given.quick, "rounds": given.rounds}
    given.backend = results["environment"]["backend"]
    targets = []
    for name in given.only or MEASURES:
        results[name], reached = MEASURES[name](given, reference)
        targets += reached
        if given.json:  # after each section: a later one may fail
            given.json.write_text(json.dumps({**results, "targets": targets}, indent=2) + "\n", encoding="utf-8")
    rows = [tuple(target.values()) for target in targets]
    print(timing.table("Targets", ("", "wanted", "found", "met"), rows))


if __name__ == "__main__":
    main()
