/* See shim.h. */
#define _GNU_SOURCE
#include "shim.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_version.h>

/* Most frames of one burst; a caller's larger room is not used. */
#define BURST_MAX 64
/* Free buffers that a thread keeps to itself, per pool. */
#define POOL_CACHE 256

static pollux_log_sink log_sink;

static ssize_t log_write(void *cookie, const char *line, size_t len)
{
	(void)cookie;
	log_sink((uint32_t)rte_log_cur_msg_loglevel(), line, len);
	return (ssize_t)len;
}

int pollux_eal_start(int argc, char **argv, pollux_log_sink sink)
{
	static const cookie_io_functions_t functions = { .write = log_write };
	FILE *stream = fopencookie(NULL, "w", functions);

	if (stream == NULL)
		return -errno;
	/* Whole lines, so that a line has one level. */
	setvbuf(stream, NULL, _IOLBF, 4096);
	log_sink = sink;
	if (rte_openlog_stream(stream) < 0)
		return -EINVAL;
	if (rte_eal_init(argc, argv) < 0)
		return rte_errno > 0 ? -rte_errno : -EINVAL;
	return 0;
}

int pollux_eal_stop(void)
{
	return rte_eal_cleanup();
}

const char *pollux_version(void)
{
	return rte_version();
}

int pollux_thread_enter(void)
{
	return rte_thread_register() < 0 ? -rte_errno : 0;
}

void pollux_thread_leave(void)
{
	rte_thread_unregister();
}

int pollux_port_find(const char *name, uint16_t *port)
{
	return rte_eth_dev_get_port_by_name(name, port);
}

int pollux_port_describe(uint16_t port, struct pollux_port *into)
{
	struct rte_eth_dev_info info;
	struct rte_ether_addr mac;
	int status = rte_eth_dev_info_get(port, &info);

	if (status == 0)
		status = rte_eth_macaddr_get(port, &mac);
	if (status != 0)
		return status;
	memset(into, 0, sizeof(*into));
	memcpy(into->mac, mac.addr_bytes, sizeof(into->mac));
	if (rte_eth_dev_get_mtu(port, &into->mtu) != 0)
		into->mtu = RTE_ETHER_MTU;
	into->max_mtu = info.max_mtu;
	into->max_rx_queues = info.max_rx_queues;
	into->max_tx_queues = info.max_tx_queues;
	into->rx_ring = info.default_rxportconf.ring_size;
	into->rx_ring_min = info.rx_desc_lim.nb_min;
	into->rx_ring_max = info.rx_desc_lim.nb_max;
	into->rx_ring_align = info.rx_desc_lim.nb_align;
	into->tx_ring = info.default_txportconf.ring_size;
	into->tx_ring_min = info.tx_desc_lim.nb_min;
	into->tx_ring_max = info.tx_desc_lim.nb_max;
	into->tx_ring_align = info.tx_desc_lim.nb_align;
	into->max_frame = info.max_rx_pktlen;
	into->numa_node = rte_eth_dev_socket_id(port);
	if (info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_IPV4_CKSUM)
		into->offloads |= POLLUX_OFFLOAD_RX_IP;
	if (info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_TCP_CKSUM)
		into->offloads |= POLLUX_OFFLOAD_RX_TCP;
	if (info.tx_offload_capa & RTE_ETH_TX_OFFLOAD_TCP_CKSUM)
		into->offloads |= POLLUX_OFFLOAD_TX_TCP;
	if (info.tx_offload_capa & RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE)
		into->offloads |= POLLUX_OFFLOAD_TX_FAST_FREE;
	into->rss = (info.flow_type_rss_offloads & (RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP)) != 0;
	snprintf(into->driver, sizeof(into->driver), "%s", info.driver_name);
	return 0;
}

int pollux_port_configure(uint16_t port, uint16_t queues, uint32_t offloads, int rss, uint16_t mtu)
{
	struct rte_eth_dev_info info;
	struct rte_eth_conf conf;
	int status = rte_eth_dev_info_get(port, &info);

	if (status != 0)
		return status;
	memset(&conf, 0, sizeof(conf));
	conf.rxmode.mtu = mtu;
	if (offloads & POLLUX_OFFLOAD_RX_IP)
		conf.rxmode.offloads |= RTE_ETH_RX_OFFLOAD_IPV4_CKSUM;
	if (offloads & POLLUX_OFFLOAD_RX_TCP)
		conf.rxmode.offloads |= RTE_ETH_RX_OFFLOAD_TCP_CKSUM;
	if (offloads & POLLUX_OFFLOAD_TX_TCP)
		conf.txmode.offloads |= RTE_ETH_TX_OFFLOAD_TCP_CKSUM;
	if (offloads & POLLUX_OFFLOAD_TX_FAST_FREE)
		conf.txmode.offloads |= RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE;
	if (rss) {
		conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
		conf.rx_adv_conf.rss_conf.rss_hf =
			info.flow_type_rss_offloads & (RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP);
	}
	return rte_eth_dev_configure(port, queues, queues, &conf);
}

int pollux_port_set_mtu(uint16_t port, uint16_t mtu)
{
	return rte_eth_dev_set_mtu(port, mtu);
}

int pollux_port_queue(uint16_t port, uint16_t queue, uint16_t rx_ring, uint16_t tx_ring, int numa_node, struct rte_mempool *rx)
{
	unsigned int node = numa_node < 0 ? (unsigned int)SOCKET_ID_ANY : (unsigned int)numa_node;
	/* NULL: the driver's own thresholds, and the offloads of the port. */
	int status = rte_eth_rx_queue_setup(port, queue, rx_ring, node, NULL, rx);

	return status != 0 ? status : rte_eth_tx_queue_setup(port, queue, tx_ring, node, NULL);
}

