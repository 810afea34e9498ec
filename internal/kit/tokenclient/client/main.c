/*
 * tokenclient: a client of iSCSI targets that copies by token. Commands are
 * lines on stdin, answers are lines of JSON on stdout. A program drives it, or
 * a person:
 *
 *   open src iscsi://127.0.0.1:3260/iqn.2026-11.example.odx:disks/0
 *   open dst iscsi://127.0.0.1:3260/iqn.2026-11.example.odx:disks/1
 *   populate src list_id=1 ranges=0+2048
 *   rod-token src list_id=1
 *   write-token dst list_id=2 ranges=4096+2048 token=HEX
 *
 *   open NAME URL [initiator=IQN] [digest=1]
 *   close NAME
 *   scsi NAME cdb=HEX [in=BYTES | out=HEX]      any command
 *   populate NAME ranges=LBA+BLOCKS,... [list_id= timeout= type= immediate=]
 *   rod-token NAME [list_id= allocation=]
 *   write-token NAME ranges= token=HEX [list_id= offset= delete= immediate=]
 *   read NAME lba= blocks= [chunk= depth=]      data follow in chunks
 *   write NAME lba= blocks= [chunk= depth= fua=]  data follow on stdin
 *   copy FROM TO lba= to= blocks= [chunk= depth=]  by reading and writing
 *   wire NAME                                    bytes the connection carried
 *
 * Numbers are decimal or 0x. Every answer has "us", microseconds, "error" when
 * the client failed, else "status" of the target, with "sense" and "data" in
 * hex where there are any. The exit status is 0 when all commands were
 * understood, 1 when a connection failed, 2 for a line that makes no sense.
 */
#include "input.h"
#include "offload.h"
#include "session.h"
#include "transfer.h"

#include <inttypes.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define MAX_WORDS 16

static char *words[MAX_WORDS];
static int word_count;
static int exit_status;

/* ---- arguments ---- */

static const char *argument(const char *key)
{
	size_t n = strlen(key);
	for (int i = 1; i < word_count; i++)
		if (!strncmp(words[i], key, n) && words[i][n] == '=')
			return words[i] + n + 1;
	return NULL;
}

static uint64_t number(const char *key, uint64_t otherwise)
{
	const char *v = argument(key);
	return v ? strtoull(v, NULL, 0) : otherwise;
}

/* Decodes hex into a new buffer. */
static unsigned char *hex(const char *key, size_t *length)
{
	const char *v = argument(key);
	*length = 0;
	if (!v)
		return NULL;
	unsigned char *p = malloc(strlen(v) / 2 + 1);
	for (unsigned b; sscanf(v, "%2x", &b) == 1 && v[1]; v += 2)
		p[(*length)++] = (unsigned char)b;
	return p;
}

static int ranges(struct block_range *r)
{
	const char *v = argument("ranges");
	int n = 0;
	while (v && *v && n < MAX_RANGES) {
		char *end;
		r[n].lba = strtoull(v, &end, 0);
		r[n].blocks = *end == '+' ? (uint32_t)strtoull(end + 1, &end, 0) : 0;
		n++;
		v = *end == ',' ? end + 1 : NULL;
	}
	return n;
}

/* Finds a session by its name, also one that was lost. */
static struct session *named(int word)
{
	for (int i = 0; word < word_count && i < MAX_SESSIONS; i++)
		if (!strcmp(sessions[i].name, words[word]))
			return &sessions[i];
	return NULL;
}

static struct session *session(int word)
{
	struct session *s = named(word);
	return s && s->iscsi ? s : NULL;
}

/* ---- answers ---- */

static void print_string(const char *key, const char *s)
{
	printf("\"%s\":\"", key);
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			putchar('\\');
		putchar((unsigned char)*s < ' ' ? ' ' : *s);
	}
	putchar('"');
}

static void print_hex(const char *key, const unsigned char *p, size_t n)
{
	printf(",\"%s\":\"", key);
	for (size_t i = 0; i < n; i++)
		printf("%02x", p[i]);
	putchar('"');
}

