package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"odx/api/transfer"
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
	t.Run("pipe that no program opens", func(t *testing.T) {
		name := pipe(t)
		if err := putToken(stopped, nil, name, token); err == nil || !strings.Contains(err.Error(), "no program has opened") {
			t.Error(err)
		}
		openBothEnds(t, name)
	})
	t.Run("pipe that no program reads", func(t *testing.T) {
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
		f, err := transfer.OpenPipe(ctx, name, os.O_WRONLY)
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

// TestTokenCreate_Undelivered: tokens that could not be written in full do not stay,
// wherever they go.
func TestTokenCreate_Undelivered(t *testing.T) {
	eachWay(t, fillSrc(16), func(t *testing.T, path string) {
		file := filepath.Join(t.TempDir(), "token")
		reader, broken, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer broken.Close()
		reader.Close()
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer full.Close()
		for _, args := range []string{
			"", "--json", "--out -", "--providers data,hash,checksum", "--providers checksum", "--providers data,hash --json",
			"--out " + file + " --json", "--out " + file + " --providers data,hash",
		} {
			for why, stdout := range map[string]*os.File{"no space left on device": full, "broken pipe": broken} {
				cmd := odx(append([]string{"token", "create", "src", "--config", path}, strings.Fields(args)...)...)
				var stderr bytes.Buffer
				cmd.Stdout, cmd.Stderr = stdout, &stderr
				err := cmd.Run()
				if want := regexp.MustCompile(`^odx: write \S+: ` + why + `\n$`); cmd.ProcessState.ExitCode() != 1 || !want.MatchString(stderr.String()) {
					t.Errorf("token create %s to %s: %v, %s", args, stdout.Name(), err, &stderr)
				}
			}
		}
		script(t, path, []command{
			{args: "token create src --out /dev/full --providers data,checksum", stderr: "odx: write /dev/full: no space left on device\n", status: 1},
			{args: "token list --json", stdout: "[]\n"},
		})
	})
}
