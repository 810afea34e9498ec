package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"filippo.io/age"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"odx/admin"
	"odx/api"
	"odx/backstore"
	"odx/conf"
	"odx/replica"
	"odx/stream"
)

// maxKeyFile bounds a file with recipients or identities, in bytes.
const maxKeyFile = 64 << 10

type sendOptions struct {
	adminOptions
	base, resume, out string
	compress          string
	recipients        []string
	recipientFiles    []string
	to                destination
}

// destination is another server that receives.
type destination struct {
	url, secret, name, snapshot string
	force                       bool
}

func newSend() *cobra.Command {
	o := sendOptions{adminOptions: adminOptions{looks: true}}
	cmd := &cobra.Command{
		Use:   "send SNAPSHOT",
		Short: "Send a snapshot, a volume or a file as a stream, or what differs from another snapshot",
		Long: "Send the content of a snapshot as a stream: to a file, to standard output, or to another server.\n" +
			"odx receive makes a volume of it. SNAPSHOT can also be another volume, or file:NAME; of those the\n" +
			"stream has one point in time, and no other stream can be based on it or continue it.\n\n" +
			"With -i, the stream has what differs from the snapshot BASE, which the receiver needs: it has to be\n" +
			"a snapshot that was sent before, or received.\n\n" +
			"A stream that ended too early is continued: odx receive --list prints a token, with which\n" +
			"odx send --resume begins where the receiver stopped. With --to that is done by itself.\n\n" +
			"The stream is compressed (--compress: " + strings.Join(stream.Levels(), ", ") + "), and encrypted to the recipients of\n" +
			"--encrypt-to and --recipients-file (age1…, see age-keygen). The result is printed to standard error\n" +
			"where standard output has the stream.",
		Args: func(cmd *cobra.Command, args []string) error {
			if o.resume != "" && len(args) == 0 {
				return nil
			}
			return cobra.ExactArgs(1)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			r, to, err := o.request(args)
			if err != nil {
				return err
			}
			return administer(cmd, &o.adminOptions, func(ctx context.Context, _ *conf.Config, a admin.Administrator) error {
				return runSend(ctx, cmd, &o, a, r, to)
			})
		},
	}
	addAdminFlags(cmd, &o.adminOptions)
	f := cmd.Flags()
	f.StringVarP(&o.base, "incremental", "i", "", "send what differs from the snapshot `BASE`")
	f.StringVarP(&o.out, "out", "o", "", "write the stream to `FILE`, which is not there yet")
	f.StringVar(&o.resume, "resume", "", "continue the stream that odx receive --list printed `TOKEN` for")
	f.StringVar(&o.compress, "compress", stream.Default.String(), "`LEVEL` of compression: "+strings.Join(stream.Levels(), ", "))
	f.StringArrayVar(&o.recipients, "encrypt-to", nil, "encrypt to the `RECIPIENT` of age (repeatable)")
	f.StringArrayVar(&o.recipientFiles, "recipients-file", nil, "encrypt to the recipients of age in `FILE` (repeatable)")
	f.StringVar(&o.to.url, "to", "", "have the server at `URL` (https://HOST:PORT) receive the stream")
	f.StringVar(&o.to.secret, "to-secret", "", "`FILE` with the secret of the server at --to")
	f.StringVar(&o.to.name, "as", "", "`NAME` of the volume there (default: that of the volume here)")
	f.StringVar(&o.to.snapshot, "as-snapshot", "", "`NAME` of the snapshot there (default: that of the snapshot here)")
	f.BoolVar(&o.to.force, "force", false, "discard there what was written to the volume since BASE, also if initiators are logged in to it")
	cmd.MarkFlagsRequiredTogether("to", "to-secret")
	for _, other := range []string{"out", "encrypt-to", "recipients-file", "resume"} {
		cmd.MarkFlagsMutuallyExclusive("to", other)
	}
	cmd.MarkFlagsMutuallyExclusive("resume", "incremental")
	return cmd
}

// request returns what flags and arguments ask for.
func (o *sendOptions) request(args []string) (r replica.SendRequest, to []age.Recipient, err error) {
	if r.Level, err = stream.ParseLevel(o.compress); err != nil {
		return r, nil, &usageError{err}
	}
	r.Base, r.Resume = o.base, o.resume
	if len(args) > 0 {
		r.Source = args[0]
	}
	if o.resume != "" && r.Source != "" {
		return r, nil, usagef("--resume says which snapshot is sent; give no other one")
	}
	if o.to.url == "" && (o.to.name != "" || o.to.snapshot != "" || o.to.force) {
		return r, nil, usagef("--as, --as-snapshot and --force are for --to")
	}
	to, err = recipientsOf(o.recipients, o.recipientFiles)
	return r, to, err
}

