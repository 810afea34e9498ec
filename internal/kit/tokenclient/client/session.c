#include "session.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

struct session sessions[MAX_SESSIONS];

int64_t now_microseconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

void session_abandon(struct session *s)
{
	if (!s->iscsi)
		return;
	const char *why = iscsi_get_error(s->iscsi);
	snprintf(s->lost, sizeof s->lost, "%s", why && *why ? why : "the connection was lost");
	iscsi_destroy_context(s->iscsi);
	s->iscsi = NULL;
}

static const char *failure(struct session *s)
{
	session_abandon(s);
	return s->lost;
}

/*
 * libiscsi's own synchronous calls leave their state on the stack when a
 * connection fails, and write to it later. So commands are sent by the
 * asynchronous ones, and waited for here.
 */
struct wait {
	int finished, status;
	struct scsi_task *task;
};

static void finished(struct iscsi_context *iscsi, int status, void *data, void *private)
{
	(void)iscsi;
	struct wait *w = private;
	w->finished = 1;
	w->status = status;
	w->task = data;
}

/* Returns -1 when the connection failed. The session is then abandoned. */
static int wait_for(struct session *s, struct wait *w)
{
	while (!w->finished && s->iscsi)
		sessions_serve(-1);
	if (!s->iscsi)
		return -1;
	if (w->status & 0x0f000000) { /* libiscsi's own, not the target's */
		session_abandon(s);
		return -1;
	}
	return 0;
}

static int read_capacity(struct session *s)
{
	/* A new session may have to hear of unit attentions first. */
	for (int attempt = 0; attempt < 5; attempt++) {
		unsigned char cdb[16] = { 0x9e, 0x10, [13] = 32 };
		struct outcome o;
		if (session_command(s, cdb, NULL, 0, 32, &o))
			return -1;
		int known = o.data_length >= 12;
		if (known) {
			s->blocks = get64(o.data) + 1;
			s->block_length = get32(o.data + 8);
		}
		outcome_free(&o);
		if (known)
			return 0;
	}
	return -1;
}

static int login(struct session *s, const struct iscsi_url *u)
{
	struct wait w = { 0 };
	if (iscsi_full_connect_async(s->iscsi, u->portal, u->lun, finished, &w))
		return -1;
	if (wait_for(s, &w))
		return -1;
	s->logged_in = 1;
	return w.status;
}

const char *session_open(struct session *s, const char *url, const char *initiator, int header_digest)
{
	s->lost[0] = 0;
	s->logged_in = 0;
	s->iscsi = iscsi_create_context(initiator);
	if (!s->iscsi)
		return "no memory";
	struct iscsi_url *u = iscsi_parse_full_url(s->iscsi, url);
	if (!u)
		return failure(s);
	iscsi_set_session_type(s->iscsi, ISCSI_SESSION_NORMAL);
	iscsi_set_header_digest(s->iscsi, header_digest ? ISCSI_HEADER_DIGEST_CRC32C : ISCSI_HEADER_DIGEST_NONE);
	iscsi_set_targetname(s->iscsi, u->target);
	iscsi_set_timeout(s->iscsi, 60);
	s->lun = u->lun;
	/* A target that drops the connection must be seen to. */
	iscsi_set_noautoreconnect(s->iscsi, 1);
	int failed = login(s, u);
	iscsi_destroy_url(u);
	if (failed || read_capacity(s))
		return failure(s);
	return NULL;
}

void session_close(struct session *s)
{
	struct wait w = { 0 };
	if (s->iscsi && s->logged_in && iscsi_logout_async(s->iscsi, finished, &w) == 0) {
		s->logged_in = 0; /* the target will close the connection */
		while (s->iscsi && !w.finished)
			sessions_serve(-1);
	}
	session_abandon(s);
}

int session_command(struct session *s, unsigned char cdb[16], const unsigned char *out, size_t out_length,
		    size_t in_length, struct outcome *o)
{
	memset(o, 0, sizeof *o);
	int direction = out_length ? SCSI_XFER_WRITE : in_length ? SCSI_XFER_READ : SCSI_XFER_NONE;
	struct scsi_task *task = scsi_create_task(16, cdb, direction, (int)(out_length ? out_length : in_length));
	struct iscsi_data d = { out_length, (unsigned char *)out };
	struct wait w = { 0 };
	int64_t start = now_microseconds();
	if (!task || iscsi_scsi_command_async(s->iscsi, s->lun, task, finished, out_length ? &d : NULL, &w)) {
		session_abandon(s);
		return -1;
	}
	if (wait_for(s, &w))
		return -1;
	o->microseconds = now_microseconds() - start;
	o->task = task;
	if (w.status == SCSI_STATUS_CHECK_CONDITION) {
		/* RFC 7143 11.4.7.2: the sense data follow their length. */
		if (task->datain.size > 2) {
			o->sense = task->datain.data + 2;
			o->sense_length = (size_t)task->datain.size - 2;
		}
	} else if (task->datain.size > 0) {
		o->data = task->datain.data;
		o->data_length = (size_t)task->datain.size;
	}
	return 0;
}

void outcome_free(struct outcome *o)
{
	if (o->task)
		scsi_free_scsi_task(o->task);
	memset(o, 0, sizeof *o);
}

int sessions_serve(int fd)
{
	struct pollfd p[MAX_SESSIONS + 1];
	struct session *whose[MAX_SESSIONS + 1];
	nfds_t count = 0;
	for (int i = 0; i < MAX_SESSIONS; i++) {
		struct session *s = &sessions[i];
		if (!s->iscsi)
			continue;
		/* After a logout that the target has asked for, libiscsi would connect again. */
		if (s->logged_in && iscsi_get_fd(s->iscsi) < 0) {
			session_abandon(s);
			continue;
		}
		whose[count] = s;
		p[count++] = (struct pollfd){ iscsi_get_fd(s->iscsi), (short)iscsi_which_events(s->iscsi), 0 };
	}
	p[count] = (struct pollfd){ fd, POLLIN, 0 };
	if (poll(p, count + 1, 1000) < 0)
		return 0;
	/* Also without an event: libiscsi looks for timeouts then. */
	for (nfds_t i = 0; i < count; i++)
		if (iscsi_service(whose[i]->iscsi, p[i].revents) < 0 ||
		    (whose[i]->logged_in && !iscsi_is_logged_in(whose[i]->iscsi)))
			session_abandon(whose[i]);
	return p[count].revents != 0;
}
