/*
 * load: a load generator for one LUN, over libiscsi.
 *
 *   load URL read|write SIZE DEPTH SECONDS [random] [same] [flush=N]
 *
 * Keeps DEPTH commands of SIZE bytes outstanding for SECONDS, at sequential or
 * random addresses. Every written block of 4 KiB is new, or with "same" taken
 * from a pool of 16 MiB, so that a deduplicating store has it already. With
 * flush=N a SYNCHRONIZE CACHE follows every N writes.
 *
 * Prints the number of commands, the seconds, and the median and the 99th
 * percentile of the latency in microseconds. Exits with status 1 if a command
 * fails.
 */
#include <inttypes.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define POOL_BYTES (16 << 20)
#define UNIT 4096
#define MAX_DEPTH 256
#define BUCKETS 100000 /* of 1 us each; the last one also counts longer latencies */

struct slot {
	unsigned char *data;
	uint64_t start;
};

static struct iscsi_context *iscsi;
static int lun, depth, block_length, random_places, same_data, write_data;
static uint32_t size, flush_every;
static uint64_t blocks, next_block, commands, since_flush, stamp, state, end;
static int outstanding;
static unsigned char *pool;
static uint32_t latency[BUCKETS];
static struct slot slots[MAX_DEPTH];

static uint64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t draw(void)
{
	/* splitmix64 */
	uint64_t z = (state += 0x9e3779b97f4a7c15u);
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static void fail(const char *what)
{
	fprintf(stderr, "load: %s: %s\n", what, iscsi_get_error(iscsi));
	exit(1);
}

static void start(struct slot *s);

static void ended(struct iscsi_context *ctx, int status, void *data, void *private)
{
	struct slot *s = private;
	struct scsi_task *task = data;
	(void)ctx;
	outstanding--;
	if (status != SCSI_STATUS_GOOD)
		fail("command");
	uint64_t us = (now() - s->start) / 1000;
	latency[us < BUCKETS ? us : BUCKETS - 1]++;
	commands++;
	scsi_free_scsi_task(task);
	if (now() < end)
		start(s);
}

static void flushed(struct iscsi_context *ctx, int status, void *data, void *private)
{
	(void)ctx;
	outstanding--;
	if (status != SCSI_STATUS_GOOD)
		fail("flush");
	scsi_free_scsi_task(data);
	if (now() < end)
		start(private);
}

static uint64_t place(void)
{
	uint64_t n = blocks * (uint64_t)block_length / size;
	uint64_t at = random_places ? draw() % n : next_block++ % n;
	return at * (size / (uint32_t)block_length);
}

static void fill(struct slot *s)
{
	if (same_data) {
		uint64_t at = draw() % (POOL_BYTES / size) * size;
		memcpy(s->data, pool + at, size);
		return;
	}
	for (uint32_t i = 0; i < size; i += UNIT) {
		stamp++;
		memcpy(s->data + i, &stamp, sizeof stamp);
	}
}

static void start(struct slot *s)
{
	struct scsi_task *task;
	s->start = now();
	outstanding++;
	if (flush_every && since_flush >= flush_every) {
		since_flush = 0;
		if (!iscsi_synchronizecache10_task(iscsi, lun, 0, 0, 0, 0, flushed, s))
			fail("flush");
		return;
	}
	if (write_data) {
		since_flush++;
		fill(s);
		task = iscsi_write16_task(iscsi, lun, place(), s->data, size, block_length, 0, 0, 0, 0, 0, ended, s);
	} else {
		task = iscsi_read16_task(iscsi, lun, place(), size, block_length, 0, 0, 0, 0, 0, ended, s);
		if (task)
			scsi_task_add_data_in_buffer(task, (int)size, s->data);
	}
	if (!task)
		fail("command");
}

static void connect_to(const char *url)
{
	iscsi = iscsi_create_context("iqn.2026-11.example.odx:load");
	struct iscsi_url *u = iscsi ? iscsi_parse_full_url(iscsi, url) : NULL;
	if (!u)
		fail("URL");
	iscsi_set_session_type(iscsi, ISCSI_SESSION_NORMAL);
	iscsi_set_header_digest(iscsi, ISCSI_HEADER_DIGEST_NONE);
	if (iscsi_full_connect_sync(iscsi, u->portal, u->lun))
		fail("connect");
	lun = u->lun;
	struct scsi_task *task = iscsi_readcapacity16_sync(iscsi, lun);
	struct scsi_readcapacity16 *rc = task ? scsi_datain_unmarshall(task) : NULL;
	if (!rc)
		fail("READ CAPACITY(16)");
	blocks = rc->returned_lba + 1;
	block_length = (int)rc->block_length;
	scsi_free_scsi_task(task);
}

static void loop(void)
{
	for (int i = 0; i < depth; i++)
		start(&slots[i]);
	while (outstanding) {
		struct pollfd p = {.fd = iscsi_get_fd(iscsi), .events = (short)iscsi_which_events(iscsi)};
		if (poll(&p, 1, 10000) <= 0)
			fail("no response in 10 s");
		if (iscsi_service(iscsi, p.revents) < 0)
			fail("connection");
	}
}

static unsigned percentile(uint64_t p)
{
	uint64_t seen = 0;
	for (unsigned us = 0; us < BUCKETS; us++)
		if ((seen += latency[us]) * 100 >= commands * p)
			return us;
	return BUCKETS;
}

int main(int argc, char **argv)
{
	if (argc < 6) {
		fprintf(stderr, "usage: load URL read|write SIZE DEPTH SECONDS [random] [same] [flush=N]\n");
		return 2;
	}
	write_data = !strcmp(argv[2], "write");
	size = (uint32_t)atoi(argv[3]);
	depth = atoi(argv[4]);
	for (int i = 6; i < argc; i++) {
		random_places |= !strcmp(argv[i], "random");
		same_data |= !strcmp(argv[i], "same");
		if (!strncmp(argv[i], "flush=", 6))
			flush_every = (uint32_t)atoi(argv[i] + 6);
	}
	if (size == 0 || size % UNIT || depth < 1 || depth > MAX_DEPTH) {
		fprintf(stderr, "load: SIZE must be a multiple of 4096, DEPTH 1 to %d\n", MAX_DEPTH);
		return 2;
	}
	state = same_data ? 1 : now();
	pool = malloc(POOL_BYTES);
	for (size_t i = 0; i < POOL_BYTES; i += 8) {
		uint64_t r = draw();
		memcpy(pool + i, &r, 8);
	}
	state = now();
	stamp = draw();
	connect_to(argv[1]);
	for (int i = 0; i < depth; i++) {
		slots[i].data = malloc(size);
		memcpy(slots[i].data, pool, size < POOL_BYTES ? size : POOL_BYTES);
	}
	uint64_t begin = now();
	end = begin + (uint64_t)(atof(argv[5]) * 1e9);
	loop();
	printf("commands %" PRIu64 " seconds %.3f median %u us p99 %u us\n", commands, (double)(now() - begin) / 1e9,
	       percentile(50), percentile(99));
	iscsi_logout_sync(iscsi);
	iscsi_destroy_context(iscsi);
	return 0;
}