// recipientsOf returns the recipients of flags and files.
func recipientsOf(texts, files []string) (to []age.Recipient, err error) {
	for _, text := range texts {
		found, err := stream.Recipients([]byte(text))
		if err != nil {
			return nil, usagef("--encrypt-to %q: %w", text, err)
		}
		to = append(to, found...)
	}
	for _, name := range files {
		text, err := conf.ReadFile(name, maxKeyFile)
		if err != nil {
			return nil, err
		}
		found, err := stream.Recipients(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		to = append(to, found...)
	}
	return to, nil
}

// streamerOf returns what sends and receives for a command: the server, or the store itself.
func streamerOf(cmd *cobra.Command, a admin.Administrator) (replica.Streamer, error) {
	switch a := a.(type) {
	case *api.Client:
		return a, nil
	case *admin.Store:
		log, err := newLog(conf.Log{Level: "warn"}, cmd.ErrOrStderr())
		if err != nil {
			return nil, err
		}
		return replica.NewStreams(a, log), nil
	}
	return nil, fmt.Errorf("%T neither sends nor receives streams", a)
}

func runSend(ctx context.Context, cmd *cobra.Command, o *sendOptions, a admin.Administrator, r replica.SendRequest, to []age.Recipient) error {
	if o.to.url != "" {
		return sendToServer(ctx, cmd, o, a, r)
	}
	s, err := streamerOf(cmd, a)
	if err != nil {
		return err
	}
	out, result := cmd.OutOrStdout(), cmd.ErrOrStderr()
	if o.out != "" && o.out != stdio {
		f, err := newWholeFile(o.out)
		if err != nil {
			return err
		}
		defer f.drop()
		sent, err := sendSealed(ctx, cmd, s, r, to, f)
		if err == nil {
			err = f.finish()
		}
		if err != nil {
			return stopped(err)
		}
		return printSent(out, o.json, sent)
	}
	if _, ok := out.(*transcoder); ok {
		return usagef("--output without --out: standard output has the stream; use --json, whose result is on standard error")
	}
	if isTerminal(out) {
		return errors.New("standard output is a terminal; redirect it to a file or a program, or use --out")
	}
	sent, err := sendSealed(ctx, cmd, s, r, to, out)
	if err != nil {
		return stopped(err)
	}
	return printSent(result, o.json, sent)
}

// sendSealed sends to w, encrypted if there are recipients, and shows the progress.
func sendSealed(ctx context.Context, cmd *cobra.Command, s replica.Streamer, r replica.SendRequest, to []age.Recipient, w io.Writer) (sent replica.Sent, err error) {
	b := newStreamBar(cmd.ErrOrStderr(), "send")
	defer b.end()
	w = untilDone{ctx, w}
	if len(to) == 0 {
		return s.Send(ctx, r, w, b.show)
	}
	sealed, err := stream.Seal(w, to)
	if err != nil {
		return sent, err
	}
	if sent, err = s.Send(ctx, r, sealed, b.show); err != nil {
		return sent, err // without its end, it is recognized as incomplete
	}
	return sent, sealed.Close()
}

// untilDone is a writer that fails once a context has ended.
type untilDone struct {
	ctx context.Context
	w   io.Writer
}

func (u untilDone) Write(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.w.Write(p)
}

// sendToServer has another server receive the stream, and goes on with what that has.
func sendToServer(ctx context.Context, cmd *cobra.Command, o *sendOptions, a admin.Administrator, r replica.SendRequest) error {
	secret, warning, err := conf.ReadSecretFile(o.to.secret)
	if err != nil {
		return err
	}
	if warning != "" {
		fmt.Fprintln(cmd.ErrOrStderr(), "odx: "+warning)
	}
	other, err := api.NewRemoteClient(o.to.url, secret)
	if err != nil {
		return &usageError{err}
	}
	defer other.Close()
	target := replica.ReceiveRequest{Name: o.to.name, Snapshot: o.to.snapshot, Force: o.to.force}
	if target.Name == "" {
		if target.Name, err = nameOf(ctx, a, r.Source); err != nil {
			return err
		}
	}
	s, err := streamerOf(cmd, a)
	if err != nil {
		return err
	}
	b := newStreamBar(cmd.ErrOrStderr(), "send")
	defer b.end()
	received, err := pass(ctx, s, r, other, target, b.show)
	if err != nil {
		return stopped(err)
	}
	b.end()
	return printReceived(cmd.OutOrStdout(), o.json, received)
}

// nameOf returns the name of the volume that is sent, or that a snapshot is of.
func nameOf(ctx context.Context, a admin.Administrator, source string) (string, error) {
	if strings.HasPrefix(source, admin.FilePrefix) {
		return source, nil
	}
	volumes, err := a.Volumes(ctx)
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(volumes, func(v admin.Volume) bool { return v.Name == source })
	switch {
	case i < 0:
		return "", fmt.Errorf("volume %s: %w", source, backstore.ErrNotFound)
	case !volumes[i].ReadOnly:
		return source, nil
	case volumes[i].Origin == "":
		return "", usagef("the volume that %s is a snapshot of was deleted; say with --as what it is called there", source)
	}
	return volumes[i].Origin, nil
}

// pass sends from one store to another. What the other one has of the same stream is not
// sent again.
func pass(ctx context.Context, from replica.Streamer, r replica.SendRequest, to replica.Streamer, target replica.ReceiveRequest, progress func(replica.Progress)) (replica.Received, error) {
	partials, err := to.Partials(ctx)
	if err != nil {
		return replica.Received{}, err
	}
	for _, p := range partials {
		if p.Name == target.Name && p.Token != "" && !p.Receiving && p.Snapshot == r.Source && p.Base == r.Base {
			resumed := replica.SendRequest{Resume: p.Token, Level: r.Level}
			received, err := passOnce(ctx, from, resumed, to, target, progress)
			if !errors.Is(err, replica.ErrResume) {
				return received, err
			}
		}
	}
	return passOnce(ctx, from, r, to, target, progress)
}

func passOnce(ctx context.Context, from replica.Streamer, r replica.SendRequest, to replica.Streamer, target replica.ReceiveRequest, progress func(replica.Progress)) (received replica.Received, err error) {
	in, out := io.Pipe()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		_, err := from.Send(ctx, r, out, progress)
		out.CloseWithError(err) // nil is io.EOF
		if errors.Is(err, io.ErrClosedPipe) {
			return nil // the other side says why it reads no further
		}
		return err
	})
	g.Go(func() error {
		var err error
		received, err = to.Receive(ctx, target, in, nil)
		in.Close()
		return err
	})
	err = g.Wait()
	return received, err
}

