package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"odx/admin"
	"odx/backstore"
	"odx/internal/kit/logs"
	"odx/internal/kit/must"
	"odx/quota"
	"odx/replica"
	"odx/stream"
)

// aStream returns a small stream of a snapshot that no store has.
func aStream() []byte {
	var b bytes.Buffer
	h := stream.Header{Store: stream.ID{1}, Volume: stream.ID{2}, VolumeName: "elsewhere", Snapshot: stream.ID{3}, SnapshotName: "monday", Size: 1 << 20, Created: time.Unix(1_700_000_000, 0).UTC()}
	w, err := stream.NewWriter(&b, h, stream.None)
	if err == nil {
		err = w.Data(8192, bytes.Repeat([]byte("data"), 1024))
	}
	if err == nil {
		_, err = w.Close()
	}
	if err != nil {
		panic(err)
	}
	return b.Bytes()
}

// receiveHalf has a store receive the beginning of a stream.
func receiveHalf(t *testing.T, s *admin.Store, name string) {
	t.Helper()
	b := aStream()
	_, err := replica.NewStreams(s, logs.Discard()).Receive(t.Context(), replica.ReceiveRequest{Name: name}, bytes.NewReader(b[:len(b)-10]), nil)
	if !errors.Is(err, stream.ErrTruncated) {
		t.Fatal(err)
	}
}

// TestStreams sends and receives through servers: it is what the store itself does, and
// errors keep their kinds.
func TestStreams(t *testing.T) {
	dirA, dirB := t.TempDir(), t.TempDir()
	a, b := open(t, dirA), openWith(t, dirB, "[{lun: 0, volume: served, size: 1MiB}]")
	fill(t, a, 3<<20)
	_, ca := serve(t, dirA, a)
	_, cb := serve(t, dirB, b)
	second := func(_ any, err error) error { return err }
	must.Succeed(t, second(ca.SnapshotVolume(t.Context(), "src", "monday")))

	var buffer bytes.Buffer
	reported := 0
	sent, err := ca.Send(t.Context(), replica.SendRequest{Source: "monday", Level: stream.Fastest}, &buffer, func(replica.Progress) { reported++ })
	must.Succeed(t, err)
	if sent.Totals.StreamBytes != int64(buffer.Len()) || sent.Header.SnapshotName != "monday" || sent.Header.Size != 64<<20 || reported == 0 {
		t.Errorf("sent %+v of %d bytes, %d reports", sent, buffer.Len(), reported)
	}
	whole := bytes.Clone(buffer.Bytes())
	half := whole[:len(whole)/2]
	if _, err := cb.Receive(t.Context(), replica.ReceiveRequest{Name: "copy"}, bytes.NewReader(half), nil); !errors.Is(err, stream.ErrTruncated) {
		t.Fatalf("half of a stream: %v", err)
	}
	partials, err := cb.Partials(t.Context())
	must.Succeed(t, err)
	if len(partials) != 1 || partials[0].Name != "copy" || partials[0].Token == "" {
		t.Fatalf("partials %+v", partials)
	}
	buffer.Reset()
	must.Succeed(t, second(ca.Send(t.Context(), replica.SendRequest{Resume: partials[0].Token}, &buffer, nil)))
	received, err := cb.Receive(t.Context(), replica.ReceiveRequest{Name: "copy"}, &buffer, nil)
	must.Succeed(t, err)
	if received.Name != "copy" || received.Snapshot != "monday" || received.Header.Snapshot != sent.Header.Snapshot {
		t.Errorf("received %+v", received)
	}
	for off := int64(0); off < 64<<20; off += 4 << 20 {
		p, q := make([]byte, 4<<20), make([]byte, 4<<20)
		must.Succeed(t, ca.ReadVolume(t.Context(), "monday", p, off), cb.ReadVolume(t.Context(), "copy", q, off))
		if !bytes.Equal(p, q) {
			t.Fatalf("the content differs at %d", off)
		}
	}

	for name, tt := range map[string]struct {
		err  func() error
		want error
	}{
		"no source": {func() error {
			return second(ca.Send(t.Context(), replica.SendRequest{Source: "none"}, io.Discard, nil))
		}, backstore.ErrNotFound},
		"received already": {func() error {
			return second(cb.Receive(t.Context(), replica.ReceiveRequest{Name: "copy"}, bytes.NewReader(whole), nil))
		}, nil},
		"damaged": {func() error {
			bad := bytes.Clone(whole)
			bad[len(bad)/2] ^= 1
			return second(cb.Receive(t.Context(), replica.ReceiveRequest{Name: "other"}, bytes.NewReader(bad), nil))
		}, stream.ErrDamaged},
		"no stream": {func() error {
			return second(cb.Receive(t.Context(), replica.ReceiveRequest{Name: "other"}, strings.NewReader("something"), nil))
		}, stream.ErrFormat},
		"the source breaks": {func() error {
			return second(cb.Receive(t.Context(), replica.ReceiveRequest{Name: "another"}, io.MultiReader(bytes.NewReader(half), broken{}), nil))
		}, errBroken},
	} {
		if err := tt.err(); err == nil || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
}

var errBroken = errors.New("the pipe broke")

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errBroken }

