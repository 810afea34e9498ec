package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"odx/admin"
	"odx/backstore"
	"odx/blockdev"
	"odx/target"
	"odx/tokens"
	"odx/vhd"
)

// A token upon reference ends when what it refers to is deleted or replaced, in
// whatever way; that it was good, and is no more, is what a client gets (410).
func TestTokenUponReference_Deletion(t *testing.T) {
	for name, tt := range map[string]struct {
		space string
		end   func(a admin.Administrator, ctx context.Context) error
	}{
		"volume deleted": {"v", func(a admin.Administrator, ctx context.Context) error { return a.DeleteVolume(ctx, "v") }},
		"file deleted":   {"file:f.raw", func(a admin.Administrator, ctx context.Context) error { return a.DeleteFile(ctx, "f.raw") }},
		"file replaced by renaming": {"file:f.raw", func(a admin.Administrator, ctx context.Context) error {
			_, err := a.RenameFile(ctx, "other", "f.raw")
			return err
		}},
		"file replaced by a new one": {"file:f.raw", func(a admin.Administrator, ctx context.Context) error {
			part, err := a.StartFile(ctx, admin.FileStart{Name: "f.raw", SizeBytes: 4096})
			if err == nil {
				_, err = a.FinishFile(ctx, admin.FileFinish{Name: "f.raw", Scratch: part.Name, Overwrite: true})
			}
			return err
		}},
		"file replaced by a disk": {"file:f.raw", func(a admin.Administrator, ctx context.Context) error {
			_, err := a.ChangeDisk(ctx, admin.DiskRequest{Operation: vhd.FromVolume, Source: "src", Destination: "f.raw", Overwrite: true}, nil)
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			eachAdministrator(t, func(t *testing.T, s *target.Service, _ string, a admin.Administrator) {
				ctx := t.Context()
				_, err := a.CreateVolume(ctx, "v", 1<<20)
				_, err2 := a.CreateFile(ctx, "f.raw", 1<<20)
				_, err3 := a.CreateFile(ctx, "other", 1<<20)
				if err := errors.Join(err, err2, err3); err != nil {
					t.Fatal(err)
				}
				made, err := a.CreateToken(ctx, admin.TokenRequest{Volume: tt.space, Type: tokens.RODTypeAccessUponReference})
				if err != nil {
					t.Fatal(err)
				}
				if err := tt.end(a, ctx); err != nil {
					t.Fatal(err)
				}
				_, err = a.WriteToken(ctx, admin.TokenWrite{Token: made.Token, Volume: "src"})
				if !errors.Is(err, tokens.ErrCancelled) || errors.Is(err, backstore.ErrNotFound) {
					t.Errorf("first use: %v", err)
				}
				if f, status := failureOf(err); status != http.StatusGone || f.Kind != "token_cancelled" {
					t.Errorf("it is answered %d, %+v", status, f)
				}
				if _, err := a.Token(ctx, made.ID); !errors.Is(err, tokens.ErrCancelled) {
					t.Errorf("the token is %v", err)
				}
			})
		})
	}
}

// aborting writes a part, and then its token ends.
type aborting struct{ admin.Administrator }

func (aborting) WriteToken(context.Context, admin.TokenWrite) (admin.TokenWritten, error) {
	return admin.TokenWritten{Bytes: 8192, Remaining: 4096}, fmt.Errorf("%w: %v", tokens.ErrCancelled, tokens.DataGone)
}

// What a copy did before its token ended is reported, with the token's error.
func TestWriteToken_Aborted(t *testing.T) {
	dir := t.TempDir()
	client := serveSocket(t, dir, NewServer(serving(t, aborting{})))
	done, err := client.WriteToken(t.Context(), admin.TokenWrite{})
	if done.Bytes != 8192 || !errors.Is(err, tokens.ErrCancelled) {
		t.Errorf("%+v, %v", done, err)
	}
	resp, err := client.http.Post("http://odx/v1/tokens/write", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusGone || !strings.HasPrefix(string(body), `{"kind":"token_cancelled",`) ||
		!strings.HasSuffix(strings.TrimSpace(string(body)), `,"bytes":8192}`) {
		t.Errorf("%d, %v: %s", resp.StatusCode, err, body)
	}
}

func TestCreateToken_Priority(t *testing.T) {
	eachAdministrator(t, func(t *testing.T, _ *target.Service, _ string, a admin.Administrator) {
		for priority, good := range map[int]bool{-101: false, -100: true, 100: true, 101: false, 1 << 40: false} {
			for _, providers := range [][]string{nil, {"data", "checksum"}, {"hash"}, {"checksum"}} {
				_, err := a.CreateToken(t.Context(), admin.TokenRequest{Volume: "src", Length: 4096, Priority: priority, Providers: providers})
				if good && err != nil || !good && !errors.Is(err, blockdev.ErrInvalid) {
					t.Errorf("priority %d, %v: %v", priority, providers, err)
				}
			}
		}
	})
}

// What tokens hold is measured when it is asked for, with or without a limit on it.
func TestCopyStats_Held(t *testing.T) {
	eachAdministrator(t, func(t *testing.T, s *target.Service, _ string, a admin.Administrator) {
		fill(t, s, 1<<20)
		made, err := a.CreateToken(t.Context(), admin.TokenRequest{Volume: "src", Offset: 4096, Length: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		held := func() int64 {
			stats, err := a.CopyStats(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return stats.Tokens.HeldBytes
		}
		if n := held(); n != 0 {
			t.Errorf("%d bytes are held of data that did not change", n)
		}
		if err := a.ZeroVolume(t.Context(), "src", 0, 32<<20); err != nil {
			t.Fatal(err)
		}
		// What the volume had goes in the background.
		for began := time.Now(); held() != 1<<20; {
			if time.Since(began) > 20*time.Second {
				t.Fatalf("%d bytes are held", held())
			}
		}
		if err := a.DeleteToken(t.Context(), made.ID); err != nil {
			t.Fatal(err)
		}
		if n := held(); n != 0 {
			t.Errorf("%d bytes are held by no token", n)
		}
	})
}