// streamBar shows how far a stream is.
type streamBar struct {
	*bar
	w io.Writer
}

func newStreamBar(w io.Writer, what string) streamBar { return streamBar{newBar(w, what), w} }

func (b streamBar) show(p replica.Progress) {
	if p.SizeBytes > 0 {
		b.bar.show(p.OffsetBytes, p.SizeBytes)
		return
	}
	b.bar.count(p.DataBytes)
}

func printSent(w io.Writer, asJSON bool, s replica.Sent) error {
	if asJSON {
		return printJSON(w, api.SentV1(s))
	}
	_, err := fmt.Fprintf(w, "%s: sent, %s of data in %s\n", whatIs(&s.Header), bytesText(s.Totals.DataBytes), bytesText(s.Totals.StreamBytes))
	return err
}

// whatIs describes the content of a stream.
func whatIs(h *stream.Header) string {
	what := "volume " + h.VolumeName
	switch {
	case h.SnapshotName != "":
		what = "snapshot " + h.SnapshotName
	case h.File:
		what = "file " + h.VolumeName
	}
	if h.Incremental() {
		what += " since " + h.BaseName
	}
	return what
}

// wholeFile is a file that gets its name when it is complete. Only its owner can read it,
// since it has the content of disks.
type wholeFile struct {
	*os.File
	path string
}

func newWholeFile(path string) (*wholeFile, error) {
	if _, err := os.Lstat(path); err == nil {
		return nil, fmt.Errorf("%s: %w", path, fs.ErrExist)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".odx-*")
	if err != nil {
		return nil, err
	}
	return &wholeFile{f, path}, nil
}

// finish names the file, durably. It does not replace another one.
func (f *wholeFile) finish() error {
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), f.path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(f.path))
	if err != nil {
		return err
	}
	return errors.Join(os.Remove(f.Name()), dir.Sync(), dir.Close())
}

// drop removes an unfinished file. After finish it does nothing.
func (f *wholeFile) drop() {
	if f.Close() == nil {
		os.Remove(f.Name())
	}
}
