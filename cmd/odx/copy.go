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

	"odx/admin"
	"odx/api/transfer"
	v1 "odx/api/v1"
	"odx/backstore"
	"odx/conf"
	"odx/initiator"
	"odx/vhd"
)

type copyOptions struct {
	adminOptions
	withoutTokens  bool
	requireOffload bool
	create         bool
	overwrite      bool
	force          bool
	raw            bool
}

// streams are standard input, output and error of a command.
type streams struct {
	in       io.Reader
	out, err io.Writer
	// began is when the command started.
	began time.Time
}

func streamsOf(cmd *cobra.Command) streams {
	return streams{cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr(), time.Now()}
}

// existing says what happens to an existing file of the destination's name.
func (o *copyOptions) existing() transfer.Existing {
	if o.overwrite {
		return transfer.Overwrite
	}
	return transfer.Refuse
}

func (o *copyOptions) addOverwriteFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&o.overwrite, "overwrite", false, "replace an existing file of the name, once the new one is complete")
}

// errStopped is the error of a command that a signal ended.
var errStopped = errors.New("stopped by a signal")

// stopped replaces the error of a cancelled context by errStopped.
func stopped(err error) error {
	if errors.Is(err, context.Canceled) {
		return errStopped
	}
	return err
}

// hintOverwrite adds to an error which flag allows the copy nevertheless.
func hintOverwrite(err error) error {
	if errors.Is(err, transfer.ErrDeviceBusy) {
		return fmt.Errorf("%w; --force writes to it anyway", err)
	}
	if errors.Is(err, vhd.ErrForeign) {
		return fmt.Errorf("%w; use --raw for raw bytes", err)
	}
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
			"  peer:NAME:VOLUME, peer:NAME:file:PATH\n" +
			"                                SRC alone: a volume or file of the peer NAME of the server\n" +
			"  ./FILE, /PATH/FILE            a file or block device of this machine, raw\n" +
			"  iscsi://[USER%PASSWORD@]HOST[:PORT]/TARGET/LUN\n" +
			"                                a LUN of this or any other server\n" +
			"  -                             standard input or output\n\n" +
			"If both ends are on one server that copies by token, no bytes move. Otherwise, and for what the\n" +
			"server does not copy by token, odx reads and writes. At the end it prints what it did and why.\n\n" +
			"A volume, a LUN or a block device has to be as large as SRC; bytes beyond that do not change, and\n" +
			"Ctrl-C leaves a part of the copy. If initiators of the server are logged in to it, or it is\n" +
			"mounted here, the command needs --force. A file, and a volume created by --create, gets its\n" +
			"name when it is complete; until then an existing one does not change, even after a crash. An\n" +
			"existing file is replaced only with --overwrite.",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkCopy(&o, args[0], args[1]); err != nil {
				return err
			}
			std := streamsOf(cmd)
			do := func(ctx context.Context, _ *conf.Config, a admin.Administrator) error {
				return copyDisk(ctx, a, &o, args[0], args[1], std)
			}
			if inStore(args[0]) || inStore(args[1]) || isPeer(args[0]) {
				return administer(cmd, &o.adminOptions, do)
			}
			return withServer(cmd, &o.adminOptions, do)
		},
	}
	addAdminFlags(cmd, &o.adminOptions)
	cmd.Flags().BoolVar(&o.withoutTokens, "no-token", false, "read and write, without tokens")
	cmd.Flags().BoolVar(&o.requireOffload, "require-offload", false, "fail where bytes would have to be read and written here, with exit status 4")
	cmd.MarkFlagsMutuallyExclusive("no-token", "require-offload")
	o.addOverwriteFlag(cmd)
	cmd.Flags().BoolVar(&o.raw, "raw", false, "copy the bytes of a file even if they look like a format other than a raw disk")
	cmd.Flags().BoolVar(&o.create, "create", false, "create the volume DST, as large as SRC, if it does not exist")
	cmd.Flags().BoolVar(&o.force, "force", false, "write to DST even if initiators have it open, or this machine uses it")
	return cmd
}

