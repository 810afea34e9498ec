package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"odx/admin"
	"odx/api"
	"odx/conf"
	"odx/tokens"
)

func newToken() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Create tokens, write with them, read their bytes",
		Long: "A token is 512 bytes that represent a range of a volume as it was when the token was created. Its\n" +
			"holder may use it, here and over iSCSI. Commands print a token in base64; they take it in base64,\n" +
			"or as @FILE (@-: standard input) with that text or with the 512 bytes.",
	}
	cmd.AddCommand(newTokenCreate(), newTokenWrite(), newTokenList(), newTokenShow(), newTokenDelete(), newTokenRead(), newTokenVerify(), newTokenStats())
	return cmd
}

// place is a range of a volume in the form VOLUME[:OFFSET[+LENGTH]]; of a volume of a peer, if
// peer:NAME: comes before.
type place struct {
	peer           string // "" for none
	volume         string
	offset, length int64 // length 0: to the end
}

func parsePlace(text string) (place, error) {
	var p place
	var where string
	var err error
	rest := text
	if isPeer(text) {
		if p.peer, rest, err = cutPeer(text); err != nil {
			return p, err
		}
	}
	// The prefix of a file's name contains a colon.
	file, isFile := strings.CutPrefix(rest, admin.FilePrefix)
	p.volume, where, _ = strings.Cut(file, ":")
	if isFile {
		p.volume = admin.FilePrefix + p.volume
	}
	if where == "" {
		return p, nil
	}
	offset, length, long := strings.Cut(where, "+")
	if p.offset, err = parseSize(offset); err == nil && long {
		p.length, err = parseSize(length)
	}
	if err != nil {
		return p, fmt.Errorf("%q: %w; write VOLUME:OFFSET+LENGTH, for example src:1GiB+256MiB", text, err)
	}
	return p, nil
}

// errNotToken is the error of what is to be a token.
var errNotToken = errors.New("not a token: neither 512 bytes nor 512 bytes in base64; write @FILE for a file")

// readToken reads a token given on a command line.
func readToken(text string) (*tokens.Token, error) {
	if name, ok := strings.CutPrefix(text, "@"); ok {
		b, err := readSmallFile(name)
		if err != nil {
			return nil, err
		}
		return decodeToken(b)
	}
	t, err := decodeToken([]byte(text))
	if err != nil {
		return nil, &usageError{err}
	}
	return t, nil
}

// tokenAndPlace parses a token and the range of a volume.
func tokenAndPlace(args []string) (*tokens.Token, place, error) {
	t, err := readToken(args[0])
	if err != nil {
		return nil, place{}, err
	}
	p, err := parsePlace(args[1])
	if err == nil && p.peer != "" {
		err = usagef("%s is a place on another server; run the command there", args[1])
	}
	return t, p, err
}

// decodeToken returns the token in b, of 512 bytes or of as many in base64.
func decodeToken(b []byte) (*tokens.Token, error) {
	if len(b) != tokens.TokenLength {
		decoded, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(b)))
		if err != nil || len(decoded) != tokens.TokenLength {
			return nil, errNotToken
		}
		b = decoded
	}
	return (*tokens.Token)(b), nil
}

// readSmallFile reads at most the length of a token in base64.
func readSmallFile(name string) ([]byte, error) {
	if name == stdio {
		return io.ReadAll(io.LimitReader(os.Stdin, 4*tokens.TokenLength))
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, 4*tokens.TokenLength))
}

