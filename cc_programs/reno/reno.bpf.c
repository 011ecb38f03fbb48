// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Reno: slow start and congestion avoidance (RFC 5681). Fast retransmit and recovery (RFC 6582) are the kernel's. */
#include "tcpls_cc.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* RFC 5681, equation 4: half of what was in flight, at least two segments. */
SEC("struct_ops/ssthresh")
u32 BPF_PROG(reno_ssthresh, struct sock *sk)
{
	return tcpls_max(tcpls_tcp(sk)->snd_cwnd / 2, 2);
}

/* RFC 5681 section 3.1, counting acknowledged segments rather than ACKs (RFC 3465). */
SEC("struct_ops/cong_avoid")
void BPF_PROG(reno_cong_avoid, struct sock *sk, u32 ack, u32 acked)
{
	struct tcp_sock *tp = tcpls_tcp(sk);

	if (!tcpls_cwnd_limited(tp))
		return;
	if (tcpls_in_slow_start(tp)) {
		acked = tcpls_slow_start(tp, acked);
		if (!acked)
			return;
	}
	tcpls_grow(tp, tp->snd_cwnd, acked);
}

/* The loss turned out to be reordering: back to the window from before it. */
SEC("struct_ops/undo_cwnd")
u32 BPF_PROG(reno_undo_cwnd, struct sock *sk)
{
	struct tcp_sock *tp = tcpls_tcp(sk);

	return tcpls_max(tp->snd_cwnd, tp->prior_cwnd);
}

SEC(".struct_ops")
struct tcp_congestion_ops reno = {
	.ssthresh = (void *)reno_ssthresh,
	.cong_avoid = (void *)reno_cong_avoid,
	.undo_cwnd = (void *)reno_undo_cwnd,
	.name = "reno_tcpls",
};
