/*
 * What the driver of `device/spdk` calls in SPDK where that is a macro, a structure passed by value, a bit field or a
 * callback; everything else it calls by SPDK's own name. Completions are not called back into Rust: they are written to
 * a table of the queue pair, which its owner reads after polling it.
 */
#ifndef POLLUX_SPDK_SHIM_H
#define POLLUX_SPDK_SHIM_H

#include <spdk/stdinc.h>

#include <spdk/env.h>
#include <spdk/nvme.h>

/* Receives SPDK's log: one line, without its end. `level` is an enum spdk_log_level. */
typedef void (*pollux_spdk_log_fn)(int level, const char *line);

/*
 * Starts SPDK's environment: DPDK's, or SPDK on top of the DPDK that is running already. `cpus` is the list of CPUs that
 * the calling thread may run on, in DPDK's form ("0,2-5"): its one logical core floats over them. Without `pci` no PCI
 * device is looked at; without `huge` the memory is `mem_mib` of ordinary pages. 0 or a negative errno.
 */
int pollux_spdk_start(const char *cpus, bool pci, bool huge, int mem_mib, pollux_spdk_log_fn log);

/* What a controller reports by itself; read and cleared with pollux_spdk_take. */
struct pollux_spdk_events {
	/* An asynchronous event came: namespaces may have changed. */
	uint32_t changed;
	/* A command has been under way for longer than it may be. */
	uint32_t overdue;
};

/* Attaches to the controller of a transport id; NULL when that fails, with the reason in the log. `hostnqn` may be NULL. */
struct spdk_nvme_ctrlr *pollux_spdk_attach(const char *trid, const char *hostnqn);
/* Lets the controller report to `events`, which must live until it is detached. Times in microseconds. */
void pollux_spdk_watch(struct spdk_nvme_ctrlr *ctrlr, struct pollux_spdk_events *events, uint64_t io_us, uint64_t admin_us);
/* Reads a field of the events and clears it. */
bool pollux_spdk_take(uint32_t *field);

/* What a namespace can do. */
struct pollux_spdk_facts {
	/* Bytes. */
	uint64_t size;
	/* Bytes per block, its metadata not counted. */
	uint32_t block_size;
	/* Bytes of metadata per block. */
	uint32_t metadata;
	/* Largest transfer of one command, bytes. */
	uint32_t transfer_max;
	/* Blocks that a power cut leaves whole or untouched. */
	uint32_t atomic_blocks;
	/* Protection information is on. */
	bool protected_;
	bool volatile_cache;
	bool write_zeroes;
	bool discard;
	bool read_only;
	/* NGUID, EUI-64 and UUID: which namespace it is. */
	uint8_t identity[40];
};

/* False when the namespace is not active. */
bool pollux_spdk_facts(struct spdk_nvme_ctrlr *ctrlr, uint32_t nsid, struct pollux_spdk_facts *facts);

/* A completed command. */
struct pollux_spdk_done {
	/* As given to pollux_spdk_submit. */
	uint16_t tag;
	/* Status code type in bits 8 to 10, status code in bits 0 to 7, bit 11 for "do not retry". */
	uint16_t status;
};

struct pollux_spdk_slot;

/* A queue pair with room for `depth` commands under way. */
struct pollux_spdk_pair {
	/* NULL while closed. */
	struct spdk_nvme_qpair *qpair;
	struct spdk_nvme_ctrlr *ctrlr;
	/* May be another one after a reset of the controller: see pollux_spdk_pair_renew. */
	struct spdk_nvme_ns *ns;
	uint32_t nsid;
	uint32_t depth;
	/* Requests of the driver for this pair. */
	uint32_t requests;
	/* Completions that wait in `done`, at most `depth`. */
	uint32_t done_count;
	struct pollux_spdk_done *done;
	struct pollux_spdk_slot *slots;
	/* One range per tag, in memory the device can read. */
	struct spdk_nvme_dsm_range *ranges;
	/* `zero_bytes` of zeroes, likewise. */
	void *zeroes;
	uint32_t zero_bytes;
};

/* What to do with a range of blocks. */
enum pollux_spdk_kind {
	POLLUX_SPDK_READ,
	POLLUX_SPDK_WRITE,
	POLLUX_SPDK_FLUSH,
	/* Write Zeroes. */
	POLLUX_SPDK_ZERO,
	/* Zeroes written from the pair's own buffer, at most zero_bytes. */
	POLLUX_SPDK_ZERO_BY_HAND,
	/* Dataset Management, deallocate. */
	POLLUX_SPDK_DISCARD,
};

/* A pair connected to the controller, or NULL, with a negative errno in `error`. */
struct pollux_spdk_pair *pollux_spdk_pair_new(struct spdk_nvme_ctrlr *ctrlr, uint32_t nsid, uint32_t depth, uint32_t requests,
					      uint32_t zero_bytes, int *error);
/* Looks the namespace up again. False when it is not there. */
bool pollux_spdk_pair_renew(struct pollux_spdk_pair *pair);
/* Makes the connection that pollux_spdk_pair_close took away; 0 or a negative errno. */
int pollux_spdk_pair_open(struct pollux_spdk_pair *pair);
/* Disconnects the pair and gives its commands up; what was under way may still be reported in `done`. */
void pollux_spdk_pair_close(struct pollux_spdk_pair *pair);
/* Closes the pair and frees it. */
void pollux_spdk_pair_free(struct pollux_spdk_pair *pair);
/*
 * Submits a command. `tag` is below the pair's depth and of no other command under way; `buffer` stays valid until its
 * completion. 0; -ENOMEM when the driver has no request left, for now; any other negative errno when the pair failed.
 */
int pollux_spdk_submit(struct pollux_spdk_pair *pair, enum pollux_spdk_kind kind, uint16_t tag, void *buffer, uint64_t lba,
		       uint32_t blocks);
/* Hands what was submitted to the device and moves completions to `done`. A negative errno when the pair failed. */
int pollux_spdk_poll(struct pollux_spdk_pair *pair);

/* True when a device can reach every byte of this memory, which was registered with spdk_mem_register. */
bool pollux_spdk_reachable(const uint8_t *memory, size_t len);

#endif
