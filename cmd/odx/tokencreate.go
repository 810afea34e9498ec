package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"odx/admin"
	"odx/api"
	"odx/api/transfer"
	"odx/conf"
	"odx/tokens"
)

// tokenTypes are the ROD types by the names that --type takes.
var tokenTypes = map[string]tokens.RODType{
	"default":           tokens.RODTypePointInTimeDefault,
	"persistent":        tokens.RODTypePointInTimePersistent,
	"change-vulnerable": tokens.RODTypePointInTimeChangeVulnerable,
	"on-reference":      tokens.RODTypeAccessUponReference,
}

// tokenOptions are the flags of token create.
type tokenOptions struct {
	adminOptions
	request  admin.TokenRequest
	lifetime time.Duration
	kind     string
	// out is the file for the token, stdio for standard output, "" for its text there.
	out string
}

func newTokenCreate() *cobra.Command {
	var o tokenOptions
	cmd := &cobra.Command{
		Use:   "create VOLUME[:OFFSET[+LENGTH]]",
		Short: "Create a token that represents a range of a volume as it is now",
		Long: "Create a token that represents a range of a volume as it is now, and print it. If it cannot be\n" +
			"printed or written to the file of --out, it is revoked. VOLUME can be file:PATH; peer:NAME:VOLUME and\n" +
			"peer:NAME:file:PATH are those of the peer NAME of the server, which makes the token.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.read(args[0]); err != nil {
				return err
			}
			return o.create(cmd)
		},
	}
	o.addFlags(cmd)
	return cmd
}

// create makes the token and delivers it.
func (o *tokenOptions) create(cmd *cobra.Command) error {
	std := streamsOf(cmd)
	// A write to a pipe that no program reads returns an error.
	signal.Ignore(syscall.SIGPIPE)
	return administer(cmd, &o.adminOptions, func(ctx context.Context, _ *conf.Config, a admin.Administrator) error {
		t, err := a.CreateToken(ctx, o.request)
		if err != nil {
			return err
		}
		if err := o.deliver(ctx, std, t); err != nil {
			return errors.Join(err, revoke(ctx, a, t))
		}
		return nil
	})
}

func (o *tokenOptions) addFlags(cmd *cobra.Command) {
	addAdminFlags(cmd, &o.adminOptions)
	cmd.Flags().DurationVar(&o.lifetime, "timeout", 0, "inactivity timeout of the token, for example 5m (default: the store's)")
	cmd.Flags().IntVar(&o.request.Priority, "priority", 0, "tokens of lower priority are cancelled first")
	cmd.Flags().StringVar(&o.kind, "type", "default", "default, persistent, change-vulnerable or on-reference")
	cmd.Flags().StringVar((*string)(&o.request.Access), "access", "", "who may use it: anyone, initiator or group:NAME (default: as configured)")
	cmd.Flags().StringSliceVar(&o.request.Providers, "providers", nil, "create a token of each: data, hash, checksum; printed one per line (default: data)")
	cmd.Flags().IntVar(&o.request.Skip, "skip", 0, "create the tokens of all providers but the first `N`")
	cmd.Flags().StringVar(&o.out, "out", "", "write the 512 bytes to `FILE`, or - for standard output, instead of printing them in base64")
}

// read completes the request with the argument and the flags.
func (o *tokenOptions) read(where string) error {
	p, err := parsePlace(where)
	if err != nil {
		return err
	}
	r := &o.request
	r.Peer, r.Volume, r.Offset, r.Length = p.peer, p.volume, p.offset, p.length
	var ok bool
	if r.Type, ok = tokenTypes[o.kind]; !ok {
		return usagef("--type %s: use default, persistent, change-vulnerable or on-reference", o.kind)
	}
	if o.lifetime < 0 {
		return usagef("--timeout %v is negative; use 0 for that of the store", o.lifetime)
	}
	if r.Skip < 0 {
		return usagef("--skip %d is negative", r.Skip)
	}
	r.InactivitySeconds = int64((o.lifetime + time.Second - 1) / time.Second)
	return nil
}

// deliver writes a token, and those of other providers, to where the flags say.
func (o *tokenOptions) deliver(ctx context.Context, std streams, t admin.MadeToken) error {
	if o.out != "" {
		if err := putToken(ctx, std.out, o.out, t.Token); err != nil {
			return err
		}
	}
	if o.out == stdio {
		return nil
	}
	if o.json {
		return printJSON(std.out, api.MadeTokenV1(t))
	}
	var rest [][]byte // to be printed
	if o.out == "" {
		rest = append(rest, t.Token)
	}
	for _, other := range t.Others {
		rest = append(rest, other.Token)
	}
	for _, token := range rest {
		if _, err := fmt.Fprintln(std.out, base64.StdEncoding.EncodeToString(token)); err != nil {
			return err
		}
	}
	fmt.Fprintf(std.err, "token %v represents %d bytes\n", t.ID, t.Length)
	return nil
}

// revoke revokes a token, and those of other providers, that could not be delivered:
// otherwise they would pin data until they expire. Providers without data, such as
// checksum, make tokens that cannot be revoked and pin nothing.
func revoke(ctx context.Context, a admin.Administrator, t admin.MadeToken) (err error) {
	ctx = context.WithoutCancel(ctx)
	all := [][]byte{t.Token}
	for _, other := range t.Others {
		all = append(all, other.Token)
	}
	for _, token := range all {
		if failed := a.RevokeToken(ctx, (*tokens.Token)(token)); !errors.Is(failed, tokens.ErrUnsupportedType) {
			err = errors.Join(err, failed)
		}
	}
	return err
}

// putToken writes a token to standard output, a named pipe or a file.
func putToken(ctx context.Context, stdout io.Writer, name string, token []byte) error {
	if name == stdio {
		_, err := stdout.Write(token)
		return err
	}
	if !isStream(name) {
		return os.WriteFile(name, token, 0o600)
	}
	f, err := transfer.OpenPipe(ctx, name, os.O_WRONLY)
	if err != nil {
		return err
	}
	return errors.Join(writePipe(ctx, f, token), f.Close())
}

// writePipe writes to a pipe until ctx ends, whether or not a program reads from it.
func writePipe(ctx context.Context, f *os.File, p []byte) error {
	defer context.AfterFunc(ctx, func() { f.SetWriteDeadline(time.Now()) })()
	_, err := f.Write(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("%s: no program reads from the pipe: %w", f.Name(), stopped(ctx.Err()))
	}
	return err
}
