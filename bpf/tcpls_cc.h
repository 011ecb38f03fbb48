/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a congestion controller needs to know of the kernel, and nothing else.
 *
 * Every structure is a subset: the attribute preserve_access_index makes the compiler note which field is meant, and the
 * loader puts in the offset that the running kernel has. So the order and the size of things here do not matter; names
 * and types do. Two rules come with that:
 *   - A bit-field has no address to relocate. Read it with BPF_CORE_READ_BITFIELD only: a plain read compiles, loads and
 *     returns some other bit.
 *   - struct tcp_congestion_ops holds only members that every kernel from 6.1 on has and that a program may set.
 *     An object with a member that the kernel lacks is not loaded, even if that member is left empty.
 */
#ifndef TCPLS_CC_H
#define TCPLS_CC_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef signed char __s8;
typedef short __s16;
typedef int __s32;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;
typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s32 s32;
typedef __s64 s64;
typedef _Bool bool;

enum { false = 0, true = 1 };

/* The map types that a shipped program may define, and the flags it may use on them. */
enum bpf_map_type {
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_SK_STORAGE = 24,
	BPF_MAP_TYPE_RINGBUF = 27,
};
enum { BPF_F_NO_PREALLOC = 1 };

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#define TCPLS_KERNEL __attribute__((preserve_access_index))

struct sock {
	unsigned long sk_pacing_rate; /* bytes a second */
	u32 sk_pacing_status;         /* 0 none, 1 TCP's own timer, 2 the fq qdisc */
} TCPLS_KERNEL;

struct inet_connection_sock {
	u8 icsk_ca_state : 5; /* bit-field: see above */
	u64 icsk_ca_priv[13]; /* 104 bytes for the controller, zeroed before init */
} TCPLS_KERNEL;

struct minmax_sample {
	u32 t;
	u32 v;
} TCPLS_KERNEL;

struct minmax {
	struct minmax_sample s[3];
} TCPLS_KERNEL;

struct tcp_sock {
	u32 snd_una;
	u32 snd_nxt;
	u32 snd_cwnd; /* segments, like every window here */
	u32 snd_cwnd_cnt;
	u32 snd_cwnd_clamp;
	u32 snd_ssthresh;
	u32 prior_cwnd; /* cwnd when the current reduction began */
	u32 max_packets_out;
	u32 packets_out;
	u32 srtt_us; /* eight times the smoothed RTT */
	u32 mss_cache;
	u32 delivered;
	u64 tcp_mstamp; /* microseconds, at the latest segment in or out */
	struct minmax rtt_min;
	u8 is_cwnd_limited : 1; /* bit-field: see above */
} TCPLS_KERNEL;

struct ack_sample {
	u32 pkts_acked;
	s32 rtt_us; /* negative: no sample */
	u32 in_flight;
} TCPLS_KERNEL;

struct rate_sample {
	s32 delivered;
	long interval_us;
	long rtt_us;
	int losses;
	u32 acked_sacked;
	u32 prior_in_flight;
	bool is_app_limited;
} TCPLS_KERNEL;

struct tcp_congestion_ops {
	/* These two, and one of the two behind them, are needed. */
	u32 (*ssthresh)(struct sock *sk);
	u32 (*undo_cwnd)(struct sock *sk);
	void (*cong_avoid)(struct sock *sk, u32 ack, u32 acked);
	void (*cong_control)(struct sock *sk, const struct rate_sample *sample); /* arguments: see tcpls_rate_sample */

	void (*init)(struct sock *sk);
	void (*release)(struct sock *sk);
	void (*set_state)(struct sock *sk, u8 new_state);
	void (*cwnd_event)(struct sock *sk, u32 event);
	void (*in_ack_event)(struct sock *sk, u32 flags);
	void (*pkts_acked)(struct sock *sk, const struct ack_sample *sample);
	u32 (*min_tso_segs)(struct sock *sk);
	u32 (*sndbuf_expand)(struct sock *sk);
	char name[16];
	u32 flags;
};

