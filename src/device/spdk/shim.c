/* See shim.h. */
#include "shim.h"

#include <spdk/env_dpdk.h>
#include <spdk/log.h>
#include <spdk/util.h>
#include <spdk/version.h>

#if SPDK_VERSION < SPDK_VERSION_NUM(26, 5, 0)
#error "SPDK 26.05 or newer is needed"
#endif

/* Of DPDK's environment layer; its headers are not needed for them. */
extern unsigned int rte_lcore_count(void);
extern int rte_eal_has_hugepages(void);

/* Longest line of the log that is passed on; longer ones are cut. */
#define LINE_MAX_BYTES 512
/* A target that does not answer a connection request for this long is not there. */
#define CONNECT_TIMEOUT_MS 5000
/* Each step of a controller's start may take this long. */
#define ADMIN_TIMEOUT_MS 10000
/* Entries of a submission queue at most; what is submitted beyond waits in the driver. */
#define QUEUE_SIZE_MAX 1024

struct pollux_spdk_slot {
	struct pollux_spdk_pair *pair;
	uint16_t tag;
};

static pollux_spdk_log_fn g_log;

static void
log_line(int level, const char *file, const int line, const char *func, const char *format, va_list args)
{
	char text[LINE_MAX_BYTES];
	int len;

	(void)file;
	(void)line;
	(void)func;
	len = vsnprintf(text, sizeof(text), format, args);
	if (len < 0) {
		return;
	}
	len = spdk_min(len, LINE_MAX_BYTES - 1);
	while (len > 0 && text[len - 1] == '\n') {
		text[--len] = '\0';
	}
	if (len > 0) {
		g_log(level, text);
	}
}

int
pollux_spdk_start(const char *cpus, bool pci, bool huge, int mem_mib, pollux_spdk_log_fn log)
{
	struct spdk_env_opts opts;
	struct spdk_nvme_transport_opts transport;
	char lcore[1024];
	int rc;

	g_log = log;
	spdk_log_open(log_line);

	if (rte_lcore_count() != 0) {
		/* Somebody else in this process started DPDK. */
		rc = spdk_env_dpdk_post_init(!rte_eal_has_hugepages());
	} else {
		memset(&opts, 0, sizeof(opts));
		opts.opts_size = sizeof(opts);
		spdk_env_opts_init(&opts);
		if (snprintf(lcore, sizeof(lcore), "0@(%s)", cpus) >= (int)sizeof(lcore)) {
			return -E2BIG;
		}
		opts.name = "pollux";
		opts.core_mask = NULL;
		opts.lcore_map = lcore;
		opts.shm_id = -1;
		opts.no_pci = !pci;
		opts.no_huge = !huge;
		if (!huge) {
			opts.mem_size = mem_mib;
		}
		/* Errors only: what goes wrong is said by whoever called. */
		opts.env_context = "--log-level=lib.eal:4";
		rc = spdk_env_init(&opts);
	}
	if (rc != 0) {
		return rc < 0 ? rc : -EIO;
	}

	spdk_nvme_transport_get_opts(&transport, sizeof(transport));
	transport.tcp_connect_timeout_ms = CONNECT_TIMEOUT_MS;
	return spdk_nvme_transport_set_opts(&transport, sizeof(transport));
}

struct spdk_nvme_ctrlr *
pollux_spdk_attach(const char *text, const char *hostnqn)
{
	struct spdk_nvme_transport_id trid = {};
	struct spdk_nvme_ctrlr_opts opts;

	if (spdk_nvme_transport_id_parse(&trid, text) != 0) {
		return NULL;
	}
	spdk_nvme_ctrlr_get_default_ctrlr_opts(&opts, sizeof(opts));
	opts.io_queue_size = QUEUE_SIZE_MAX;
	opts.admin_timeout_ms = ADMIN_TIMEOUT_MS;
	opts.fabrics_connect_timeout_us = CONNECT_TIMEOUT_MS * 1000ull;
	/* Each error is reported by the operation that it ends. */
	opts.disable_error_logging = true;
	if (hostnqn != NULL) {
		snprintf(opts.hostnqn, sizeof(opts.hostnqn), "%s", hostnqn);
	}
	return spdk_nvme_connect(&trid, &opts, sizeof(opts));
}

static void
event_came(void *arg, const struct spdk_nvme_cpl *cpl)
{
	struct pollux_spdk_events *events = arg;

	if (!spdk_nvme_cpl_is_error(cpl)) {
		__atomic_store_n(&events->changed, 1, __ATOMIC_RELEASE);
	}
}

