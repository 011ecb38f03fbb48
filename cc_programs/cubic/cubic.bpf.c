// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* CUBIC (RFC 9438) with HyStart++ (RFC 9406). Equation and section numbers are those of RFC 9438 unless named. */
#include "tcpls_cc.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/*
 * Units. Windows with a fraction are in 1/1024 of a segment, times within an epoch in 1/1024 of a second.
 * C = 0.4 and beta = 0.7 (sections 4.1 and 4.6) become 410/1024 and 717/1024.
 */
#define SCALE 10
#define ONE (1 << SCALE)
#define C_SCALED 410
#define BETA_SCALED 717
#define ALPHA_SCALED 542 /* 3 (1 - beta) / (1 + beta), section 4.3 */
#define MAX_TIME (1 << 17) /* 128 s: keeps the cube in 64 bits */

/* RFC 9406 section 4.3. Times in microseconds. */
#define MIN_RTT_THRESH 4000
#define MAX_RTT_THRESH 16000
#define RTT_DIVISOR 8
#define ROUND_SAMPLES 8
#define CSS_GROWTH_DIVISOR 4
#define CSS_ROUNDS 5
#define NO_RTT 0x7fffffff

/* Set to 0 before loading for slow start without HyStart++. */
const volatile u32 cubic_hystart = 1;

struct cubic {
	u64 epoch_start; /* microseconds; 0: no epoch, the next ACK in congestion avoidance begins one */
	u64 latest_ack;  /* microseconds */
	u32 w_max;       /* segments: where the plateau lies */
	u32 k;           /* time from the epoch's start to the plateau */
	u32 w_est;       /* scaled: what Reno would have */
	u32 cwnd_prior;  /* segments: the window before the latest reduction */
	u32 round_end;   /* HyStart++: the round ends when this is acknowledged */
	u32 round_rtt;   /* smallest RTT of this round, and of the one before */
	u32 former_rtt;
	u32 css_rtt;     /* baseline of conservative slow start; 0: not in it */
	u16 css_rounds;
	u16 samples;
};

/*
 * The integer cube root by Newton's method. From above, a step takes off a third until it is near the root, and then it
 * converges quadratically: from 2^21 this reaches every root that `start_epoch` can ask for (at least 2^10).
 *
 * This and w_cubic are functions in their own right, not inlined: the verifier then looks at them once, not once for each
 * way to get there.
 */
__noinline u32 cube_root(u64 a)
{
	u64 x = 1 << 21;

	for (int step = 0; step < 23; step++)
		x = (2 * x + a / (x * x)) / 3;
	return x;
}

/* HyStart++ */

static __always_inline void start_round(struct cubic *cubic, const struct tcp_sock *tp)
{
	cubic->round_end = tp->snd_nxt;
	cubic->former_rtt = cubic->round_rtt;
	cubic->round_rtt = NO_RTT;
	cubic->samples = 0;
}

static __always_inline void restart_hystart(struct cubic *cubic, const struct tcp_sock *tp)
{
	cubic->round_rtt = NO_RTT;
	cubic->css_rtt = 0;
	start_round(cubic, tp);
}

/* RFC 9406 section 4.2, for each RTT sample of slow start. */
static __always_inline void watch_delay(struct cubic *cubic, struct tcp_sock *tp, u32 rtt)
{
	u32 threshold;

	cubic->round_rtt = tcpls_min(cubic->round_rtt, rtt);
	if (cubic->samples < ROUND_SAMPLES)
		cubic->samples++;
	if (cubic->samples < ROUND_SAMPLES)
		return;
	if (cubic->css_rtt) {
		if (cubic->round_rtt < cubic->css_rtt)
			cubic->css_rtt = 0; /* the delay went away: it was no queue of ours */
		return;
	}
	if (cubic->former_rtt == NO_RTT)
		return;
	threshold = tcpls_max(tcpls_min(cubic->former_rtt / RTT_DIVISOR, MAX_RTT_THRESH), MIN_RTT_THRESH);
	if (cubic->round_rtt >= cubic->former_rtt + threshold) {
		cubic->css_rtt = cubic->round_rtt;
		cubic->css_rounds = 0;
	}
}

