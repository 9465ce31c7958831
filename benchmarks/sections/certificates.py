"""Sections on certificates: properties of VNN-COMP, classifiers trained to be certified, the cost of intervals."""

from __future__ import annotations

from benchmarks.sections.section import Result, Row, Section

METHODS = {"ibp": "IBP", "crown": "CROWN", "alpha-crown": "alpha-CROWN"}


def _share(proportion: Result) -> str:
    return f"{proportion['value']:.2%} ({proportion['low']:.1%} to {proportion['high']:.1%})"


def properties(r: Result) -> Section:
    """The category mnist_fc of VNN-COMP 2022."""
    v = r["vnncomp"]
    sat, unsat = v["of"]["sat"], v["of"]["unsat"]
    rows: list[Row] = [
        ["PGD with spread-out starts", f"{v['sat_attacked']} of {sat}", f"{v['unsat_attacked']} of {unsat}"]
    ]
    rows += [
        [name, f"{v['sat_certified'][key]} of {sat}", f"{v['unsat_certified'][key]} of {unsat}"]
        for key, name in METHODS.items()
    ]
    return Section(
        title="Properties of VNN-COMP 2022",
        question="Do attacks find what violates a property, and bounds prove what nothing violates?",
        setup=f"The {len(v['instances'])} properties of mnist_fc: three networks of two, four and six hidden layers of "
        "256 units, Linf 0.03 and 0.05. A property is `sat` if the competition has a checked counterexample, `unsat` "
        "if its verifiers proved it. Each method was run on each property, whatever the others had shown.",
        header=["method", "`sat`: found or proven", "`unsat`: found or proven"],
        rows=rows,
        answer=f"The attack finds {v['sat_attacked']} of {sat} counterexamples; alpha-CROWN proves "
        f"**{v['unsat_certified']['alpha-crown']} of {unsat}** (target: 30), CROWN {v['unsat_certified']['crown']}. "
        "No `unsat` property fell to the attack, and no `sat` property was proven.",
        limits="Complete verifiers, which split cases, prove more: these bounds never split.",
    )


def trained(r: Result) -> Section:
    """MNIST classifiers that were trained with interval bounds."""
    rows: list[Row] = []
    for value in r["models"].values():
        size = [f"{value['cpu_minutes']:.0f}", f"{value['images'] // 1000}k"]
        shares = [f"{value['clean']:.2%}", *(_share(value[key]) for key in ("ibp", "crown", "unbroken"))]
        rows.append([value["eps"], *size, *shares, f"{value['float64_certified']:,}"])
    attacked = [value for value in r["models"].values() if "attacked" in value]
    fell = " and ".join(
        f"{value['attacked_robust']} robust, {value['attacked_certified']} certified" for value in attacked
    )
    unconfirmed = sum(value["not_confirmed"] for value in r["models"].values())
    return Section(
        title="Classifiers trained for certificates",
        question="How much robust accuracy on MNIST can be proven after 60 minutes of one thread at most?",
        setup="`rivals harden --method ibp`, Linf, on a busy machine: an hour each, of which a thread got the minutes "
        "given. Shares are of the 10,000 test images with 95% intervals. Not broken: not certified by CROWN, and not "
        "broken by AutoAttack swift either. The last column is an interval computation in float64, in numpy, that "
        "shares no code.",
        header=["eps", "min", "images", "clean", "certified by IBP", "by CROWN", "not broken", "IBP in float64"],
        rows=rows,
        answer="Targets: 97.0% at 0.1, and 90.0% at 0.3 with 95% clean. Certified by IBP and not confirmed in float64: "
        f"{unconfirmed} images. Of the first 1,000 images, AutoAttack swift left {fell}: no certified one fell.",
        limits="One seed. Settings were chosen on training images kept aside, by runs of less than an epoch. "
        "Networks of this kind that are trained for 70 epochs on a GPU reach 98 and 93%.",
    )


def interval_cost(r: Result) -> Section:
    """The cost of IBP."""
    c = r["cost"]
    worst = max(c["ratios"].values())
    return Section(
        title="Cost of interval bounds",
        question=f"Do the interval bounds of a batch cost at most {c['target']} forward passes?",
        setup=f"Margins over Linf 0.1 with all rounding accounted for, against a forward pass of the same batch of "
        f"{c['batch_size']}. Processor time on a busy machine, medians of {c['rounds']} rounds in turn.",
        header=["network", "forward passes"],
        rows=[[net, f"{ratio:.2f}"] for net, ratio in c["ratios"].items()],
        answer=f"At most **{worst:.2f}**.",
        limits="Other batch sizes: the intermediate values of large batches leave the cache.",
    )
