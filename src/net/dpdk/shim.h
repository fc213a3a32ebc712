/* What net/dpdk needs of DPDK, as plain functions: much of DPDK's API is inline in its headers and cannot be called from
 * elsewhere. bindgen reads this file alone, so it names no header of DPDK. Every function that returns an int returns 0 or
 * a negative errno. */
#ifndef POLLUX_DPDK_SHIM_H
#define POLLUX_DPDK_SHIM_H

#include <stddef.h>
#include <stdint.h>

struct rte_mbuf;
struct rte_mempool;

/* A line of DPDK's log: its level (1: worst, 8: debug), and bytes that are not terminated. */
typedef void (*pollux_log_sink)(uint32_t level, const char *line, size_t len);

/* What a port is and offers. */
struct pollux_port {
	uint8_t mac[6];
	uint16_t mtu;
	uint16_t max_mtu;
	uint16_t max_rx_queues;
	uint16_t max_tx_queues;
	/* Ring sizes that the driver proposes and allows. */
	uint16_t rx_ring, rx_ring_min, rx_ring_max, rx_ring_align;
	uint16_t tx_ring, tx_ring_min, tx_ring_max, tx_ring_align;
	/* Largest frame, without its trailing checksum; 0: not said. */
	uint32_t max_frame;
	int numa_node;
	/* Of POLLUX_OFFLOAD_... */
	uint32_t offloads;
	/* It can spread flows over its queues by a hash. */
	uint8_t rss;
	char driver[32];
};

enum pollux_offload {
	POLLUX_OFFLOAD_RX_IP = 1,
	POLLUX_OFFLOAD_RX_TCP = 2,
	POLLUX_OFFLOAD_TX_TCP = 4,
	/* Frees transmitted buffers of one pool without looking at each. */
	POLLUX_OFFLOAD_TX_FAST_FREE = 8,
};

/* A received frame, or an empty one to be transmitted: one contiguous piece of memory. */
struct pollux_frame {
	struct rte_mbuf *mbuf;
	uint8_t *data;
	uint32_t len;
	/* Of POLLUX_CHECKED_...: what the port says about its checksums. */
	uint32_t checked;
};

enum pollux_checked {
	POLLUX_CHECKED_IP_GOOD = 1,
	POLLUX_CHECKED_TCP_GOOD = 2,
	POLLUX_CHECKED_BAD = 4,
};

/* Counters of a port. */
struct pollux_counts {
	uint64_t missed;
	uint64_t errors;
	uint64_t no_memory;
};

/* Once per process, on the thread that later calls pollux_eal_stop. */
int pollux_eal_start(int argc, char **argv, pollux_log_sink sink);
int pollux_eal_stop(void);
const char *pollux_version(void);
/* Gives the calling thread a number of its own, without which memory pools have no cache for it. */
int pollux_thread_enter(void);
void pollux_thread_leave(void);

/* A port by the name of its device. */
int pollux_port_find(const char *name, uint16_t *port);
int pollux_port_describe(uint16_t port, struct pollux_port *into);
/* Queues, offloads of POLLUX_OFFLOAD_..., and spreading by hash where rss is not 0. */
int pollux_port_configure(uint16_t port, uint16_t queues, uint32_t offloads, int rss, uint16_t mtu);
int pollux_port_set_mtu(uint16_t port, uint16_t mtu);
int pollux_port_queue(uint16_t port, uint16_t queue, uint16_t rx_ring, uint16_t tx_ring, int numa_node, struct rte_mempool *rx);
int pollux_port_start(uint16_t port);
/* 1: up, 0: down. */
int pollux_port_link(uint16_t port);
/* Multicast groups: IPv6 neighbours ask by them. */
int pollux_port_all_multicast(uint16_t port);
int pollux_port_counts(uint16_t port, struct pollux_counts *into);
void pollux_port_close(uint16_t port);

/* A pool of count buffers with room bytes each for headroom and frame; NULL, and *error, when there is no memory. */
struct rte_mempool *pollux_pool(const char *name, uint32_t count, uint16_t room, int numa_node, int *error);
void pollux_pool_free(struct rte_mempool *pool);
/* Bytes in front of a frame that a pool's room includes. */
uint32_t pollux_headroom(void);

/* A burst; chains are made contiguous, and those that do not fit are dropped and counted. */
uint16_t pollux_receive(uint16_t port, uint16_t queue, struct pollux_frame *into, uint16_t room, uint64_t *dropped);
void pollux_free(struct rte_mbuf *mbuf);
/* An empty frame of len bytes; 0 when the pool is exhausted, or len more than a buffer holds. */
int pollux_alloc(struct rte_mempool *pool, uint32_t len, struct pollux_frame *into);
/* The port is to fill in the TCP checksum of this frame, whose headers have these lengths; it holds the pseudo header's. */
void pollux_request_sum(struct rte_mbuf *mbuf, uint16_t ethernet, uint16_t ip, uint16_t tcp, int ipv6);
/* How many of these the hardware took, from the front; prepare: some have checksums to be filled in. */
uint16_t pollux_transmit(uint16_t port, uint16_t queue, struct rte_mbuf **frames, uint16_t count, int prepare);

#endif
