//go:build e2e

package clients

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"odx/internal/kit"
	"odx/internal/kit/harness"
)

// TestCopyOffload copies between LUNs with qemu-img's copy offload, in order and
// eight requests at once, all of which have LIST IDENTIFIER 1. Each EXTENDED COPY
// that qemu says was done is one that odx counts, none is left, and where they are
// forbidden qemu copies by itself.
func TestCopyOffload(t *testing.T) {
	qemuImg := harness.Program(t, "qemu-img", "qemu-utils")
	requireISCSI(t)
	const size = 64 << 20
	image := filepath.Join(t.TempDir(), "image")
	content := make([]byte, size)
	rand.NewChaCha8([32]byte{2}).Read(content)
	clear(content[size/4 : size/2])
	if err := os.WriteFile(image, content, 0o600); err != nil {
		t.Fatal(err)
	}
	user := map[string]any{"required": true, "users": []any{map[string]any{"name": "qemu", "secret": "offloaded-copies"}}}
	for _, tt := range []struct {
		name      string
		blockSize int
		more      kit.Settings
		login     string // of the URLs
		second    bool   // the destination is in a second target
		none      bool   // no copy is offloaded
	}{
		{name: "512e", blockSize: 512},
		{name: "4Kn", blockSize: 4096},
		{name: "CHAP", blockSize: 512, login: "qemu%offloaded-copies@", more: kit.Settings{Target: map[string]any{"authentication": user}}},
		{name: "two targets", blockSize: 512, second: true},
		{name: "forbidden by a rule", blockSize: 512, none: true, more: kit.Settings{
			File: map[string]any{"copy": map[string]any{"rules": []any{map[string]any{"from": []string{"vol0"}, "allow": false}}}}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			luns := []kit.LUN{{Size: size, BlockSize: tt.blockSize}, {Size: size, BlockSize: tt.blockSize}}
			if tt.second {
				target := func(iqn, volume string) map[string]any {
					return map[string]any{"name": iqn, "luns": []any{map[string]any{"lun": 0, "volume": volume, "size": "64MiB"}}}
				}
				luns = luns[:1]
				tt.more.File = map[string]any{"targets": []any{target(kit.IQN, "vol0"), target(kit.IQN+".second", "vol1")}}
			}
			target := harness.ServeWith(t, tt.more, luns...)
			url := func(i int) string {
				if tt.second && i == 1 {
					return fmt.Sprintf("iscsi://%s/%s.second/0", target.Portal, target.IQN)
				}
				return strings.Replace(target.URL(i), "iscsi://", "iscsi://"+tt.login, 1)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			quiet(ctx, t, qemuImg, "convert", "-n", "-f", "raw", "-O", "raw", image, url(0))
			for _, order := range []string{"", "-W"} {
				before := stats(ctx, t, target)
				args := []string{"--trace", "iscsi_xcopy", "convert", "-C", "-n", "-m", "8", "-f", "raw", "-O", "raw"}
				if order != "" {
					args = append(args, order)
				}
				calls := xcopies(t, harness.Run(ctx, t, qemuImg, append(args, url(0), url(1))...))
				after := stats(ctx, t, target)
				done := after.Extended - before.Extended
				if calls.done != done || calls.failed != 0 && !tt.none || after.Refused != before.Refused && !tt.none {
					t.Errorf("%q: qemu has %d calls that were done and %d that were not; odx %d done, %d refused", order,
						calls.done, calls.failed, done, after.Refused-before.Refused)
				}
				if (done == 0) != tt.none {
					t.Errorf("%q: %d copies were offloaded", order, done)
				}
				quiet(ctx, t, qemuImg, "compare", "-f", "raw", "-F", "raw", image, url(1))
				clear(content)
				zero := filepath.Join(t.TempDir(), "zero")
				if err := os.WriteFile(zero, content, 0o600); err != nil {
					t.Fatal(err)
				}
				quiet(ctx, t, qemuImg, "convert", "-n", "-f", "raw", "-O", "raw", zero, url(1))
			}
		})
	}
}

// xcopyCalls are what qemu's trace says of its EXTENDED COPY commands.
type xcopyCalls struct{ done, failed uint64 }

var xcopyCall = regexp.MustCompile(`iscsi_xcopy .* ret (-?\d+)`)

func xcopies(t *testing.T, trace string) (c xcopyCalls) {
	t.Helper()
	for _, m := range xcopyCall.FindAllStringSubmatch(trace, -1) {
		if m[1] == "0" {
			c.done++
		} else {
			c.failed++
		}
	}
	if c == (xcopyCalls{}) {
		t.Errorf("no trace of a call in\n%.2000s", trace)
	}
	return c
}

// copyStats are the counters of odx that matter here.
type copyStats struct{ Extended, Refused uint64 }

func stats(ctx context.Context, t *testing.T, target *kit.Target) copyStats {
	t.Helper()
	odx, err := kit.Binary()
	if err != nil {
		t.Fatal(err)
	}
	var s struct {
		Commands copyStats `json:"commands"`
	}
	text := harness.Run(ctx, t, odx, "token", "stats", "--json", "--config", target.ConfigFile())
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return s.Commands
}