static void
command_overdue(void *arg, struct spdk_nvme_ctrlr *ctrlr, struct spdk_nvme_qpair *qpair, uint16_t cid)
{
	struct pollux_spdk_events *events = arg;

	(void)ctrlr;
	(void)qpair;
	(void)cid;
	__atomic_store_n(&events->overdue, 1, __ATOMIC_RELEASE);
}

void
pollux_spdk_watch(struct spdk_nvme_ctrlr *ctrlr, struct pollux_spdk_events *events, uint64_t io_us, uint64_t admin_us)
{
	spdk_nvme_ctrlr_register_aer_callback(ctrlr, event_came, events);
	spdk_nvme_ctrlr_register_timeout_callback(ctrlr, io_us, admin_us, command_overdue, events);
}

bool
pollux_spdk_take(uint32_t *field)
{
	return __atomic_exchange_n(field, 0, __ATOMIC_ACQUIRE) != 0;
}

bool
pollux_spdk_facts(struct spdk_nvme_ctrlr *ctrlr, uint32_t nsid, struct pollux_spdk_facts *facts)
{
	const struct spdk_nvme_ctrlr_data *controller;
	const struct spdk_nvme_ns_data *data;
	const struct spdk_uuid *uuid;
	struct spdk_nvme_ns *ns;
	uint32_t flags;

	memset(facts, 0, sizeof(*facts));
	ns = spdk_nvme_ctrlr_get_ns(ctrlr, nsid);
	if (ns == NULL || !spdk_nvme_ns_is_active(ns)) {
		return false;
	}
	controller = spdk_nvme_ctrlr_get_data(ctrlr);
	data = spdk_nvme_ns_get_data(ns);
	flags = spdk_nvme_ns_get_flags(ns);
	facts->size = spdk_nvme_ns_get_size(ns);
	facts->block_size = spdk_nvme_ns_get_sector_size(ns);
	facts->metadata = spdk_nvme_ns_get_md_size(ns);
	facts->transfer_max = spdk_nvme_ns_get_max_io_xfer_size(ns);
	/* Counts from 0; the namespace's own count overrules the controller's (NVM command set 1.0, 2.1.4). */
	facts->atomic_blocks = (data->nsfeat.ns_atomic_write_unit ? data->nawupf : controller->awupf) + 1u;
	facts->protected_ = spdk_nvme_ns_get_pi_type(ns) != SPDK_NVME_FMT_NVM_PROTECTION_DISABLE;
	facts->volatile_cache = controller->vwc.present;
	facts->write_zeroes = flags & SPDK_NVME_NS_WRITE_ZEROES_SUPPORTED;
	facts->discard = flags & SPDK_NVME_NS_DEALLOCATE_SUPPORTED;
	facts->read_only = data->nsattr.cwp;
	memcpy(facts->identity, data->nguid, 16);
	memcpy(facts->identity + 16, &data->eui64, 8);
	uuid = spdk_nvme_ns_get_uuid(ns);
	if (uuid != NULL) {
		memcpy(facts->identity + 24, uuid, 16);
	}
	return true;
}

static void
command_done(void *arg, const struct spdk_nvme_cpl *cpl)
{
	struct pollux_spdk_slot *slot = arg;
	struct pollux_spdk_pair *pair = slot->pair;
	struct pollux_spdk_done *done;

	/* Each tag is under way once, so there is room for its completion. */
	assert(pair->done_count < pair->depth);
	done = &pair->done[pair->done_count++];
	done->tag = slot->tag;
	done->status = (uint16_t)(cpl->status.sc | cpl->status.sct << 8 | cpl->status.dnr << 11);
}

struct pollux_spdk_pair *
pollux_spdk_pair_new(struct spdk_nvme_ctrlr *ctrlr, uint32_t nsid, uint32_t depth, uint32_t requests, uint32_t zero_bytes,
		     int *error)
{
	struct pollux_spdk_pair *pair;
	uint32_t i;

	*error = -ENOMEM;
	pair = calloc(1, sizeof(*pair));
	if (pair == NULL) {
		return NULL;
	}
	pair->ctrlr = ctrlr;
	pair->nsid = nsid;
	pair->depth = depth;
	pair->requests = requests;
	pair->zero_bytes = zero_bytes;
	pair->done = calloc(depth, sizeof(*pair->done));
	pair->slots = calloc(depth, sizeof(*pair->slots));
	pair->ranges = spdk_zmalloc(depth * sizeof(*pair->ranges), 4096, NULL, SPDK_ENV_NUMA_ID_ANY, SPDK_MALLOC_DMA);
	pair->zeroes = spdk_zmalloc(zero_bytes, 4096, NULL, SPDK_ENV_NUMA_ID_ANY, SPDK_MALLOC_DMA);
	if (pair->done == NULL || pair->slots == NULL || pair->ranges == NULL || pair->zeroes == NULL) {
		pollux_spdk_pair_free(pair);
		return NULL;
	}
	for (i = 0; i < depth; i++) {
		pair->slots[i].pair = pair;
		pair->slots[i].tag = (uint16_t)i;
	}

	*error = pollux_spdk_pair_open(pair);
	if (*error != 0) {
		pollux_spdk_pair_free(pair);
		return NULL;
	}
	return pair;
}