// A stream whose source is damaged on the way ends with the reason, not as if it were whole.
func TestStreams_FailsLate(t *testing.T) {
	failing := failingStreams{after: 100 << 10}
	dir := t.TempDir()
	s := serving(t, nothing{})
	s.Streams = failing
	c := serveSocket(t, dir, NewServer(s))
	var b bytes.Buffer
	if _, err := c.Send(t.Context(), replica.SendRequest{Source: "x"}, &b, nil); !errors.Is(err, stream.ErrDamaged) || b.Len() != failing.after {
		t.Errorf("%v, after %d bytes", err, b.Len())
	}
}

// failingStreams sends some bytes, and fails.
type failingStreams struct {
	replica.Streamer
	after int
}

func (f failingStreams) Send(_ context.Context, _ replica.SendRequest, w io.Writer, _ func(replica.Progress)) (replica.Sent, error) {
	if _, err := w.Write(make([]byte, f.after)); err != nil {
		return replica.Sent{}, err
	}
	return replica.Sent{}, fmt.Errorf("extent 7: %w", stream.ErrDamaged)
}

// Streams take a bounded number of places and of memory, and give both back.
func TestStreams_Bound(t *testing.T) {
	blocked := blockedStreams{entered: make(chan struct{}), leave: make(chan struct{})}
	dir := t.TempDir()
	s := serving(t, nothing{})
	s.Streams = blocked
	server := NewServer(s)
	server.ShareMemory(quota.New(4 * streamMemory))
	c := serveSocket(t, dir, server)
	done := make(chan error)
	for range 2 {
		go func() {
			_, err := c.Send(t.Context(), replica.SendRequest{Source: "x"}, io.Discard, nil)
			done <- err
		}()
		<-blocked.entered
	}
	if _, err := c.Send(t.Context(), replica.SendRequest{Source: "x"}, io.Discard, nil); !errors.Is(err, errStreams) {
		t.Errorf("a third stream: %v", err)
	}
	if _, err := c.Volumes(t.Context()); err != nil {
		t.Errorf("another request at the same time: %v", err)
	}
	close(blocked.leave)
	for range 2 {
		if err := <-done; err == nil {
			t.Error("an empty stream was taken for a whole one")
		}
	}
	go func() { <-blocked.entered }()
	if _, err := c.Send(t.Context(), replica.SendRequest{Source: "x"}, io.Discard, nil); errors.Is(err, errStreams) {
		t.Errorf("afterwards: %v", err)
	}
}

type blockedStreams struct {
	replica.Streamer
	entered, leave chan struct{}
}

func (b blockedStreams) Send(context.Context, replica.SendRequest, io.Writer, func(replica.Progress)) (replica.Sent, error) {
	b.entered <- struct{}{}
	<-b.leave
	return replica.Sent{}, nil
}

// A stream that is being received ends with the server, and what has come is kept.
func TestStreams_Shutdown(t *testing.T) {
	dir := t.TempDir()
	a := openWith(t, dir, "[{lun: 0, volume: served, size: 1MiB}]")
	server := NewServer(serving(t, a.Admin()))
	c := serveSocket(t, dir, server)
	b := aStream()
	in, out := io.Pipe()
	done := make(chan error, 1)
	go func() {
		_, err := c.Receive(t.Context(), replica.ReceiveRequest{Name: "copy"}, in, nil)
		done <- err
	}()
	_, err := out.Write(b[:len(b)-10])
	must.Succeed(t, err)
	for { // until the record is there
		if list, err := c.Partials(t.Context()); err != nil {
			t.Fatal(err)
		} else if len(list) > 0 {
			break
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		t.Errorf("shutdown: %v", err)
	}
	out.CloseWithError(os.ErrClosed)
	if err := <-done; err == nil {
		t.Error("a stream without its end was received")
	}
	list, err := replica.NewStreams(a.Admin(), logs.Discard()).Partials(t.Context())
	if err != nil || len(list) != 1 {
		t.Errorf("%+v, %v", list, err)
	}
}

// Who may operate may receive, but not discard what others wrote.
func TestReceive_Force(t *testing.T) {
	s := newServer(serving(t, nothing{}), anyone{operates})
	l := serveSocket(t, t.TempDir(), s)
	if _, err := l.Receive(t.Context(), replica.ReceiveRequest{Name: "x", Force: true}, bytes.NewReader(aStream()), nil); !errors.Is(err, errForbidden) {
		t.Errorf("%v", err)
	}
}

// A real stream sent by a real client over HTTP, byte by byte: whatever is changed, nothing
// becomes visible.
func TestReceive_Damage(t *testing.T) {
	dir := t.TempDir()
	a := openWith(t, dir, "[{lun: 0, volume: served, size: 1MiB}]")
	_, c := serve(t, dir, a)
	b := aStream()
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 60 {
		bad := bytes.Clone(b)
		bad[rnd.IntN(len(bad))] ^= byte(1 + rnd.IntN(255))
		if rnd.IntN(4) == 0 {
			bad = bad[:rnd.IntN(len(bad))]
		}
		if _, err := c.Receive(t.Context(), replica.ReceiveRequest{Name: "copy"}, bytes.NewReader(bad), nil); err == nil {
			t.Fatal("received")
		}
		volumes, err := c.Volumes(t.Context())
		must.Succeed(t, err)
		if len(volumes) != 1 {
			t.Fatalf("%+v", volumes)
		}
	}
}
