package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"odx/api"
	"odx/api/transfer"
	"odx/backstore"
	"odx/conf"
	"odx/target/iscsi/initiator"
)

type copyOptions struct {
	adminOptions
	withoutTokens bool
	create        bool
	overwrite     bool
}

// existing is what becomes of a file that has the destination's name.
func (o *copyOptions) existing() transfer.Existing {
	if o.overwrite {
		return transfer.Overwrite
	}
	return transfer.Refuse
}

func (o *copyOptions) addOverwriteFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&o.overwrite, "overwrite", false, "replace a file that has the name already, once the new one is whole")
}

// hintOverwrite says what to do where a name is taken.
func hintOverwrite(err error) error {
	if errors.Is(err, transfer.ErrExists) || errors.Is(err, backstore.ErrExists) {
		return fmt.Errorf("%w; --overwrite replaces it", err)
	}
	return err
}

func newCopy() *cobra.Command {
	var o copyOptions
	cmd := &cobra.Command{
		Use:   "copy SRC DST",
		Short: "Copy a disk: a volume, a LUN anywhere, or a file",
		Long: "Copy a disk to another one, from its beginning to its end. SRC and DST are each one of\n\n" +
			"  NAME                          a volume of the store\n" +
			"  file:PATH                     a file of the store\n" +
			"  ./FILE, /PATH/FILE            a file or block device of this machine, raw\n" +
			"  iscsi://[USER%PASSWORD@]HOST[:PORT]/TARGET/LUN\n" +
			"                                a LUN of this or any other server\n\n" +
			"Where both ends belong to one server that copies by token, no bytes move. Where they do not,\n" +
			"or the server gives up on the way, the rest is read and written. Either way, what happened is\n" +
			"said in the end. DST has to be as large as SRC; what it has beyond stays as it is. Ctrl-C leaves\n" +
			"DST with a part of the copy. A file gets its name when it is whole: before that, whatever happens,\n" +
			"one that is there stays what it is, and it is replaced only with --overwrite.",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] == args[1] {
				return fmt.Errorf("%s is both source and destination", args[0])
			}
			do := func(ctx context.Context, _ *conf.Config, a api.Administrator) error {
				return copyDisk(ctx, a, &o, args[0], args[1], cmd.OutOrStdout(), cmd.ErrOrStderr())
			}
			if inStore(args[0]) || inStore(args[1]) {
				return administer(cmd, &o.adminOptions, do)
			}
			ctx, release := untilSignal(cmd.Context())
			defer release()
			return do(ctx, nil, nil)
		},
	}
	addAdminFlags(cmd, &o.adminOptions)
	cmd.Flags().BoolVar(&o.withoutTokens, "no-token", false, "read and write in any case")
	o.addOverwriteFlag(cmd)
	cmd.Flags().BoolVar(&o.create, "create", false, "make the volume DST, as large as SRC, if there is none")
	return cmd
}

// inStore tells a volume or a file of the store from a path and a URL.
func inStore(name string) bool {
	return strings.HasPrefix(name, api.FilePrefix) || !strings.Contains(name, "/")
}

