/*
 * A session with one logical unit, and commands sent over it.
 */
#ifndef SESSION_H
#define SESSION_H

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <stddef.h>
#include <stdint.h>

#define MAX_SESSIONS 16

/* iscsi is NULL where there is no session. */
struct session {
	char name[32];
	struct iscsi_context *iscsi;
	int lun;
	int logged_in;
	uint64_t blocks;       /* capacity in logical blocks */
	uint32_t block_length; /* bytes of a logical block */
	char lost[256];        /* why the connection was given up */
};

extern struct session sessions[MAX_SESSIONS];

/* What came of one command. data and sense point into task. */
struct outcome {
	struct scsi_task *task;
	const unsigned char *data;
	size_t data_length;
	const unsigned char *sense;
	size_t sense_length;
	int64_t microseconds;
};

/* Logs in and reads the capacity. Returns NULL, or what went wrong. */
const char *session_open(struct session *s, const char *url, const char *initiator, int header_digest);
/* Ends the session, with a logout where the connection is still there. */
void session_close(struct session *s);

/* Ends the session at once. Why it is worth ending is kept in lost. */
void session_abandon(struct session *s);

/*
 * Sends a CDB of 16 bytes and waits. out (out_length bytes) is data for the
 * target, in_length how much is expected from it; one of the two is 0.
 * Returns -1 when the connection, not the target, failed.
 */
int session_command(struct session *s, unsigned char cdb[16], const unsigned char *out, size_t out_length,
		    size_t in_length, struct outcome *o);
void outcome_free(struct outcome *o);

/*
 * Waits until a session has something to do or fd, if not -1, can be read, and
 * lets every session do it: also an idle one must answer a target that asks
 * whether it is there. A session whose connection failed is abandoned.
 * Returns 1 when fd can be read.
 */
int sessions_serve(int fd);

int64_t now_microseconds(void);

static inline void put16(unsigned char *p, uint16_t v) { p[0] = v >> 8; p[1] = (unsigned char)v; }
static inline void put32(unsigned char *p, uint32_t v) { put16(p, v >> 16); put16(p + 2, (uint16_t)v); }
static inline void put64(unsigned char *p, uint64_t v) { put32(p, v >> 32); put32(p + 4, (uint32_t)v); }
static inline uint16_t get16(const unsigned char *p) { return (uint16_t)(p[0] << 8 | p[1]); }
static inline uint32_t get32(const unsigned char *p) { return (uint32_t)get16(p) << 16 | get16(p + 2); }
static inline uint64_t get64(const unsigned char *p) { return (uint64_t)get32(p) << 32 | get32(p + 4); }

#endif