static void answer_error(const char *what, int status)
{
	printf("{");
	print_string("error", what);
	printf("}\n");
	exit_status = status;
}

static void answer_lost(struct session *s)
{
	session_abandon(s);
	answer_error(s->lost, 1);
}

static void answer(struct session *s, int failed, struct outcome *o)
{
	if (failed) {
		answer_lost(s);
	} else {
		printf("{\"status\":%d,\"us\":%" PRId64, o->task->status, o->microseconds);
		if (o->sense_length)
			print_hex("sense", o->sense, o->sense_length);
		if (o->data_length)
			print_hex("data", o->data, o->data_length);
		if (o->task->residual_status != SCSI_RESIDUAL_NO_RESIDUAL)
			printf(",\"residual\":%zd", o->task->residual_status == SCSI_RESIDUAL_UNDERFLOW ?
			       (ssize_t)o->task->residual : -(ssize_t)o->task->residual);
		printf("}\n");
	}
	outcome_free(o);
}

/* ---- commands ---- */

static void do_open(void)
{
	struct session *s = named(1);
	for (int i = 0; !s && i < MAX_SESSIONS; i++)
		if (!sessions[i].iscsi)
			s = &sessions[i];
	if (!s || word_count < 3) {
		answer_error("open NAME URL", 2);
		return;
	}
	if (s->iscsi)
		session_close(s);
	const char *initiator = argument("initiator");
	snprintf(s->name, sizeof s->name, "%s", words[1]);
	int64_t start = now_microseconds();
	const char *failure = session_open(s, words[2], initiator ? initiator : "iqn.2026-11.example.odx:tokencopy",
					   (int)number("digest", 0));
	if (failure)
		answer_error(failure, 1);
	else
		printf("{\"status\":0,\"us\":%" PRId64 ",\"blocks\":%" PRIu64 ",\"block_length\":%u}\n",
		       now_microseconds() - start, s->blocks, s->block_length);
}

static void do_close(struct session *s)
{
	session_close(s);
	printf("{\"status\":0}\n");
}

static void do_scsi(struct session *s)
{
	unsigned char cdb[16] = { 0 };
	size_t cdb_length, out_length;
	unsigned char *given = hex("cdb", &cdb_length);
	unsigned char *out = hex("out", &out_length);
	struct outcome o;
	memcpy(cdb, given, cdb_length < 16 ? cdb_length : 16);
	int failed = session_command(s, cdb, out, out_length, number("in", 0), &o);
	answer(s, failed, &o);
	free(given);
	free(out);
}

static void do_populate(struct session *s)
{
	static struct block_range r[MAX_RANGES];
	struct populate p = {
		.list_id = (uint32_t)number("list_id", 1),
		.inactivity_timeout = (uint32_t)number("timeout", 0),
		.rod_type_valid = argument("type") != NULL,
		.rod_type = (uint32_t)number("type", 0),
		.immediate = (int)number("immediate", 0),
	};
	struct outcome o;
	int failed = populate_token(s, &p, r, ranges(r), &o);
	answer(s, failed, &o);
}

static void do_rod_token(struct session *s)
{
	struct outcome o;
	int failed = receive_rod_token_information(s, (uint32_t)number("list_id", 1), (uint32_t)number("allocation", 1024), &o);
	answer(s, failed, &o);
}

static void do_write_token(struct session *s)
{
	static struct block_range r[MAX_RANGES];
	struct write_using_token w = {
		.list_id = (uint32_t)number("list_id", 2),
		.offset = number("offset", 0),
		.delete_token = (int)number("delete", 0),
		.immediate = (int)number("immediate", 0),
	};
	size_t length;
	unsigned char *token = hex("token", &length);
	if (length != TOKEN_LENGTH) {
		answer_error("token= must be 512 bytes", 2);
	} else {
		struct outcome o;
		memcpy(w.token, token, TOKEN_LENGTH);
		int failed = write_using_token(s, &w, r, ranges(r), &o);
		answer(s, failed, &o);
	}
	free(token);
}