// checkCopy returns a usageError for names and flags that contradict each other, before
// a store or a server is asked.
func checkCopy(o *copyOptions, from, to string) error {
	for _, name := range []string{from, to} {
		if !strings.HasPrefix(name, "iscsi://") {
			continue
		}
		if _, err := parseURL(name); err != nil {
			return err
		}
	}
	switch {
	case isPeer(to):
		return usagef("%s is a destination on another server; run the command there, or use odx send", to)
	case isStream(from) && isStream(to):
		return usagef("%s and %s are both streams; one end has to be a disk or a file", from, to)
	case from == to:
		return usagef("%s is both source and destination", shown(from))
	case (isStream(from) || isStream(to)) && o.requireOffload:
		return usagef("--require-offload with a stream, which takes no tokens")
	case isStream(from) && o.create:
		return usagef("--create with a stream, whose length is not known in advance; create the volume first, with odx volume create")
	}
	return nil
}

// inStore distinguishes a volume or a file of the store from a path, a URL and "-".
func inStore(name string) bool {
	return name != stdio && !isPeer(name) && (strings.HasPrefix(name, admin.FilePrefix) || !strings.Contains(name, "/"))
}

// peerPrefix begins the names of volumes and files of peers: peer:NAME:VOLUME.
const peerPrefix = "peer:"

func isPeer(name string) bool { return strings.HasPrefix(name, peerPrefix) }

// cutPeer returns the peer and the volume, or file:NAME, of the name of a volume of a peer.
func cutPeer(name string) (peer, volume string, err error) {
	peer, volume, _ = strings.Cut(strings.TrimPrefix(name, peerPrefix), ":")
	if peer == "" || volume == "" || volume == admin.FilePrefix {
		return "", "", usagef("%q names no volume of a peer; write peer:NAME:VOLUME or peer:NAME:file:PATH", name)
	}
	return peer, volume, nil
}

