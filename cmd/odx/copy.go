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
	withoutTokens bool
	create        bool
	overwrite     bool
	force         bool
	raw           bool
}

// streams are where a command reads, prints, and complains.
type streams struct {
	in       io.Reader
	out, err io.Writer
	// began is when the person who waits for it began to.
	began time.Time
}

func streamsOf(cmd *cobra.Command) streams {
	return streams{cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr(), time.Now()}
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

// errStopped is what a signal ends a command with.
var errStopped = errors.New("stopped by a signal")

// stopped says of the end of a context what people know it as.
func stopped(err error) error {
	if errors.Is(err, context.Canceled) {
		return errStopped
	}
	return err
}

// hintOverwrite says what to do where a name is taken, a device in use, or a file not what
// it should be.
func hintOverwrite(err error) error {
	if errors.Is(err, transfer.ErrDeviceBusy) {
		return fmt.Errorf("%w; --force writes to it all the same", err)
	}
	if errors.Is(err, vhd.ErrForeign) {
		return fmt.Errorf("%w; --raw insists", err)
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
			"  ./FILE, /PATH/FILE            a file or block device of this machine, raw\n" +
			"  iscsi://[USER%PASSWORD@]HOST[:PORT]/TARGET/LUN\n" +
			"                                a LUN of this or any other server\n" +
			"  -                             standard input or output\n\n" +
			"Where both ends belong to one server that copies by token, no bytes move. Where they do not,\n" +
			"or the server gives up on the way, the rest is read and written. Either way, what happened is\n" +
			"said in the end.\n\n" +
			"A volume, a LUN or a block device has to be as large as SRC; what it has beyond stays as it is,\n" +
			"and Ctrl-C leaves it with a part of the copy. One that initiators of the server are logged in\n" +
			"to, or that is mounted here, is refused unless --force is given. A file, and a volume that\n" +
			"--create makes, gets its name when it is whole: before that, whatever happens, one that is\n" +
			"there stays what it is. A file is replaced only with --overwrite.",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] == args[1] && args[0] != stdio {
				return fmt.Errorf("%s is both source and destination", args[0])
			}
			std := streamsOf(cmd)
			do := func(ctx context.Context, _ *conf.Config, a admin.Administrator) error {
				return copyDisk(ctx, a, &o, args[0], args[1], std)
			}
			if inStore(args[0]) || inStore(args[1]) {
				return administer(cmd, &o.adminOptions, do)
			}
			return withServer(cmd, &o.adminOptions, do)
		},
	}
	addAdminFlags(cmd, &o.adminOptions)
	cmd.Flags().BoolVar(&o.withoutTokens, "no-token", false, "read and write in any case")
	o.addOverwriteFlag(cmd)
	cmd.Flags().BoolVar(&o.raw, "raw", false, "copy the bytes of a file although they look like another format than a raw disk")
	cmd.Flags().BoolVar(&o.create, "create", false, "make the volume DST, as large as SRC, if there is none")
	cmd.Flags().BoolVar(&o.force, "force", false, "write to DST although initiators have it open, or this machine uses it")
	return cmd
}

// inStore distinguishes a volume or a file of the store from a path, a URL and "-".
func inStore(name string) bool {
	return name != stdio && (strings.HasPrefix(name, admin.FilePrefix) || !strings.Contains(name, "/"))
}

// copyDisk copies a disk. a may be nil where no end is in the store.
func copyDisk(ctx context.Context, a admin.Administrator, o *copyOptions, from, to string, std streams) (err error) {
	if isStream(from) || isStream(to) {
		return copyStream(ctx, a, o, from, to, std)
	}
	if !o.force {
		// Before the source is opened: that can be a session, too.
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
	return strings.HasPrefix(name, admin.FilePrefix) || !inStore(name) && !strings.HasPrefix(name, "iscsi://")
}

// isDisk reports whether a name is that of a volume, a LUN or a device, which takes the
// bytes that its users see.
func isDisk(name string) bool {
	if !isFile(name) {
		return true
	}
	info, err := os.Stat(name)
	return err == nil && info.Mode()&os.ModeDevice != 0
}

// copyFrom copies a source, which is called from, to the disk to.
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
		WithoutTokens: o.withoutTokens,
		Progress:      func(p transfer.Progress) { bar.show(p.DoneBytes, p.TotalBytes) },
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

// shown is what may be printed of a name: a URL without its secrets.
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
	case inStore(name):
		d, err := transfer.OpenVolume(ctx, a, name)
		if errors.Is(err, transfer.ErrNoVolume) {
			return nil, fmt.Errorf("%w; %s", err, otherNames(name))
		}
		return d, err
	}
	return transfer.OpenFile(name)
}

// otherNames says what a name may mean that is no volume.
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
		return nil, fmt.Errorf("%w; --create makes it, %s", err, otherNames(name))
	}
	return transfer.CreateVolume(ctx, a, name, wholeBlocks(size))
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

// printCopy says what a copy did. A rate is that of bytes that moved: mapping any
// number of them takes the same time.
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

// durationText rounds a time to what a person wants to know.
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

// bar is a progress bar on a terminal, and nothing elsewhere.
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
