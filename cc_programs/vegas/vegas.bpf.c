// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Vegas: congestion avoidance on delay (Brakmo and Peterson, "TCP Vegas: End to End Congestion Avoidance on a Global
 * Internet", IEEE JSAC 13(8), 1995). Once per round trip it estimates how many of its own segments wait in queues and
 * keeps that number between ALPHA and BETA.
 */
#include "tcpls_cc.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define ALPHA 2 /* segments queued: below this the window grows by one each round */
#define BETA 4  /* above this it shrinks by one */
#define GAMMA 1 /* above this slow start ends */
#define MIN_SAMPLES 3
#define NO_RTT 0x7fffffff

struct vegas {
	u32 base_rtt;    /* smallest RTT seen on this connection, microseconds */
	u32 round_rtt;   /* smallest RTT of this round */
	u32 round_end;   /* the round ends when this sequence number is acknowledged */
	u16 samples;     /* RTT samples of this round */
	bool growing;    /* slow start doubles the window in every second round only */
	bool steady;     /* no loss or reordering is being repaired */
};

static __always_inline void start_round(struct vegas *vegas, const struct tcp_sock *tp)
{
	vegas->round_end = tp->snd_nxt;
	vegas->round_rtt = NO_RTT;
	vegas->samples = 0;
}

SEC("struct_ops/init")
void BPF_PROG(vegas_init, struct sock *sk)
{
	struct vegas *vegas = TCPLS_PRIVATE(struct vegas, sk);
	struct tcp_sock *tp = tcpls_tcp(sk);
	u32 known = tp->rtt_min.s[0].v;

	/* Attached to a connection that runs already, with its queue perhaps full: the kernel remembers a better RTT. */
	vegas->base_rtt = known && known < NO_RTT ? known : NO_RTT;
	vegas->growing = true;
	vegas->steady = true;
	start_round(vegas, tp);
}

SEC("struct_ops/pkts_acked")
void BPF_PROG(vegas_pkts_acked, struct sock *sk, const struct ack_sample *sample)
{
	struct vegas *vegas = TCPLS_PRIVATE(struct vegas, sk);
	s32 rtt = sample->rtt_us;

	if (rtt <= 0)
		return;
	vegas->base_rtt = tcpls_min(vegas->base_rtt, rtt);
	vegas->round_rtt = tcpls_min(vegas->round_rtt, rtt);
	if (vegas->samples < 0xffff)
		vegas->samples++;
}

SEC("struct_ops/set_state")
void BPF_PROG(vegas_set_state, struct sock *sk, u8 new_state)
{
	struct vegas *vegas = TCPLS_PRIVATE(struct vegas, sk);
	bool steady = new_state == CA_OPEN || new_state == CA_DISORDER;

	if (steady && !vegas->steady)
		start_round(vegas, tcpls_tcp(sk));
	vegas->steady = steady;
}

/* After an idle time the samples of the round before it say nothing. */
SEC("struct_ops/cwnd_event")
void BPF_PROG(vegas_cwnd_event, struct sock *sk, u32 event)
{
	if (event == EVENT_TX_START || event == EVENT_CWND_RESTART)
		start_round(TCPLS_PRIVATE(struct vegas, sk), tcpls_tcp(sk));
}

/* Segments of ours in queues: the window, less what the path alone holds. */
static __always_inline u32 queued(const struct vegas *vegas, u32 cwnd)
{
	u64 rtt = vegas->round_rtt;
	u64 base = vegas->base_rtt;

	if (!rtt || rtt <= base)
		return 0;
	return (u64)cwnd * (rtt - base) / rtt;
}

static __always_inline void end_round(struct vegas *vegas, struct tcp_sock *tp)
{
	u32 cwnd = tp->snd_cwnd;
	u32 backlog = queued(vegas, cwnd);

	if (vegas->samples < MIN_SAMPLES) {
		/* One sample may be a delayed ACK's. A window this small grows as Reno's would, or it would stay small. */
		if (!tcpls_in_slow_start(tp) && tcpls_cwnd_limited(tp))
			tcpls_set_cwnd(tp, cwnd + 1);
		return;
	}
	if (tcpls_in_slow_start(tp)) {
		vegas->growing = !vegas->growing;
		if (backlog > GAMMA) {
			/* Leave slow start with what the path holds and one segment more. */
			tcpls_set_cwnd(tp, cwnd - backlog + 1);
			tp->snd_ssthresh = tcpls_max(tcpls_min(tp->snd_ssthresh, tp->snd_cwnd), 2);
		}
	} else if (backlog > BETA) {
		tcpls_set_cwnd(tp, cwnd - 1);
	} else if (backlog < ALPHA && tcpls_cwnd_limited(tp)) {
		tcpls_set_cwnd(tp, cwnd + 1);
	}
}

SEC("struct_ops/cong_avoid")
void BPF_PROG(vegas_cong_avoid, struct sock *sk, u32 ack, u32 acked)
{
	struct vegas *vegas = TCPLS_PRIVATE(struct vegas, sk);
	struct tcp_sock *tp = tcpls_tcp(sk);

	if (vegas->steady && tcpls_before(vegas->round_end, ack)) {
		end_round(vegas, tp);
		start_round(vegas, tp);
	}
	if (tcpls_in_slow_start(tp) && vegas->growing && tcpls_cwnd_limited(tp))
		tcpls_slow_start(tp, acked);
}

/* A loss is answered as Reno answers it: the paper changes when to grow, not what a loss means. */
SEC("struct_ops/ssthresh")
u32 BPF_PROG(vegas_ssthresh, struct sock *sk)
{
	return tcpls_max(tcpls_tcp(sk)->snd_cwnd / 2, 2);
}

SEC("struct_ops/undo_cwnd")
u32 BPF_PROG(vegas_undo_cwnd, struct sock *sk)
{
	struct tcp_sock *tp = tcpls_tcp(sk);

	return tcpls_max(tp->snd_cwnd, tp->prior_cwnd);
}

SEC(".struct_ops")
struct tcp_congestion_ops vegas = {
	.init = (void *)vegas_init,
	.pkts_acked = (void *)vegas_pkts_acked,
	.set_state = (void *)vegas_set_state,
	.cwnd_event = (void *)vegas_cwnd_event,
	.cong_avoid = (void *)vegas_cong_avoid,
	.ssthresh = (void *)vegas_ssthresh,
	.undo_cwnd = (void *)vegas_undo_cwnd,
	.name = "vegas_tcpls",
};