static void do_transfer(struct session *from, struct session *to)
{
	struct session *any = from ? from : to; /* its block length is that of both */
	struct transfer t = {
		.from = from,
		.to = to,
		.from_lba = number("lba", 0),
		.to_lba = number(from ? "to" : "lba", 0),
		.blocks = number("blocks", 0),
		.chunk = (uint32_t)number("chunk", (256 << 10) / any->block_length),
		.depth = (int)number("depth", 8),
		.fua = (int)number("fua", 0),
		.out = stdout,
	};
	if (transfer_run(&t)) {
		answer_lost(any);
		return;
	}
	printf("{\"status\":%d,\"us\":%" PRId64 ",\"blocks\":%" PRIu64, t.status, t.microseconds, t.done);
	if (t.sense_length)
		print_hex("sense", t.sense, t.sense_length);
	printf("}\n");
}

static void do_wire(struct session *s)
{
	struct tcp_info info;
	socklen_t length = sizeof info;
	memset(&info, 0, sizeof info);
	if (getsockopt(iscsi_get_fd(s->iscsi), IPPROTO_TCP, TCP_INFO, &info, &length))
		answer_error("TCP_INFO is not to be had", 1);
	else
		printf("{\"status\":0,\"sent\":%" PRIu64 ",\"received\":%" PRIu64 "}\n",
		       (uint64_t)(info.tcpi_bytes_sent - info.tcpi_bytes_retrans), (uint64_t)info.tcpi_bytes_received);
}

/* A command for a session that is not, or no longer, there. */
static void do_lost(struct session *s)
{
	static unsigned char dropped[4096];
	if (!strcmp(words[0], "write")) {
		/* What the data's length is only the session could say. */
		uint64_t left = s ? number("blocks", 0) * s->block_length : 0;
		while (left) {
			size_t n = left < sizeof dropped ? left : sizeof dropped;
			if (!input_data(dropped, n))
				exit(3);
			left -= n;
		}
	}
	if (s)
		answer_error(s->lost, 1);
	else
		answer_error("no such session", 2);
}

static void obey(void)
{
	const char *verb = words[0];
	if (!strcmp(verb, "open")) {
		do_open();
		return;
	}
	struct session *s = session(1);
	if (!s && !strcmp(verb, "close")) {
		printf("{\"status\":0}\n"); /* it was lost before */
	} else if (!s) {
		do_lost(named(1));
	} else if (!strcmp(verb, "close")) {
		do_close(s);
	} else if (!strcmp(verb, "scsi") && argument("cdb")) {
		do_scsi(s);
	} else if (!strcmp(verb, "populate")) {
		do_populate(s);
	} else if (!strcmp(verb, "rod-token")) {
		do_rod_token(s);
	} else if (!strcmp(verb, "write-token")) {
		do_write_token(s);
	} else if (!strcmp(verb, "read")) {
		do_transfer(s, NULL);
	} else if (!strcmp(verb, "write")) {
		do_transfer(NULL, s);
	} else if (!strcmp(verb, "copy") && session(2)) {
		do_transfer(s, session(2));
	} else if (!strcmp(verb, "wire")) {
		do_wire(s);
	} else {
		answer_error("no such command", 2);
	}
}

int main(void)
{
	static char line[1 << 17];
	signal(SIGPIPE, SIG_IGN);
	while (input_line(line, sizeof line)) {
		word_count = 0;
		for (char *w = strtok(line, " \t\r\n"); w && word_count < MAX_WORDS; w = strtok(NULL, " \t\r\n"))
			words[word_count++] = w;
		if (word_count) {
			obey();
			fflush(stdout);
		}
	}
	for (int i = 0; i < MAX_SESSIONS; i++)
		session_close(&sessions[i]);
	return exit_status;
}