func newTokenWrite() *cobra.Command {
	var o adminOptions
	var from string
	var force bool
	cmd := &cobra.Command{
		Use:   "write TOKEN VOLUME[:OFFSET[+LENGTH]]",
		Short: "Make a range of a volume equal to the bytes of a token",
		Long: "Make a range of a volume equal to the bytes of a token. TOKEN is the token in base64, or @FILE\n" +
			"(@-: standard input) with that text or with the 512 bytes.",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, p, err := tokenAndPlace(args)
			if err != nil {
				return err
			}
			start, err := parseSize(from)
			if err != nil {
				return fmt.Errorf("--from: %w", err)
			}
			r := admin.TokenWrite{Token: t[:], TokenOffset: start, Volume: p.volume, Offset: p.offset, Length: p.length}
			return administer(cmd, &o, func(ctx context.Context, _ *conf.Config, a admin.Administrator) error {
				if !force {
					if err := checkNotOpen(ctx, a, p.volume); err != nil {
						return err
					}
				}
				done, err := writeToken(ctx, a, r)
				if err != nil {
					return fmt.Errorf("after %d bytes: %w", done.Bytes, err)
				}
				if o.json {
					return printJSON(cmd.OutOrStdout(), api.TokenWrittenV1(done))
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %d bytes written at %d\n", objectText(p.volume), done.Bytes, p.offset)
				return err
			})
		},
	}
	addAdminFlags(cmd, &o)
	cmd.Flags().StringVar(&from, "from", "0", "begin `BYTES` into the token")
	cmd.Flags().BoolVar(&force, "force", false, "write even if initiators have the volume open")
	return cmd
}

// objectText returns "volume" or "file" and the name.
func objectText(name string) string {
	if file, ok := strings.CutPrefix(name, admin.FilePrefix); ok {
		return "file " + file
	}
	return "volume " + name
}

// writeToken writes until the token or the range ends.
func writeToken(ctx context.Context, a admin.Administrator, r admin.TokenWrite) (admin.TokenWritten, error) {
	var sum admin.TokenWritten
	for {
		n, err := a.WriteToken(ctx, r)
		sum.Bytes += n.Bytes
		sum.Remaining = n.Remaining
		if err != nil || n.Remaining == 0 || n.Bytes == 0 {
			return sum, err
		}
		r.TokenOffset += n.Bytes
		r.Offset += n.Bytes
		r.Length = n.Remaining
	}
}

func newTokenList() *cobra.Command {
	var o adminOptions
	var all bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Print the live tokens, the oldest first",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			get := admin.Administrator.Tokens
			if all {
				get = tokensEverywhere(cmd.ErrOrStderr())
			}
			return query(cmd, &o, get, api.TokenInfosV1, printTokens)
		},
	}
	addAdminFlags(cmd, &o)
	cmd.Flags().BoolVar(&all, "all", false, "also those of other servers, whose volumes are printed as PEER:VOLUME")
	return cmd
}

func printTokens(w io.Writer, list []admin.TokenInfo) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tBYTES\tVOLUME\tINITIATOR\tMADE\tEXPIRES\tUSES\tTYPE")
	for _, t := range list {
		expires := "never"
		switch {
		case t.Expires != nil:
			expires = t.Expires.Local().Format(time.DateTime)
		case t.InUse > 0:
			expires = "in use"
		}
		fmt.Fprintf(table, "%v\t%d\t%s\t%s\t%s\t%s\t%d\t%s\n", t.ID, t.Bytes, orDash(t.Volume), orDash(t.Initiator),
			t.Created.Local().Format(time.DateTime), expires, t.Uses, t.TypeName)
	}
	return table.Flush()
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func newTokenShow() *cobra.Command {
	var o adminOptions
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Describe a live token, also one of another server",
		Long: "Describe a live token. ID is its identifier, 16 hexadecimal digits: create and list print it. If this\n" +
			"server has none with it, the other servers are asked.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := tokens.ParseID(args[0])
			if err != nil {
				return &usageError{err}
			}
			return query(cmd, &o, tokenAnywhere(id), api.TokenInfoV1, func(w io.Writer, t admin.TokenInfo) error { return printTokens(w, []admin.TokenInfo{t}) })
		},
	}
	addAdminFlags(cmd, &o)
	return cmd
}

