//go:build !rados

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// An odx without Ceph refuses a store in a pool, in every command, and says what to use.
func TestPool_Refused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "odx.yaml")
	text := "data_dir: rados:disks/one\nportals: [\"127.0.0.1:3260\"]\ntargets: [{name: iqn.2026-11.example:one, luns: [{lun: 0, volume: a, size: 1MiB}]}]\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"serve"}, {"serve", "--standby"}, {"status"}, {"store", "info"}, {"config", "check"}, {"target", "list"}} {
		var out, errs bytes.Buffer
		status := run(t.Context(), append(args, "--config", file), &out, &errs)
		if want := file + ":1: data_dir: this odx is built without Ceph and cannot reach rados:disks/one: use odx-rados"; status != 1 || !strings.HasPrefix(errs.String(), want) {
			t.Errorf("%v: exit status %d, %s%s", args, status, &out, &errs)
		}
	}
}
