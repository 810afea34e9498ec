package main

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

	"golang.org/x/sys/unix"
)

// pipe makes a named pipe.
func pipe(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// openBothEnds opens a named pipe without waiting, and ends the waiting of others for
// either end.
func openBothEnds(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// TestOpenPipe: a signal, which cancels the context, ends the wait for the program at the
// other end.
func TestOpenPipe(t *testing.T) {
	for what, flag := range map[string]int{"to read": os.O_RDONLY, "to write": os.O_WRONLY} {
		t.Run(what, func(t *testing.T) {
			name := pipe(t)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			f, err := openPipe(ctx, name, flag)
			if f != nil || !strings.Contains(err.Error(), name+": no program has opened the other end of the pipe: stopped by a signal") {
				t.Errorf("%v, %v", f, err)
			}
			openBothEnds(t, name)
			f, err = openPipe(t.Context(), name, flag)
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
		})
	}
}

// TestPutToken: a token is written to whatever it can be written to; a signal ends the
// wait for a program that does not open the pipe or does not read from it.
func TestPutToken(t *testing.T) {
	token := bytes.Repeat([]byte("t"), 512)
	stopped, stop := context.WithCancel(t.Context())
	stop()
	t.Run("file", func(t *testing.T) {
		name := filepath.Join(t.TempDir(), "token")
		if err := putToken(t.Context(), nil, name, token); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, token) {
			t.Errorf("%q, %v", got, err)
		}
	})
	t.Run("standard output", func(t *testing.T) {
		var out bytes.Buffer
		if err := putToken(t.Context(), &out, stdio, token); err != nil || !bytes.Equal(out.Bytes(), token) {
			t.Errorf("%q, %v", out.Bytes(), err)
		}
	})
	t.Run("pipe", func(t *testing.T) {
		name := pipe(t)
		reader := openBothEnds(t, name)
		if err := putToken(t.Context(), nil, name, token); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(token))
		if _, err := io.ReadFull(reader, got); err != nil || !bytes.Equal(got, token) {
			t.Errorf("%q, %v", got, err)
		}
	})
	t.Run("pipe that nobody opens", func(t *testing.T) {
		name := pipe(t)
		if err := putToken(stopped, nil, name, token); err == nil || !strings.Contains(err.Error(), "no program has opened") {
			t.Error(err)
		}
		openBothEnds(t, name)
	})
	t.Run("pipe that nobody reads", func(t *testing.T) {
		name := pipe(t)
		full := openBothEnds(t, name)
		size, err := unix.FcntlInt(full.Fd(), unix.F_GETPIPE_SZ, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := full.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		f, err := openPipe(ctx, name, os.O_WRONLY)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cancel()
		if err := writePipe(ctx, f, token); !errors.Is(err, errStopped) {
			t.Error(err)
		}
	})
	t.Run("full device", func(t *testing.T) {
		if err := putToken(t.Context(), nil, "/dev/full", token); !errors.Is(err, syscall.ENOSPC) {
			t.Error(err)
		}
	})
}

// TestTokenCreate_CannotWrite: a token that nobody got does not stay.
func TestTokenCreate_CannotWrite(t *testing.T) {
	eachWay(t, fillSrc(16), func(t *testing.T, path string) {
		script(t, path, []command{
			{args: "token create src --out /dev/full --providers data,checksum", stderr: "odx: write /dev/full: no space left on device\n", status: 1},
			{args: "token create src --out /dev/full --providers checksum", stderr: "odx: write /dev/full: no space left on device\n", status: 1},
			{args: "token list --json", stdout: "[]\n"},
		})
	})
}

// TestIsDisk: a character device such as /dev/null is not a disk, which would take no
// file in another format.
func TestIsDisk(t *testing.T) {
	for name, want := range map[string]bool{
		"/dev/null": false, t.TempDir(): false, "./none": false, "file:a.raw": false, "volume": true, "iscsi://h/t/0": true,
	} {
		if got := isDisk(name); got != want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
