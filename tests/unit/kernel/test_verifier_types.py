"""The check of the verifier's log, on lines as kernels from 6.1 to 6.18 write them."""

from __future__ import annotations

import pytest

from tcpls.errors import ProgramRefused
from tcpls.kernel.verifier_types import MAX_VERIFIED, check_log

GOOD = """\
0: R1=ctx() R10=fp0
0: (79) r2 = *(u64 *)(r1 +0)          ; R1=ctx() R2_w=trusted_ptr_tcp_sock()
4: R3=1296 R4_rw=trusted_ptr_tcp_sock(off=1296) R5=P16 R6_w=Pscalar(umax=255) R7=0xffffffff R8=-1
9: R0_w=map_value_or_null(id=1,off=0,ks=4,vs=8,imm=0) R9=fp-16 fp-8=scalar(id=1)
from 5 to 7: R1_w=ptr_sock(off=0,imm=0) R2=rcu_ptr_or_null_sock_common(id=2) R3=trusted_ptr_ack_sample()
12: R1=ringbuf_mem(ref_obj_id=2,sz=8) R2_w=map_ptr(map=events,ks=0,vs=0)
processed 841 insns (limit 1000000) max_states_per_insn 6 total_states 68 peak_states 65 mark_read 0
"""


def test_a_harmless_log_passes_with_its_facts() -> None:
    verified = check_log("f", GOOD)
    assert (verified.function, verified.processed) == ("f", 841)
    assert {"ctx", "trusted_ptr_tcp_sock", "ptr_sock", "map_value_or_null"} <= verified.types


@pytest.mark.parametrize(
    "register",
    [
        "R1_w=ptr_file()",
        "R1_w=trusted_ptr_cred()",
        "R2=untrusted_ptr_sock()",
        "R3=ptr_task_struct(off=8)",
        "R3_w=rcu_ptr_or_null_socket(id=3)",
        "R4=percpu_ptr_sock()",
        "R4=ptr_sock_fprog()",
        "R5=iter_num()",
        "R5=something_new()",
        "R0_w=rdonly_mem(sz=8)",
    ],
)
def test_every_other_type_is_refused(register: str) -> None:
    with pytest.raises(ProgramRefused, match="kernel memory of a kind") as caught:
        check_log("f", GOOD.replace("R9=fp-16", register))
    assert caught.value.stage == "verifier"


@pytest.mark.parametrize("log", ["", "0: R1=ctx()\n", "processed 5 insns (limit)\n"])
def test_a_log_that_says_nothing_is_refused(log: str) -> None:
    with pytest.raises(ProgramRefused):
        check_log("f", log)


def test_what_takes_long_to_verify_is_refused() -> None:
    with pytest.raises(ProgramRefused, match="instructions to verify"):
        check_log("f", GOOD.replace("841", str(MAX_VERIFIED + 1)))
