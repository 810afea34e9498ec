package kit

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
)

// Space is what the store of an odx target takes, in bytes.
type Space struct {
	Live     int64 `json:"live_bytes"`     // data that something refers to
	Physical int64 `json:"physical_bytes"` // data on the disk
}

// Space asks the target, by the command that an administrator would use.
func (t *Target) Space(ctx context.Context) (Space, error) {
	var s Space
	err := t.Admin(ctx, &s, "store", "info")
	return s, err
}

// Admin runs an odx command for the target's configuration, with --json, and decodes
// what it prints, if into is not nil. The error holds what it printed.
func (t *Target) Admin(ctx context.Context, into any, args ...string) error {
	binary, err := Binary()
	if err != nil {
		return err
	}
	var stderr strings.Builder
	cmd := exec.CommandContext(ctx, binary, append(args, "--json", "--config", t.ConfigFile())...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("odx %s: %w\n%s%s", strings.Join(args, " "), err, out, stderr.String())
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(out, into)
}

// Pinned is what the store of an odx target keeps in addition to its volumes.
type Pinned struct {
	Snapshots int   `json:"snapshots"`
	Live      int64 `json:"live_bytes"`    // data that something refers to
	Logical   int64 `json:"logical_bytes"` // what volumes and files map
	Tokens    struct {
		Count int `json:"count"`
	} `json:"tokens"`
}

// Pinned asks the target, by the command that an administrator would use.
func (t *Target) Pinned(ctx context.Context) (Pinned, error) {
	var p Pinned
	err := t.Admin(ctx, &p, "store", "info")
	return p, err
}

// CheckStore proves the store of an odx target. The error holds the findings.
func (t *Target) CheckStore(ctx context.Context) error {
	return t.Admin(ctx, nil, "store", "check")
}
