package transfer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestSendReceive(t *testing.T) {
	want := newMemory(5<<20+777, 1).fill().data
	path := filepath.Join(t.TempDir(), "disk")
	out, err := CreateFile(path, 0, Refuse)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Receive(t.Context(), out, bytes.NewReader(want))
	if err := errors.Join(err, out.Close()); err != nil || r.Bytes != int64(len(want)) {
		t.Fatalf("%+v, %v", r, err)
	}
	src, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	var got bytes.Buffer
	if r, err := Send(t.Context(), &got, src); err != nil || r.Bytes != int64(len(want)) || !bytes.Equal(got.Bytes(), want) {
		t.Errorf("%+v, %v, %d bytes", r, err, got.Len())
	}
	// To blocks: the last one is padded with zeros.
	blocks := newMemory(6<<20, 4096)
	for i := range blocks.data {
		blocks.data[i] = 0xee
	}
	if _, err := Receive(t.Context(), blocks, bytes.NewReader(want)); err != nil || !blocks.flushed {
		t.Errorf("%v, flushed %v", err, blocks.flushed)
	}
	end := (len(want) + 4095) / 4096 * 4096
	if !bytes.Equal(blocks.data[:end], append(bytes.Clone(want), make([]byte, end-len(want))...)) || blocks.data[end] != 0xee {
		t.Error("the blocks differ from the stream")
	}
	if _, err := Receive(t.Context(), newMemory(4<<20, 512), bytes.NewReader(want)); !errors.Is(err, ErrTooSmall) {
		t.Errorf("a disk that is too small: %v", err)
	}
}

// TestSendReceive_Stall: a copy of a stalled stream can be canceled.
func TestSendReceive_Stall(t *testing.T) {
	r, w := io.Pipe()
	t.Cleanup(func() { r.Close() })
	ctx, cancel := context.WithCancel(t.Context())
	go cancel()
	if _, err := Receive(ctx, newMemory(1<<20, 512), r); !errors.Is(err, context.Canceled) {
		t.Errorf("receive: %v", err)
	}
	w.Close()
	r, w = io.Pipe()
	t.Cleanup(func() { r.Close() })
	ctx, cancel = context.WithCancel(t.Context())
	go cancel()
	if _, err := Send(ctx, w, newMemory(1<<20, 512)); !errors.Is(err, context.Canceled) {
		t.Errorf("send: %v", err)
	}
}

// TestOpenPipe: the end of the context ends the wait for the program at the other end.
func TestOpenPipe(t *testing.T) {
	for what, flag := range map[string]int{"to read": os.O_RDONLY, "to write": os.O_WRONLY} {
		t.Run(what, func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "pipe")
			if err := syscall.Mkfifo(name, 0o600); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			f, err := OpenPipe(ctx, name, flag)
			if f != nil || !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), name+": no program has opened the other end of the pipe") {
				t.Errorf("%v, %v", f, err)
			}
			both, err := os.OpenFile(name, os.O_RDWR, 0) // which ends the wait of the call before, too
			if err != nil {
				t.Fatal(err)
			}
			defer both.Close()
			if f, err = OpenPipe(t.Context(), name, flag); err != nil {
				t.Fatal(err)
			}
			f.Close()
			if f, err := OpenPipe(t.Context(), name+"none", flag); f != nil || !errors.Is(err, os.ErrNotExist) {
				t.Errorf("no pipe: %v, %v", f, err)
			}
		})
	}
}
