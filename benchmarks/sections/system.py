"""Sections on the program itself: resuming, kills, startup time, the studio."""

from __future__ import annotations

from benchmarks.sections.section import Result, Row, Section


def resume(r: Result) -> Section:
    """Killed and resumed."""
    disk = r["full_disk"]
    full = disk.get("skipped") or (
        f"exit status {disk['status']}, {disk['lines']} line of message, checkpoint "
        f"{disk['newest_readable_checkpoint']} intact; with space again "
        f"{'the same bytes' if disk['same_bytes_after_freeing_space'] else 'OTHER bytes'}"
    )
    return Section(
        title="Kill and resume",
        question="Does a run that is killed at random moments end with the same bytes as an uninterrupted one?",
        setup=f"{r['description'][0].upper()}{r['description'][1:]} by SIGKILL. After each kill every checkpoint is "
        "read. A second run fills its disk.",
        header=["test", "outcome"],
        rows=[
            [
                "`generator.safetensors`",
                f"**{'same bytes' if r['same_bytes'] else 'OTHER bytes'}** after {r['kills']} kills",
            ],
            ["unreadable checkpoints", str(r["unreadable_checkpoints"])],
            ["full disk", full],
        ],
        answer="The resumed run is the uninterrupted one, byte for byte." if r["same_bytes"] else "The runs differ.",
        limits="Other machines, thread counts or versions, where floating point rounds differently.",
    )


def faults(r: Result) -> Section:
    """Mangled input."""
    names = r["faults"]
    rows = [
        [kind, f"{found['cases']:,}", *(f"**{found[name]}**" if found[name] else "0" for name in names)]
        for kind, found in r["kinds"].items()
    ]
    cases = sum(found["cases"] for found in r["kinds"].values())
    failed = sum(found[name] for found in r["kinds"].values() for name in names)
    return Section(
        title="Mangled input",
        question="Is input that is damaged, or made by others, refused in one line or read for what it is?",
        setup=f"{r['description']}. Tests run a part of it with another seed.",
        header=["input", "cases", *(f"{name}s" if name in ("traceback", "hang") else name for name in names)],
        rows=rows,
        answer=f"**{failed}** of {cases:,} cases failed.",
        limits="Faults that these mutations do not reach, attacks on the libraries that decode images, and input that "
        "is wrong but well-formed.",
    )


def kills(r: Result) -> Section:
    """Kills at any moment, and disks that are full, read-only or limited."""
    rows, kills, tries, wrong = [], 0, 0, 0
    for name, found in r["commands"].items():
        killed = found.get("kills", {"kills": 0, "differing": []})
        obstacles = found.get("obstacles", {"tries": 0, "refused": 0, "wrong": []})
        same = f"{killed['kills']} kills, {len(killed['differing'])} differ" if killed["kills"] else ""
        met = f"{obstacles['refused']} of {obstacles['tries']}, {len(obstacles['wrong'])} wrong"
        rows.append([f"`{name}`", same, met if obstacles["tries"] else ""])
        kills += killed["kills"]
        wrong += len(killed["differing"]) + len(obstacles["wrong"])
        tries += obstacles["tries"]
    shares = " and ".join(f"{share:.0%}" for share in r["shares"])
    return Section(
        title="Kills, full and read-only disks",
        question="Does a command that is killed at any moment, or whose disk refuses to write, lose anything?",
        setup=f"On 200 small images. Commands that can go on are killed by SIGKILL at {r['moments']} moments of their "
        "processor time, from the first to the last, and begun again with the same words (`--resume auto`). Then all "
        f"write on a disk of {shares} of the space that they need, under such a limit of the size of files (`ulimit "
        "-f`), and on a read-only disk. Expected: the same networks and results; exit status 2, one line, inputs "
        "unchanged, and success once the obstacle is gone.",
        header=["command", "killed and begun again", "obstacles that it met"],
        rows=rows,
        answer=f"**{wrong}** of {kills} kills and {tries} obstacles did harm.",
        limits="Power cuts, network file systems, other ends of a process than SIGKILL.",
    )


