package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"

	"odx/admin"
	"odx/api/transfer"
)

// stdio is the name of standard input as a source, and of standard output as a
// destination.
const stdio = "-"

// isStream reports whether a name is that of a stream: standard input or output, or a
// named pipe.
func isStream(name string) bool {
	if name == stdio {
		return true
	}
	if inStore(name) {
		return false
	}
	info, err := os.Stat(name)
	return err == nil && info.Mode()&os.ModeNamedPipe != 0
}

// copyStream is copyDisk from or to a stream.
func copyStream(ctx context.Context, a admin.Administrator, o *copyOptions, from, to string, std streams) error {
	if isStream(to) {
		return copyToStream(ctx, a, o, from, to, std)
	}
	return copyFromStream(ctx, a, o, from, to, std)
}

// copyToStream writes all bytes of a source.
func copyToStream(ctx context.Context, a admin.Administrator, o *copyOptions, from, to string, std streams) (err error) {
	src, err := openSource(ctx, a, from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	return sendTo(ctx, o, src, from, to, std)
}

// sendTo writes all bytes of src, whose name is from, to a stream. It prints the result
// to standard error, because standard output has the bytes.
func sendTo(ctx context.Context, o *copyOptions, src transfer.Disk, from, to string, std streams) (err error) {
	w := std.out
	if to != stdio {
		f, err := transfer.OpenPipe(ctx, to, os.O_WRONLY)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		w = f
	}
	if isTerminal(w) {
		return errors.New("standard output is a terminal; redirect it to a file or a program")
	}
	r, err := transfer.Send(ctx, w, src)
	if err != nil {
		return fmt.Errorf("%s, after %s of %s: %w", shown(from), bytesText(r.Bytes), bytesText(src.Size()), stopped(err))
	}
	if o.json {
		return printJSON(std.err, r)
	}
	r.Duration = time.Since(std.began)
	return printCopy(std.err, r)
}

// copyFromStream copies a stream to a destination.
func copyFromStream(ctx context.Context, a admin.Administrator, o *copyOptions, from, to string, std streams) (err error) {
	r := std.in
	if from != stdio {
		f, err := transfer.OpenPipe(ctx, from, os.O_RDONLY)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		r = f
	}
	if !o.force {
		if err := checkNotOpen(ctx, a, to); err != nil {
			return err
		}
	}
	dst, err := openDestination(ctx, a, o, to, 0)
	if err != nil {
		return hintOverwrite(err)
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	result, err := transfer.Receive(ctx, dst, r)
	if err != nil {
		return fmt.Errorf("%s, after %s: %w", shown(to), bytesText(result.Bytes), hintOverwrite(stopped(err)))
	}
	if o.json {
		return printJSON(std.out, result)
	}
	result.Duration = time.Since(std.began)
	return printCopy(std.out, result)
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