int
pollux_spdk_pair_open(struct pollux_spdk_pair *pair)
{
	struct spdk_nvme_io_qpair_opts opts;

	spdk_nvme_ctrlr_get_default_io_qpair_opts(pair->ctrlr, &opts, sizeof(opts));
	/* One entry of a ring stays empty. */
	opts.io_queue_size = spdk_min(opts.io_queue_size, spdk_max(pair->depth + 1, 2u));
	opts.io_queue_requests = pair->requests;
	opts.delay_cmd_submit = true;
	pair->qpair = spdk_nvme_ctrlr_alloc_io_qpair(pair->ctrlr, &opts, sizeof(opts));
	return pair->qpair != NULL && pollux_spdk_pair_renew(pair) ? 0 : -ENXIO;
}

bool
pollux_spdk_pair_renew(struct pollux_spdk_pair *pair)
{
	pair->ns = spdk_nvme_ctrlr_get_ns(pair->ctrlr, pair->nsid);
	return pair->ns != NULL && spdk_nvme_ns_is_active(pair->ns);
}

void
pollux_spdk_pair_close(struct pollux_spdk_pair *pair)
{
	struct spdk_nvme_qpair *qpair = pair->qpair;

	pair->qpair = NULL;
	if (qpair != NULL) {
		spdk_nvme_ctrlr_free_io_qpair(qpair);
	}
}

void
pollux_spdk_pair_free(struct pollux_spdk_pair *pair)
{
	pollux_spdk_pair_close(pair);
	spdk_free(pair->zeroes);
	spdk_free(pair->ranges);
	free(pair->slots);
	free(pair->done);
	free(pair);
}

int
pollux_spdk_submit(struct pollux_spdk_pair *pair, enum pollux_spdk_kind kind, uint16_t tag, void *buffer, uint64_t lba,
		   uint32_t blocks)
{
	struct pollux_spdk_slot *slot = &pair->slots[tag];
	struct spdk_nvme_qpair *qpair = pair->qpair;
	struct spdk_nvme_ns *ns = pair->ns;
	struct spdk_nvme_cmd command;

	if (qpair == NULL) {
		return -ENXIO;
	}
	switch (kind) {
	case POLLUX_SPDK_READ:
		return spdk_nvme_ns_cmd_read(ns, qpair, buffer, lba, blocks, command_done, slot, 0);
	case POLLUX_SPDK_WRITE:
		return spdk_nvme_ns_cmd_write(ns, qpair, buffer, lba, blocks, command_done, slot, 0);
	case POLLUX_SPDK_FLUSH:
		return spdk_nvme_ns_cmd_flush(ns, qpair, command_done, slot);
	case POLLUX_SPDK_ZERO:
		return spdk_nvme_ns_cmd_write_zeroes(ns, qpair, lba, blocks, command_done, slot, 0);
	case POLLUX_SPDK_ZERO_BY_HAND:
		return spdk_nvme_ns_cmd_write(ns, qpair, pair->zeroes, lba, blocks, command_done, slot, 0);
	case POLLUX_SPDK_DISCARD:
		/* SPDK's own call would allocate memory for the range. */
		memset(&pair->ranges[tag], 0, sizeof(pair->ranges[tag]));
		pair->ranges[tag].starting_lba = lba;
		pair->ranges[tag].length = blocks;
		memset(&command, 0, sizeof(command));
		command.opc = SPDK_NVME_OPC_DATASET_MANAGEMENT;
		command.nsid = pair->nsid;
		command.cdw10_bits.dsm.nr = 0;
		command.cdw11_bits.dsm.ad = 1;
		return spdk_nvme_ctrlr_cmd_io_raw(pair->ctrlr, qpair, &command, &pair->ranges[tag], sizeof(pair->ranges[tag]),
						  command_done, slot);
	}
	return -EINVAL;
}

int
pollux_spdk_poll(struct pollux_spdk_pair *pair)
{
	return pair->qpair == NULL ? -ENXIO : spdk_nvme_qpair_process_completions(pair->qpair, 0);
}

bool
pollux_spdk_reachable(const uint8_t *memory, size_t len)
{
	size_t at;

	for (at = 0; at < len; at += 4096) {
		if (spdk_vtophys(memory + at, NULL) == SPDK_VTOPHYS_ERROR) {
			return false;
		}
	}
	return true;
}