static __always_inline void end_round(struct cubic *cubic, struct tcp_sock *tp)
{
	if (cubic->css_rtt && ++cubic->css_rounds >= CSS_ROUNDS)
		tp->snd_ssthresh = tcpls_max(tp->snd_cwnd, 2);
	start_round(cubic, tp);
}

/* CUBIC */

/* Section 4.2: the epoch begins, and with it the curve from the present window to w_max and beyond. */
static __always_inline void start_epoch(struct cubic *cubic, u32 cwnd, u64 now)
{
	cubic->epoch_start = now;
	cubic->w_est = cwnd << SCALE;
	if (cubic->w_max <= cwnd) {
		cubic->w_max = cwnd;
		cubic->k = 0;
	} else {
		/* Equation 2: K = cbrt((w_max - cwnd) / C), and a cube of 1/1024 s has 30 bits of fraction. */
		u64 distance = tcpls_min(cubic->w_max - cwnd, 1 << 22);

		cubic->k = cube_root((distance << (SCALE + 30)) / C_SCALED);
	}
}

/* Equation 1, scaled: C (t - K)^3 + w_max. */
__noinline u32 w_cubic(u32 w_max, u32 k, u64 elapsed_us)
{
	u64 t = (elapsed_us << SCALE) / 1000000;
	u64 distance = t < k ? k - t : t - k;
	u64 plateau = (u64)w_max << SCALE;
	u64 offset;

	if (distance > MAX_TIME)
		distance = MAX_TIME;
	offset = ((distance * distance * distance) >> SCALE) * C_SCALED >> (30 - SCALE);
	if (t < k)
		return offset < plateau ? plateau - offset : 0;
	plateau += offset;
	return plateau < 0xffffffff ? plateau : 0xffffffff;
}

/* Section 4.3: the window that Reno would have by now. */
static __always_inline void advance_w_est(struct cubic *cubic, u32 cwnd, u32 acked)
{
	u32 alpha = (cubic->w_est >> SCALE) >= cubic->cwnd_prior ? ONE : ALPHA_SCALED;

	cubic->w_est += (u64)alpha * acked / tcpls_max(cwnd, 1);
}

/* Sections 4.3 to 4.5: how many acknowledged segments buy one segment of window. */
static __always_inline u32 price(const struct cubic *cubic, const struct tcp_sock *tp, u64 elapsed)
{
	u32 cwnd = tp->snd_cwnd;
	u64 scaled = (u64)cwnd << SCALE;
	u64 rtt = tp->srtt_us >> 3;
	u64 target;

	if (w_cubic(cubic->w_max, cubic->k, elapsed) < cubic->w_est) {
		target = cubic->w_est;
	} else {
		target = w_cubic(cubic->w_max, cubic->k, elapsed + rtt);
		if (target > scaled + scaled / 2)
			target = scaled + scaled / 2;
	}
	if (target <= scaled)
		return 100 * cwnd; /* on the plateau: hardly at all */
	return tcpls_max(scaled / (target - scaled), 2);
}

SEC("struct_ops/init")
void BPF_PROG(cubic_init, struct sock *sk)
{
	struct cubic *cubic = TCPLS_PRIVATE(struct cubic, sk);

	cubic->epoch_start = 0;
	cubic->w_max = 0;
	cubic->cwnd_prior = 0;
	restart_hystart(cubic, tcpls_tcp(sk));
}

SEC("struct_ops/pkts_acked")
void BPF_PROG(cubic_pkts_acked, struct sock *sk, const struct ack_sample *sample)
{
	struct tcp_sock *tp = tcpls_tcp(sk);
	s32 rtt = sample->rtt_us;

	if (cubic_hystart && rtt > 0 && tcpls_in_slow_start(tp))
		watch_delay(TCPLS_PRIVATE(struct cubic, sk), tp, rtt);
}