func newTokenDelete() *cobra.Command {
	var o adminOptions
	cmd := &cobra.Command{
		Use:   "delete ID|TOKEN",
		Short: "Revoke a token, given by its identifier or itself",
		Long: "Revoke a token. ID is its identifier, 16 hexadecimal digits: create and list print it. TOKEN is the\n" +
			"token in base64, or @FILE (@-: standard input) with that text or with the 512 bytes.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, revoke, err := whatToRevoke(args[0])
			if err != nil {
				return err
			}
			return administer(cmd, &o, func(ctx context.Context, _ *conf.Config, a admin.Administrator) error {
				if err := revoke(ctx, a); err != nil {
					return err
				}
				if o.json {
					return printJSON(cmd.OutOrStdout(), map[string]string{"deleted": id.String()})
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "token %v: revoked\n", id)
				return err
			})
		},
	}
	addAdminFlags(cmd, &o)
	return cmd
}

// whatToRevoke parses an identifier or a token.
func whatToRevoke(text string) (tokens.ID, func(ctx context.Context, a admin.Administrator) error, error) {
	if id, err := tokens.ParseID(text); err == nil {
		return id, func(ctx context.Context, a admin.Administrator) error { return a.DeleteToken(ctx, id) }, nil
	}
	t, err := readToken(text)
	if err != nil {
		return 0, nil, fmt.Errorf("neither an identifier of 16 hexadecimal digits nor a token: %w", err)
	}
	return t.ID(), func(ctx context.Context, a admin.Administrator) error { return a.RevokeToken(ctx, t) }, nil
}

func newTokenVerify() *cobra.Command {
	var o adminOptions
	cmd := &cobra.Command{
		Use:   "verify TOKEN VOLUME[:OFFSET[+LENGTH]]",
		Short: "Compare a range of a volume with a checksum token",
		Long: "Compare a range of a volume with the bytes of which a checksum token was created (odx token create\n" +
			"--providers data,checksum). Exit status 1 if they differ.",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, p, err := tokenAndPlace(args)
			if err != nil {
				return err
			}
			return administer(cmd, &o, func(ctx context.Context, _ *conf.Config, a admin.Administrator) error {
				v, err := a.VerifyToken(ctx, admin.TokenWrite{Token: t[:], Volume: p.volume, Offset: p.offset, Length: p.length})
				if err != nil {
					return err
				}
				if o.json {
					err = printJSON(cmd.OutOrStdout(), api.TokenVerifiedV1(v))
				} else if v.Match {
					_, err = fmt.Fprintln(cmd.OutOrStdout(), "the checksum matches")
				}
				if err == nil && !v.Match {
					err = errors.New("checksum mismatch")
				}
				return err
			})
		},
	}
	addAdminFlags(cmd, &o)
	return cmd
}

func newTokenRead() *cobra.Command {
	var o adminOptions
	cmd := &cobra.Command{
		Use:   "read TOKEN [OFFSET[+LENGTH]]",
		Short: "Print the bytes of a token",
		Long: "Print the bytes of a token. TOKEN is the token in base64, or @FILE (@-: standard\n" +
			"input) with that text or with the 512 bytes.",
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := readToken(args[0])
			if err != nil {
				return err
			}
			var p place
			if len(args) == 2 {
				if p, err = parsePlace(":" + args[1]); err != nil {
					return err
				}
			}
			return administer(cmd, &o, func(ctx context.Context, _ *conf.Config, a admin.Administrator) error {
				return readThrough(ctx, a, t, p, cmd.OutOrStdout())
			})
		},
	}
	addConfigFlag(cmd, &o.config)
	addAPIFlags(cmd, &o)
	return cmd
}

// readThrough copies bytes of a token to w; a length of 0 means all.
func readThrough(ctx context.Context, a admin.Administrator, t *tokens.Token, p place, w io.Writer) error {
	if p.length == 0 {
		p.length = math.MaxInt64 - p.offset
	}
	buf := make([]byte, 1<<20)
	for p.length > 0 {
		part := buf[:min(p.length, int64(len(buf)))]
		n, err := a.ReadToken(ctx, t, part, p.offset)
		if err != nil {
			return err
		}
		if _, err := w.Write(part[:n]); err != nil {
			return err
		}
		if n < len(part) {
			return nil // past the end of the token
		}
		p.offset += int64(n)
		p.length -= int64(n)
	}
	return nil
}
