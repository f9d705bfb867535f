"""A block layer's test of the kind whose output, QEMU's included, is compared with what it should be."""

import logging
import os
import sys

from tests.compat.standins.block_layer import VM, log

logging.basicConfig(level=logging.WARNING, stream=sys.stderr)


def null(name: str, more: str = "") -> str:
    return f"null-co,node-name={name},size=1048576{more}"


def backup(vm: VM, **options: object) -> None:
    vm.qmp_log(
        "blockdev-backup",
        job_id="job0",
        device="source",
        target="target",
        sync="full",
        auto_finalize=False,
        auto_dismiss=False,
        **options,
    )
    log(f"job0 ended: {vm.run_job('job0')}")


VM.print_qemu = True

log("--- a job")
with VM(sys.argv[1]) as vm:
    vm.add_blockdev(null("source", ",read-zeroes=on")).add_blockdev(["null-co", "node-name=target"])
    vm.launch()
    log(vm.qmp("query-name"))
    vm.qmp_log("blockdev-backup", job_id="job0", device="source", target="nowhere", sync="full")

with open(os.path.join(sys.argv[1], "target"), "wb") as target:
    target.truncate(1048576)
vm._args[-1] = f"file,node-name=target,filename={target.name}"
for way in ("shutdown", "wait", "kill"):
    log(f"--- {way}")
    vm.launch()
    backup(vm)
    if way == "wait":
        vm.cmd("quit")
    getattr(vm, way)()
    log(repr(vm.get_log()))

log("--- nothing is launched")
vm.shutdown()
vm.kill()
log([report.split()[1] for report in vm.reports])