SEC("struct_ops/cong_avoid")
void BPF_PROG(cubic_cong_avoid, struct sock *sk, u32 ack, u32 acked)
{
	struct cubic *cubic = TCPLS_PRIVATE(struct cubic, sk);
	struct tcp_sock *tp = tcpls_tcp(sk);
	u64 now = tp->tcp_mstamp;

	/* Section 5.8: time in which the application, not the window, held the sender back does not count. */
	if (!tcpls_cwnd_limited(tp)) {
		if (cubic->epoch_start)
			cubic->epoch_start += now - cubic->latest_ack;
		cubic->latest_ack = now;
		return;
	}
	cubic->latest_ack = now;
	if (tcpls_in_slow_start(tp)) {
		if (cubic_hystart && tcpls_before(cubic->round_end, ack))
			end_round(cubic, tp);
		if (cubic->css_rtt) {
			tcpls_grow(tp, CSS_GROWTH_DIVISOR, acked);
			return;
		}
		acked = tcpls_slow_start(tp, acked);
		if (!acked)
			return;
	}
	if (!cubic->epoch_start)
		start_epoch(cubic, tp->snd_cwnd, now);
	advance_w_est(cubic, tp->snd_cwnd, acked);
	tcpls_grow(tp, price(cubic, tp, now - cubic->epoch_start), acked);
}

/* Section 4.6, and fast convergence (section 4.7): a flow whose plateau sinks gives room to newer ones. */
SEC("struct_ops/ssthresh")
u32 BPF_PROG(cubic_ssthresh, struct sock *sk)
{
	struct cubic *cubic = TCPLS_PRIVATE(struct cubic, sk);
	u32 cwnd = tcpls_tcp(sk)->snd_cwnd;

	if (cwnd < cubic->w_max)
		cubic->w_max = (u64)cwnd * (ONE + BETA_SCALED) / (2 * ONE);
	else
		cubic->w_max = cwnd;
	cubic->cwnd_prior = cwnd;
	cubic->epoch_start = 0;
	return tcpls_max((u64)cwnd * BETA_SCALED / ONE, 2);
}

/* Section 4.8: after a timeout the curve starts at the window that slow start reaches, with K = 0. */
SEC("struct_ops/set_state")
void BPF_PROG(cubic_set_state, struct sock *sk, u8 new_state)
{
	struct cubic *cubic = TCPLS_PRIVATE(struct cubic, sk);

	if (new_state != CA_LOSS)
		return;
	cubic->w_max = 0;
	cubic->epoch_start = 0;
	restart_hystart(cubic, tcpls_tcp(sk));
}

/* Section 5.8 again: the first segment after an idle time moves the epoch by that time. */
SEC("struct_ops/cwnd_event")
void BPF_PROG(cubic_cwnd_event, struct sock *sk, u32 event)
{
	struct cubic *cubic = TCPLS_PRIVATE(struct cubic, sk);
	u64 now = tcpls_tcp(sk)->tcp_mstamp;

	if (event != EVENT_TX_START || !cubic->epoch_start)
		return;
	if (now > cubic->latest_ack)
		cubic->epoch_start += now - cubic->latest_ack;
	cubic->latest_ack = now;
}

SEC("struct_ops/undo_cwnd")
u32 BPF_PROG(cubic_undo_cwnd, struct sock *sk)
{
	struct tcp_sock *tp = tcpls_tcp(sk);

	return tcpls_max(tp->snd_cwnd, tp->prior_cwnd);
}

SEC(".struct_ops")
struct tcp_congestion_ops cubic = {
	.init = (void *)cubic_init,
	.pkts_acked = (void *)cubic_pkts_acked,
	.cong_avoid = (void *)cubic_cong_avoid,
	.ssthresh = (void *)cubic_ssthresh,
	.set_state = (void *)cubic_set_state,
	.cwnd_event = (void *)cubic_cwnd_event,
	.undo_cwnd = (void *)cubic_undo_cwnd,
	.name = "cubic_tcpls",
};