enum tcpls_ca_state { CA_OPEN = 0, CA_DISORDER = 1, CA_CWR = 2, CA_RECOVERY = 3, CA_LOSS = 4 };
enum tcpls_ca_event { EVENT_TX_START = 0, EVENT_CWND_RESTART = 1, EVENT_COMPLETE_CWR = 2, EVENT_LOSS = 3 };

/* A slow start that has no end yet. */
#define TCPLS_INFINITE_SSTHRESH 0x7fffffff

/* The controller's own 104 bytes of this connection. */
#define TCPLS_PRIVATE(type, sk)                                                                            \
	({                                                                                                 \
		_Static_assert(sizeof(type) <= 104, "the private area of a connection has 104 bytes");     \
		(type *)((struct inet_connection_sock *)(sk))->icsk_ca_priv;                               \
	})

/*
 * cong_control gets (sk, sample), and from Linux 6.10 on (sk, ack, flag, sample). A program with cong_control defines
 *     const volatile u32 tcpls_cong_control_args = 2;
 * where the loader puts this kernel's number, writes its function over the raw arguments (u64 *arguments), and takes the
 * sample from here. In assembler, because the compiler would make one load of a computed address out of the two, and
 * the verifier allows loads from these arguments at constant offsets only.
 */
static __always_inline const struct rate_sample *tcpls_rate_sample(u64 *arguments, u32 count)
{
	u64 sample;

	if (count == 4)
		asm volatile("%0 = *(u64 *)(%1 + 24)" : "=r"(sample) : "r"(arguments));
	else
		asm volatile("%0 = *(u64 *)(%1 + 8)" : "=r"(sample) : "r"(arguments));
	return (const struct rate_sample *)sample;
}

static __always_inline struct tcp_sock *tcpls_tcp(struct sock *sk)
{
	return (struct tcp_sock *)sk;
}

static __always_inline u32 tcpls_min(u32 a, u32 b)
{
	return a < b ? a : b;
}

static __always_inline u32 tcpls_max(u32 a, u32 b)
{
	return a > b ? a : b;
}

/* Is sequence number a before b, modulo 2^32? */
static __always_inline bool tcpls_before(u32 a, u32 b)
{
	return (s32)(a - b) < 0;
}

static __always_inline bool tcpls_in_slow_start(const struct tcp_sock *tp)
{
	return tp->snd_cwnd < tp->snd_ssthresh;
}

/*
 * Does the window hold the sender back? If the application does, its ACKs say nothing of the path and the window must
 * not grow on them (RFC 7661). In slow start half a window in flight is enough, since the window doubles per round.
 */
static __always_inline bool tcpls_cwnd_limited(const struct tcp_sock *tp)
{
	if (tcpls_in_slow_start(tp) && tp->snd_cwnd < 2 * tp->max_packets_out)
		return true;
	return BPF_CORE_READ_BITFIELD(tp, is_cwnd_limited);
}

/* Window reductions end at two segments (RFC 5681, equation 4). */
static __always_inline void tcpls_set_cwnd(struct tcp_sock *tp, u32 cwnd)
{
	tp->snd_cwnd = tcpls_max(tcpls_min(cwnd, tp->snd_cwnd_clamp), 2);
}

/* Slow start: a segment for each segment acknowledged. Returns the acknowledged segments that are left over. */
static __always_inline u32 tcpls_slow_start(struct tcp_sock *tp, u32 acked)
{
	u32 cwnd = tp->snd_cwnd;
	u32 target = tcpls_min(cwnd + acked, tp->snd_ssthresh);

	tcpls_set_cwnd(tp, target);
	return acked - (target - cwnd);
}

/* Linear growth: one segment for every `per_segment` segments acknowledged; the remainder waits in snd_cwnd_cnt. */
static __always_inline void tcpls_grow(struct tcp_sock *tp, u32 per_segment, u32 acked)
{
	u32 count = tp->snd_cwnd_cnt + acked;
	u32 steps = count / tcpls_max(per_segment, 1);

	tp->snd_cwnd_cnt = count - steps * per_segment;
	tcpls_set_cwnd(tp, tp->snd_cwnd + steps);
}

#endif