func copyDisk(ctx context.Context, a api.Administrator, o *copyOptions, from, to string, stdout, stderr io.Writer) (err error) {
	src, err := openSource(ctx, a, from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	return copyFrom(ctx, a, o, src, from, to, stdout, stderr)
}

// copyFrom copies a source, which is called from, to the disk to.
func copyFrom(ctx context.Context, a api.Administrator, o *copyOptions, src transfer.Disk, from, to string, stdout, stderr io.Writer) (err error) {
	dst, err := openDestination(ctx, a, o, to, src.Size())
	if err != nil {
		return hintOverwrite(err)
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	bar := newBar(stderr, "copy")
	r, err := transfer.Copy(ctx, dst, src, transfer.Options{
		WithoutTokens: o.withoutTokens,
		Progress:      func(p transfer.Progress) { bar.show(p.DoneBytes, p.TotalBytes) },
	})
	bar.end()
	if err != nil {
		return fmt.Errorf("%s to %s, after %s of %s: %w", shown(from), shown(to), bytesText(r.Bytes), bytesText(src.Size()), hintOverwrite(err))
	}
	if o.json {
		return printJSON(stdout, r)
	}
	return printCopy(stdout, r)
}

// shown is what may be printed of a name: a URL without its secrets.
func shown(name string) string {
	if u, err := initiator.ParseURL(name); err == nil {
		return u.String()
	}
	return name
}

func openSource(ctx context.Context, a api.Administrator, name string) (transfer.Disk, error) {
	switch {
	case strings.HasPrefix(name, "iscsi://"):
		return openLUN(ctx, name)
	case inStore(name):
		return transfer.OpenVolume(ctx, a, name)
	}
	return transfer.OpenFile(name)
}

func openDestination(ctx context.Context, a api.Administrator, o *copyOptions, name string, size int64) (transfer.Disk, error) {
	switch {
	case strings.HasPrefix(name, "iscsi://"):
		return openLUN(ctx, name)
	case !inStore(name):
		return transfer.CreateFile(name, size, o.existing())
	case strings.HasPrefix(name, api.FilePrefix):
		return transfer.CreateStoreFile(ctx, a, name, size, o.existing())
	}
	d, err := transfer.OpenVolume(ctx, a, name)
	if !errors.Is(err, transfer.ErrNoVolume) {
		return d, err
	}
	if !o.create {
		return nil, fmt.Errorf("%w; --create makes it", err)
	}
	if _, err := a.CreateVolume(ctx, name, wholeBlocks(size)); err != nil {
		return nil, err
	}
	return transfer.OpenVolume(ctx, a, name)
}

// wholeBlocks rounds a size up to what every LUN can have.
func wholeBlocks(size int64) int64 {
	const block = 4096
	return (size + block - 1) / block * block
}

func openLUN(ctx context.Context, name string) (transfer.Disk, error) {
	u, err := initiator.ParseURL(name)
	if err != nil {
		return nil, err
	}
	return transfer.OpenLUN(ctx, u)
}

func printCopy(w io.Writer, r transfer.Result) error {
	seconds := max(r.Duration.Seconds(), 1e-6)
	how := "by token: no bytes moved"
	if r.TokenBytes < r.Bytes {
		how = fmt.Sprintf("%s by token, %s read and written, the rest zeros (%s)", bytesText(r.TokenBytes), bytesText(r.MovedBytes), r.Reason)
	}
	_, err := fmt.Fprintf(w, "%s in %v, %s/s, %s\n", bytesText(r.Bytes), r.Duration.Round(100*time.Microsecond), bytesText(int64(float64(r.Bytes)/seconds)), how)
	return err
}

// bar is a progress bar on a terminal, and nothing elsewhere.
type bar struct {
	w    io.Writer
	what string
	bar  *progressbar.ProgressBar
}

func newBar(w io.Writer, what string) *bar {
	if f, ok := w.(*os.File); !ok || !term.IsTerminal(int(f.Fd())) {
		w = nil
	}
	return &bar{w: w, what: what}
}

// show says that done of total bytes are. The bar is no reason to stop,
// whatever becomes of the terminal.
func (b *bar) show(done, total int64) {
	if b.w == nil {
		return
	}
	if b.bar == nil {
		b.bar = progressbar.NewOptions64(max(total, 1), progressbar.OptionSetWriter(b.w), progressbar.OptionShowBytes(true),
			progressbar.OptionUseIECUnits(true), progressbar.OptionFullWidth(), progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionClearOnFinish(), progressbar.OptionSetDescription(b.what))
	}
	_ = b.bar.Set64(min(done, total))
}

// describe says what is being done.
func (b *bar) describe(what string) {
	b.what = what
	if b.bar != nil {
		b.bar.Describe(what)
	}
}

func (b *bar) end() {
	if b.bar != nil {
		_ = b.bar.Clear()
	}
}
