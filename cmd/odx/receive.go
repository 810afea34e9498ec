package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"odx/admin"
	"odx/api"
	"odx/conf"
	"odx/replica"
	"odx/stream"
)

type receiveOptions struct {
	adminOptions
	request    replica.ReceiveRequest
	file       string
	identities []string
	list, drop bool
}

func newReceive() *cobra.Command {
	var o receiveOptions
	cmd := &cobra.Command{
		Use:   "receive NAME",
		Short: "Make a volume or a file of a stream, or bring a volume up to date",
		Long: "Make the volume NAME, or file:NAME, of a stream of odx send, which is read from standard input or a\n" +
			"file. The sender's snapshot is made, too, so that later streams can be based on it.\n\n" +
			"With an incremental stream, NAME can be a volume with the content of the base, which gets the new\n" +
			"content in one step. If it was written to since, the command fails, unless --force discards that.\n\n" +
			"Nothing is visible before all of the stream was received and verified. What a stream of a snapshot\n" +
			"has brought before it ended too early is kept: --list prints it, with a token for odx send --resume;\n" +
			"--resume goes on with it, reading the same stream again; --drop gives it up.",
		Args: func(cmd *cobra.Command, args []string) error {
			if o.list {
				return cobra.NoArgs(cmd, args)
			}
			return cobra.ExactArgs(1)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.list {
				return listPartials(cmd, &o)
			}
			o.request.Name = args[0]
			if o.drop {
				return dropPartial(cmd, &o)
			}
			return runReceive(cmd, &o)
		},
	}
	addAdminFlags(cmd, &o.adminOptions)
	f := cmd.Flags()
	f.StringVarP(&o.file, "file", "f", stdio, "read the stream from `FILE`; - is standard input")
	f.StringArrayVar(&o.identities, "identity", nil, "decrypt it with an identity of age in `FILE` (repeatable)")
	f.StringVar(&o.request.Snapshot, "snapshot", "", "`NAME` of the snapshot (default: that of the sender's)")
	f.BoolVar(&o.request.Resume, "resume", false, "go on with what is there of the same stream")
	f.BoolVar(&o.request.Force, "force", false, "discard what was written to the volume since the base, also if initiators are logged in to it")
	f.BoolVar(&o.list, "list", false, "list streams that ended too early")
	f.BoolVar(&o.drop, "drop", false, "give up what was received of a stream as NAME")
	cmd.MarkFlagsMutuallyExclusive("list", "drop", "resume")
	return cmd
}

func runReceive(cmd *cobra.Command, o *receiveOptions) error {
	ids, err := identitiesOf(cmd, o.identities)
	if err != nil {
		return err
	}
	in := cmd.InOrStdin()
	if o.file != stdio {
		f, err := os.Open(o.file)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	} else if f, ok := in.(*os.File); ok && isTerminal(f) {
		return usagef("standard input is a terminal; give the stream with --file, or pipe it into the command")
	}
	// Before a store is opened: what is no stream changes nothing.
	plain, err := stream.Open(in, ids)
	if err != nil {
		if errors.Is(err, stream.ErrSealed) && len(ids) == 0 {
			return fmt.Errorf("%w; give --identity", err)
		}
		return err
	}
	return administer(cmd, &o.adminOptions, func(ctx context.Context, _ *conf.Config, a admin.Administrator) error {
		s, err := streamerOf(cmd, a)
		if err != nil {
			return err
		}
		b := newStreamBar(cmd.ErrOrStderr(), "receive")
		defer b.end()
		received, err := s.Receive(ctx, o.request, untilDoneReader{ctx, plain}, b.show)
		if err != nil {
			return hintReceive(stopped(err))
		}
		b.end()
		return printReceived(cmd.OutOrStdout(), o.json, received)
	})
}

// untilDoneReader is a reader that fails once a context has ended. A read of a pipe that
// does not end is left to itself, as the process ends.
type untilDoneReader struct {
	ctx context.Context
	r   io.Reader
}

func (u untilDoneReader) Read(p []byte) (int, error) {
	type result struct {
		b   []byte
		err error
	}
	done := make(chan result, 1)
	go func() {
		b := make([]byte, len(p)) // a read that is left must not write to p
		n, err := u.r.Read(b)
		done <- result{b[:n], err}
	}()
	select {
	case r := <-done:
		return copy(p, r.b), r.err
	case <-u.ctx.Done():
		return 0, u.ctx.Err()
	}
}

// hintReceive adds to an error what to do.
func hintReceive(err error) error {
	switch {
	case errors.Is(err, replica.ErrDiverged):
		return fmt.Errorf("%w; --force discards that", err)
	case errors.Is(err, stream.ErrTruncated), errors.Is(err, errStopped):
		return fmt.Errorf("%w; what is there of a snapshot is kept: see odx receive --list", err)
	case errors.Is(err, admin.ErrLoggedIn):
		return fmt.Errorf("%w (--force)", err)
	}
	return err
}

// identitiesOf reads files with identities, which only their owner may read.
func identitiesOf(cmd *cobra.Command, files []string) (ids []age.Identity, err error) {
	for _, name := range files {
		text, warning, err := conf.ReadPrivateFile(name, maxKeyFile)
		if err != nil {
			return nil, err
		}
		if warning != "" {
			fmt.Fprintln(cmd.ErrOrStderr(), "odx: "+warning)
		}
		found, err := stream.Identities(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		ids = append(ids, found...)
	}
	return ids, nil
}

func printReceived(w io.Writer, asJSON bool, r replica.Received) error {
	if asJSON {
		return printJSON(w, api.ReceivedV1(r))
	}
	text := fmt.Sprintf("%s: received as %s", whatIs(&r.Header), r.Name)
	if r.Snapshot != "" {
		text += ", with snapshot " + r.Snapshot
	}
	_, err := fmt.Fprintf(w, "%s, %s of data in %s\n", text, bytesText(r.Totals.DataBytes), bytesText(r.Totals.StreamBytes))
	return err
}

func listPartials(cmd *cobra.Command, o *receiveOptions) error {
	o.looks = true
	return administer(cmd, &o.adminOptions, func(ctx context.Context, _ *conf.Config, a admin.Administrator) error {
		s, err := streamerOf(cmd, a)
		if err != nil {
			return err
		}
		list, err := s.Partials(ctx)
		if err != nil {
			return err
		}
		if o.json {
			return printJSON(cmd.OutOrStdout(), api.PartialsV1(list))
		}
		table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "NAME\tSNAPSHOT\tSINCE\tRECEIVED\tBEGAN\tTOKEN")
		for _, p := range list {
			token := p.Token
			if p.Receiving {
				token = "(being received)"
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", p.Name, dashed(p.Snapshot), dashed(p.Base), percent(p.OffsetBytes, p.SizeBytes), p.Began.Local().Format(time.DateTime), dashed(token))
		}
		return table.Flush()
	})
}

// dashed returns a text, - for none.
func dashed(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

func dropPartial(cmd *cobra.Command, o *receiveOptions) error {
	return administer(cmd, &o.adminOptions, func(ctx context.Context, _ *conf.Config, a admin.Administrator) error {
		s, err := streamerOf(cmd, a)
		if err != nil {
			return err
		}
		if err := s.DropPartial(ctx, o.request.Name); err != nil {
			return err
		}
		if o.json {
			return printJSON(cmd.OutOrStdout(), map[string]string{"dropped": o.request.Name})
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: dropped\n", o.request.Name)
		return err
	})
}