int pollux_port_start(uint16_t port)
{
	return rte_eth_dev_start(port);
}

int pollux_port_link(uint16_t port)
{
	struct rte_eth_link link;
	int status = rte_eth_link_get_nowait(port, &link);

	/* A driver that cannot say is taken to be up. */
	if (status == -ENOTSUP)
		return 1;
	return status != 0 ? status : link.link_status == RTE_ETH_LINK_UP;
}

int pollux_port_all_multicast(uint16_t port)
{
	return rte_eth_allmulticast_enable(port);
}

int pollux_port_counts(uint16_t port, struct pollux_counts *into)
{
	struct rte_eth_stats stats;
	int status = rte_eth_stats_get(port, &stats);

	if (status != 0)
		return status;
	into->missed = stats.imissed;
	into->errors = stats.ierrors;
	into->no_memory = stats.rx_nombuf;
	return 0;
}

void pollux_port_close(uint16_t port)
{
	/* A port that does not stop is closed all the same: nothing can be done about it here. */
	(void)rte_eth_dev_stop(port);
	(void)rte_eth_dev_close(port);
}

struct rte_mempool *pollux_pool(const char *name, uint32_t count, uint16_t room, int numa_node, int *error)
{
	unsigned int cache = count / 4 < POOL_CACHE ? count / 4 : POOL_CACHE;
	struct rte_mempool *pool = rte_pktmbuf_pool_create(name, count, cache, 0, room, numa_node < 0 ? SOCKET_ID_ANY : numa_node);

	if (pool == NULL)
		*error = -rte_errno;
	return pool;
}

void pollux_pool_free(struct rte_mempool *pool)
{
	rte_mempool_free(pool);
}

uint32_t pollux_headroom(void)
{
	return RTE_PKTMBUF_HEADROOM;
}

static uint32_t checked(uint64_t flags)
{
	uint64_t ip = flags & RTE_MBUF_F_RX_IP_CKSUM_MASK, l4 = flags & RTE_MBUF_F_RX_L4_CKSUM_MASK;
	uint32_t said = 0;

	if (ip == RTE_MBUF_F_RX_IP_CKSUM_GOOD)
		said |= POLLUX_CHECKED_IP_GOOD;
	/* NONE: not in the frame, but the data is known to be right. */
	if (l4 == RTE_MBUF_F_RX_L4_CKSUM_GOOD || l4 == RTE_MBUF_F_RX_L4_CKSUM_NONE)
		said |= POLLUX_CHECKED_TCP_GOOD;
	if (ip == RTE_MBUF_F_RX_IP_CKSUM_BAD || l4 == RTE_MBUF_F_RX_L4_CKSUM_BAD)
		said |= POLLUX_CHECKED_BAD;
	return said;
}

uint16_t pollux_receive(uint16_t port, uint16_t queue, struct pollux_frame *into, uint16_t room, uint64_t *dropped)
{
	struct rte_mbuf *burst[BURST_MAX];
	uint16_t got = rte_eth_rx_burst(port, queue, burst, RTE_MIN(room, (uint16_t)BURST_MAX));
	uint16_t i, kept = 0;

	for (i = 0; i < got; i++) {
		struct rte_mbuf *m = burst[i];

		if (unlikely(m->nb_segs > 1 && rte_pktmbuf_linearize(m) != 0)) {
			rte_pktmbuf_free(m);
			++*dropped;
			continue;
		}
		into[kept].mbuf = m;
		into[kept].data = rte_pktmbuf_mtod(m, uint8_t *);
		into[kept].len = rte_pktmbuf_data_len(m);
		into[kept].checked = checked(m->ol_flags);
		rte_prefetch0(into[kept].data);
		kept++;
	}
	return kept;
}

void pollux_free(struct rte_mbuf *mbuf)
{
	rte_pktmbuf_free(mbuf);
}

int pollux_alloc(struct rte_mempool *pool, uint32_t len, struct pollux_frame *into)
{
	struct rte_mbuf *m = rte_pktmbuf_alloc(pool);

	if (unlikely(m == NULL))
		return 0;
	if (unlikely(len > rte_pktmbuf_tailroom(m))) {
		rte_pktmbuf_free(m);
		return 0;
	}
	m->data_len = (uint16_t)len;
	m->pkt_len = len;
	into->mbuf = m;
	into->data = rte_pktmbuf_mtod(m, uint8_t *);
	into->len = len;
	into->checked = 0;
	return 1;
}

void pollux_request_sum(struct rte_mbuf *m, uint16_t ethernet, uint16_t ip, uint16_t tcp, int ipv6)
{
	m->l2_len = ethernet;
	m->l3_len = ip;
	m->l4_len = tcp;
	m->ol_flags |= RTE_MBUF_F_TX_TCP_CKSUM | (ipv6 ? RTE_MBUF_F_TX_IPV6 : RTE_MBUF_F_TX_IPV4);
}

uint16_t pollux_transmit(uint16_t port, uint16_t queue, struct rte_mbuf **frames, uint16_t count, int prepare)
{
	/* A frame that the driver finds it cannot send stays in front, and is dropped there: it would block all others. */
	if (prepare) {
		uint16_t fit = rte_eth_tx_prepare(port, queue, frames, count);

		if (unlikely(fit == 0 && count > 0)) {
			rte_pktmbuf_free(frames[0]);
			return 1;
		}
		count = fit;
	}
	return rte_eth_tx_burst(port, queue, frames, count);
}
