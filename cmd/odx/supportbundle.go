package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// aboutBundle is what a bundle says of itself.
const aboutBundle = `This describes an odx server and its store. It is text; read it before you send it.

It has no data of volumes and no secrets. It has names of initiators, targets, volumes and
users, addresses, and paths.

MISSING.txt names what could not be had.
`

// bundle is an archive in memory: its parts are bounded.
type bundle struct {
	secrets [][]byte
	made    time.Time
	names   []string
	parts   map[string][]byte
	without strings.Builder
}

func newBundle(secrets [][]byte) *bundle {
	b := &bundle{secrets: secrets, made: time.Now(), parts: map[string][]byte{}}
	b.add("README.txt", []byte(aboutBundle))
	return b
}

// add adds a part, without the secrets that are in it, if any are.
func (b *bundle) add(name string, text []byte) {
	for _, secret := range b.secrets {
		text = bytes.ReplaceAll(text, secret, []byte("(masked)"))
	}
	b.names = append(b.names, name)
	b.parts[name] = text
}

// missing notes that a part could not be had.
func (b *bundle) missing(name string, err error) {
	fmt.Fprintf(&b.without, "%s: %v\n", name, err)
}

// write writes the archive.
func (b *bundle) write(w io.Writer) error {
	if b.without.Len() > 0 {
		b.add("MISSING.txt", []byte(b.without.String()))
	}
	slices.Sort(b.names)
	compressed := gzip.NewWriter(w)
	archive := tar.NewWriter(compressed)
	directory := "odx-support-" + b.made.UTC().Format("20060102-150405") + "/"
	for _, name := range b.names {
		header := &tar.Header{Name: directory + name, Mode: 0o600, Size: int64(len(b.parts[name])), ModTime: b.made, Format: tar.FormatPAX}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		if _, err := archive.Write(b.parts[name]); err != nil {
			return err
		}
	}
	return errors.Join(archive.Close(), compressed.Close())
}

// save writes the archive to a new file, or to standard output for -.
func (b *bundle) save(cmd *cobra.Command, name string) error {
	if name == "-" {
		return b.write(cmd.OutOrStdout())
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(b.write(f), f.Close()); err != nil {
		return errors.Join(err, os.Remove(name))
	}
	w := cmd.OutOrStdout()
	fmt.Fprintf(w, "%s has\n", name)
	for _, part := range b.names {
		fmt.Fprintf(w, "  %-16s %d bytes\n", part, len(b.parts[part]))
	}
	if b.without.Len() > 0 {
		fmt.Fprintf(w, "and could not have\n%s", indent(b.without.String()))
	}
	_, err = fmt.Fprintln(w, "There are no secrets in it; names and addresses are. Read it before you send it: tar -xzf "+name)
	return err
}

// indent indents each line by two blanks.
func indent(text string) string {
	return "  " + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n  ") + "\n"
}