def processes(r: Result) -> Section:
    """One run on several processes."""
    rows = []
    for name, same in r["bytes"].items():
        kill = r["kills"].get(name)
        after = "not run" if kill is None else f"{_bytes(kill['same_bytes'])} after {kill['kills']} kills"
        rows.append([name, _bytes(all(same.values())), after])
    gains = "Speed was not measured."
    if speed := r["speed"]:
        most = {name: f"{target:g}" for name, target in speed["targets"].items()}
        gains = (
            f"Two processes of one thread play **{speed['weak_scaling']:.2f} times** the images/s of one (target: "
            f"{most['weak_scaling']}), `quick` on CIFAR-10, 64 images each. Cut into 4 micro-batches, a batch of 256 "
            f"on one process runs at **{speed['micro_batches']:.2f} times** the speed of the whole (target: "
            f"{most['micro_batches']}). An attack by PGD takes **{speed['attack_time']:.2f} times** as long on two "
            f"processes as on one (target: {most['attack_time']}), and **{speed['attack_time_uneven']:.2f} times** if "
            f"one of them is three times slower (target: {most['attack_time_uneven']}, which two such processes could "
            "reach without any loss)."
        )
    return Section(
        title="Several processes",
        question="Do 1, 2 and 4 processes make the same network, killed or not, and what do they gain?",
        setup=f"{r['micro_batches']} micro-batches a step, {r['steps']} steps, `torchrun` over gloo on one machine, "
        "one thread a process. One process, or all, is killed by SIGKILL at random moments; 1, 2 or 4 others go on.",
        header=["game", "2 and 4 processes against 1", "killed, and continued by other numbers of processes"],
        rows=rows,
        answer=gains,
        limits="GPUs, NCCL, networks between machines. More processes than cores gain nothing.",
    )


def _bytes(same: bool) -> str:
    return "same bytes" if same else "OTHER bytes"


def memory(r: Result) -> Section:
    """Memory of the published recipes."""
    rows = []
    for row in r["rows"]:
        sizes = [f"{row['batch_size'] // int(parts)}: {gib:,.1f}" for parts, gib in row["gib"].items()]
        rows.append([f"`{row['recipe']}`", f"{row['batch_size']:,}", " · ".join(sizes)])
    return Section(
        title="Memory of the published recipes",
        question="How many images can a device take at a time?",
        setup="Computed without running: a round in which all penalties are due is played on tensors without values, "
        "and the bytes alive at the same time are counted, in 32-bit floats. All micro-batches on one device.",
        header=["recipe", "batch", "images at a time: GiB"],
        rows=rows,
        answer="None fits a card of 80 GiB in one piece; all fit in micro-batches.",
        limits="What an allocator and libraries need besides; bf16, which needs less.",
    )


def loop_overhead(r: Result) -> Section:
    """A tiny round, and a large checkpoint."""
    saved = r["checkpoint"]
    ratio, longest = r["time_of_a_round_to_the_bare_loop"], saved["longest_delay_seconds"]
    most = r["targets"]
    return Section(
        title="What the loop costs",
        question="What does the loop cost beside the arithmetic, and how long does a checkpoint hold it up?",
        setup="A generator and a discriminator of one hidden layer of 16 on 8 x 8 images, batch 16: almost all of a "
        "round is overhead. The bare loop trains the same networks with a random batch of a tensor, two passes of D, "
        "fused Adam and a line of JSON a round. `play` runs with its log and its alarms. Then a game whose checkpoint "
        f"has {saved['state_mb']} MB; a thread writes it while a round takes {saved['round_seconds']:g} s.",
        header=["measured", "result", "target"],
        rows=[
            [
                "time of a tiny round, to that of the bare loop",
                f"{ratio:.2f}",
                f"{most['time_of_a_round_to_the_bare_loop']:g}",
            ],
            [
                "delay of a checkpoint, median and longest",
                f"{saved['median_delay_seconds']:.2f} s, {longest:.2f} s",
                f"{most['longest_delay_seconds']:g} s",
            ],
        ],
        answer=f"A tiny round takes {ratio:.2f} times as long as in the bare loop; a checkpoint delays training by "
        f"{longest:.2f} s at most.",
        limits="Networks whose rounds cost something, where both loops take the same time; slow disks.",
    )