// copyDisk copies a disk. a may be nil if neither end is in the store.
func copyDisk(ctx context.Context, a admin.Administrator, o *copyOptions, from, to string, std streams) (err error) {
	if isStream(from) || isStream(to) {
		return copyStream(ctx, a, o, from, to, std)
	}
	if !o.force {
		// Before the source is opened, which can be a session, too.
		if err := checkNotOpen(ctx, a, to); err != nil {
			return err
		}
	}
	src, err := openSource(ctx, a, from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	if !o.raw && isFile(from) && isDisk(to) {
		if err := vhd.CheckRaw(ctx, from, src); err != nil {
			return hintOverwrite(err)
		}
	}
	return copyFrom(ctx, a, o, src, from, to, std)
}

// isFile reports whether a name is that of a file, which can have any format.
func isFile(name string) bool {
	if isPeer(name) {
		_, volume, _ := cutPeer(name)
		name = volume
	}
	return strings.HasPrefix(name, admin.FilePrefix) || !inStore(name) && !strings.HasPrefix(name, "iscsi://")
}

// isDisk reports whether a name is that of a volume, a LUN or a device, whose bytes are
// those of a disk in no other format.
func isDisk(name string) bool {
	if !isFile(name) {
		return true
	}
	info, err := os.Stat(name)
	return err == nil && info.Mode()&(os.ModeDevice|os.ModeCharDevice) == os.ModeDevice
}

// copyFrom copies src, whose name is from, to the disk to.
func copyFrom(ctx context.Context, a admin.Administrator, o *copyOptions, src transfer.Disk, from, to string, std streams) (err error) {
	if isStream(to) {
		return sendTo(ctx, o, src, from, to, std)
	}
	dst, err := openDestination(ctx, a, o, to, src.Size())
	if err != nil {
		return hintOverwrite(err)
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	bar := newBar(std.err, "copy")
	r, err := transfer.Copy(ctx, dst, src, transfer.Options{
		WithoutTokens: o.withoutTokens, TokensOnly: o.requireOffload,
		Progress: func(p transfer.Progress) { bar.show(p.DoneBytes, p.TotalBytes) },
	})
	bar.end()
	if err != nil {
		return fmt.Errorf("%s to %s, after %s of %s: %w", shown(from), shown(to), bytesText(r.Bytes), bytesText(src.Size()), hintOverwrite(stopped(err)))
	}
	if o.json {
		return printJSON(std.out, v1.CopyResult(r))
	}
	r.Duration = time.Since(std.began)
	return printCopy(std.out, r)
}

// shown returns a name for printing: a URL without its secrets.
func shown(name string) string {
	if u, err := initiator.ParseURL(name); err == nil {
		return u.String()
	}
	return name
}

func openSource(ctx context.Context, a admin.Administrator, name string) (transfer.Disk, error) {
	switch {
	case strings.HasPrefix(name, "iscsi://"):
		return openLUN(ctx, name)
	case isPeer(name):
		peer, volume, err := cutPeer(name)
		if err != nil {
			return nil, err
		}
		return transfer.OpenPeer(ctx, a, peer, volume)
	case inStore(name):
		d, err := transfer.OpenVolume(ctx, a, name)
		if errors.Is(err, transfer.ErrNoVolume) {
			return nil, fmt.Errorf("%w; %s", err, otherNames(name))
		}
		return d, err
	}
	return transfer.OpenFile(name)
}

// otherNames explains how to write the name of a file.
func otherNames(name string) string {
	return fmt.Sprintf("./%s is a file of this machine, file:%[1]s one of the store", name)
}

func openDestination(ctx context.Context, a admin.Administrator, o *copyOptions, name string, size int64) (transfer.Disk, error) {
	switch {
	case strings.HasPrefix(name, "iscsi://"):
		return openLUN(ctx, name)
	case !inStore(name):
		d, err := transfer.CreateFile(name, size, o.existing())
		if o.force && errors.Is(err, transfer.ErrDeviceBusy) {
			return transfer.OpenUsedDevice(name)
		}
		return d, err
	case strings.HasPrefix(name, admin.FilePrefix):
		return transfer.CreateStoreFile(ctx, a, name, size, o.existing())
	}
	d, err := transfer.OpenVolume(ctx, a, name)
	if !errors.Is(err, transfer.ErrNoVolume) {
		return d, err
	}
	if !o.create {
		return nil, fmt.Errorf("%w; --create creates it, %s", err, otherNames(name))
	}
	return transfer.CreateVolume(ctx, a, name, wholeBlocks(size))
}

// wholeBlocks rounds a size up to a multiple of the longest logical block.
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

// printCopy prints the result of a copy. It prints a rate only if bytes moved: how
// long mapping takes depends on the extents.
func printCopy(w io.Writer, r transfer.Result) error {
	line := fmt.Sprintf("%s in %s", bytesText(r.Bytes), durationText(r.Duration))
	if r.MovedBytes > 0 {
		line += ", " + rateText(r.Bytes, r.Duration)
	}
	switch {
	case r.TokenBytes == r.Bytes && r.Bytes > 0 && r.Mapped:
		line += ", by token: no bytes moved"
	case r.TokenBytes == r.Bytes && r.Bytes > 0:
		line += ", by token: the server moved the bytes"
	default:
		line += fmt.Sprintf(", %s by token, %s read and written", bytesText(r.TokenBytes), bytesText(r.MovedBytes))
		if r.TokenBytes+r.MovedBytes < r.Bytes {
			line += ", the rest zeros"
		}
		line += " (" + r.Reason + ")"
	}
	_, err := fmt.Fprintln(w, line)
	return err
}

// durationText returns a duration for people, rounded.
func durationText(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(100 * time.Microsecond).String()
}

func rateText(bytes int64, d time.Duration) string {
	return bytesText(int64(float64(bytes)/max(d.Seconds(), 1e-6))) + "/s"
}

// bar is a progress bar on a terminal, and prints nothing elsewhere.
type bar struct {
	w    io.Writer
	what string
	bar  *progressbar.ProgressBar
}

func newBar(w io.Writer, what string) *bar {
	if !isTerminal(w) {
		w = nil
	}
	return &bar{w: w, what: what}
}

// show shows that done of total bytes are done. It ignores errors of the terminal.
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

// count shows how many bytes are done, where it is not known of how many.
func (b *bar) count(done int64) {
	if b.w == nil {
		return
	}
	if b.bar == nil {
		b.bar = progressbar.NewOptions64(-1, progressbar.OptionSetWriter(b.w), progressbar.OptionShowBytes(true),
			progressbar.OptionUseIECUnits(true), progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionClearOnFinish(), progressbar.OptionSetDescription(b.what))
	}
	_ = b.bar.Set64(done)
}

// describe sets the text of the bar.
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
