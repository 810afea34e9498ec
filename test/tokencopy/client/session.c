#include "session.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

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

static int read_capacity(struct session *s)
{
	/* A new session may have to hear of unit attentions first. */
	for (int attempt = 0; attempt < 5; attempt++) {
		struct scsi_task *task = iscsi_readcapacity16_sync(s->iscsi, s->lun);
		if (task && task->status == SCSI_STATUS_GOOD && task->datain.size >= 12) {
			s->blocks = get64(task->datain.data) + 1;
			s->block_length = get32(task->datain.data + 8);
			scsi_free_scsi_task(task);
			return 0;
		}
		if (task)
			scsi_free_scsi_task(task);
	}
	return -1;
}

const char *session_open(struct session *s, const char *url, const char *initiator, int header_digest)
{
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
	int failed = iscsi_full_connect_sync(s->iscsi, u->portal, u->lun);
	iscsi_destroy_url(u);
	if (failed)
		return failure(s);
	if (read_capacity(s))
		return failure(s);
	return NULL;
}

void session_close(struct session *s)
{
	if (!s->iscsi)
		return;
	if (iscsi_is_logged_in(s->iscsi))
		iscsi_logout_sync(s->iscsi);
	iscsi_destroy_context(s->iscsi);
	s->iscsi = NULL;
}

int session_command(struct session *s, unsigned char cdb[16], const unsigned char *out, size_t out_length,
		    size_t in_length, struct outcome *o)
{
	memset(o, 0, sizeof *o);
	int direction = out_length ? SCSI_XFER_WRITE : in_length ? SCSI_XFER_READ : SCSI_XFER_NONE;
	struct scsi_task *task = scsi_create_task(16, cdb, direction, (int)(out_length ? out_length : in_length));
	if (!task)
		return -1;
	struct iscsi_data d = { out_length, (unsigned char *)out };
	int64_t start = now_microseconds();
	struct scsi_task *done = iscsi_scsi_command_sync(s->iscsi, s->lun, task, out_length ? &d : NULL);
	o->microseconds = now_microseconds() - start;
	if (!done) {
		scsi_free_scsi_task(task);
		return -1;
	}
	o->task = done;
	if (done->status & 0x0f000000) /* libiscsi's own, not the target's */
		return -1;
	if (done->status == SCSI_STATUS_CHECK_CONDITION) {
		/* RFC 7143 11.4.7.2: the sense data follow their length. */
		if (done->datain.size > 2) {
			o->sense = done->datain.data + 2;
			o->sense_length = done->datain.size - 2;
		}
	} else if (done->datain.size > 0) {
		o->data = done->datain.data;
		o->data_length = done->datain.size;
	}
	return 0;
}

void outcome_free(struct outcome *o)
{
	if (o->task)
		scsi_free_scsi_task(o->task);
	memset(o, 0, sizeof *o);
}

int sessions_serve(struct session **sessions, int count)
{
	struct pollfd p[2];
	for (int i = 0; i < count; i++) {
		p[i].fd = iscsi_get_fd(sessions[i]->iscsi);
		p[i].events = (short)iscsi_which_events(sessions[i]->iscsi);
		p[i].revents = 0;
	}
	if (poll(p, (nfds_t)count, 60000) <= 0)
		return errno == EINTR ? 0 : -1;
	for (int i = 0; i < count; i++)
		if (p[i].revents && iscsi_service(sessions[i]->iscsi, p[i].revents) < 0)
			return -1;
	return 0;
}