def startup(r: Result) -> Section:
    """Starting up."""
    slow = sorted(r["seconds"].items(), key=lambda item: -float(item[1]))
    return Section(
        title="Startup time",
        question=f"Does the help of every command appear in under {r['target']} s?",
        setup="Seconds on the clock, median of 7 starts; `import rivals` and bare Python for comparison.",
        header=["start", "seconds"],
        rows=[[f"`{command}`", f"{seconds:.2f}"] for command, seconds in slow],
        answer=f"The slowest takes **{r['slowest']:.2f} s**.",
        limits="A cold disk cache, or commands added after this date. Commands that start work import torch, which "
        "takes seconds.",
    )


def studio(r: Result) -> Section:
    """How soon the page shows what."""
    targets, long, ten = r["target"], r["long_run"], r["ten_viewers"]
    few, many = sorted(long, key=int)

    def row(name: str, times: Result, target: float) -> Row:
        return [name, f"**{times['processor']:.2f} s**", f"{times['clock']:.2f} s", f"{target:g} s"]

    sliders = {"mnist-plain": targets["mnist"], "cifar10-plain": targets["cifar10"]}
    rows = [
        row("open the page", r["load"], targets["load"]),
        row("first image of a new run", r["first_image"], targets["first_image"]),
        *(row(f"attack slider to image, {model}", times, sliders[model]) for model, times in r["slider"].items()),
        row(f"run with {int(many):,} records", long[many], targets["long_run"]),
    ]
    return Section(
        title="The studio",
        question="Is the web page quick, and does it leave training undisturbed?",
        setup=f"{r['browser']}. Processor time is that of server and browser together.",
        header=["action", "processor time", "clock", "target"],
        rows=rows,
        answer=f"The page of {int(many):,} records needs {long[many]['megabytes']} MB ({int(few):,} records: "
        f"{long[few]['megabytes']} MB). With {ten['viewers']} pages open, training made **{-ten['slower']:+.1%}** "
        f"images per processor second (target: at most {targets['slower']:.0%} slower), and the server took "
        f"{ten['server_share_of_a_core']:.1%} of a core.",
        limits="One machine and one browser. Where other programs hold the cores, only processor time is reliable.",
    )


def shards(r: Result) -> Section:
    """Many small images in tar shards."""
    ours, theirs = r["images_per_second"].values()
    first, own, flip = r["seconds_to_first_batch"], r["own_memory_mib"], r["flip_ms_256px"]
    return Section(
        title="Many small images in shards",
        question="How soon is the first batch there, how fast do batches come, and does memory grow?",
        setup=f"{r['description']}: {r['megabytes']:,} MB packed, {r['decoded_megabytes']:,} MB decoded. Indexed and "
        f"decoded once ({r['seconds_to_decode']:g} s); then new processes, from start to first batch. torchvision's "
        f"`ImageFolder` reads the same PNGs with 2 workers. Load average while measured: {r['load_average']:g} on "
        f"{r['hardware']['cores']} cores.",
        header=["measured", "Rivals, decoded cache", "ImageFolder, 2 workers"],
        rows=[
            ["first batch after", f"{first['median']:g} s (median of {len(first['all'])})", ""],
            ["of it processor time", f"{r['processor_seconds_to_first_batch']:g} s", ""],
            ["images a second", " / ".join(f"{each:,.0f}" for each in ours), " / ".join(f"{e:,.0f}" for e in theirs)],
            ["memory of its own, early and after an epoch", f"{own['early']:,} / {own['after_an_epoch']:,} MiB", ""],
            ["memory to hold 1,000 images out", f"{r['own_memory_of_hold_out_mib']:g} MiB", ""],
            ["batch of 256 images of 256 px, without and with flips", f"{flip['without']:g} / {flip['with']:g} ms", ""],
        ],
        answer="`ImageFolder` decodes every image anew, so the difference is that of a cache.",
        limits="The very first start, which decodes; disks slower than the memory; JPEGs; a quiet machine: on so "
        "busy a "
        "one the rounds differ tenfold.",
    )
