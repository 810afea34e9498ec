package undertest

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
)

// Space is what the store of an odx target takes, in bytes.
type Space struct {
	Live     int64 `json:"live_bytes"`     // data that something refers to
	Physical int64 `json:"physical_bytes"` // data on the disk
}

// Space asks the target, by the command that an administrator would use.
func (t *Target) Space(ctx context.Context) (Space, error) {
	var s Space
	err := t.admin(ctx, &s, "store", "info", "--json")
	return s, err
}

// admin runs an odx command for the target's configuration and decodes the
// JSON that it prints.
func (t *Target) admin(ctx context.Context, into any, args ...string) error {
	binary, err := Binary()
	if err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, binary, append(args, "--config", t.ConfigFile())...).Output()
	if err != nil {
		return fmt.Errorf("odx %v: %w", args, err)
	}
	return json.Unmarshal(out, into)
}

// Pinned is what the store of an odx target keeps beside its volumes.
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
	err := t.admin(ctx, &p, "store", "info", "--json")
	return p, err
}

// CheckStore proves the store of an odx target. The error holds the findings.
func (t *Target) CheckStore(ctx context.Context) error {
	var findings json.RawMessage
	if err := t.admin(ctx, &findings, "store", "check", "--json"); err != nil {
		return fmt.Errorf("%w: %s", err, findings)
	}
	return nil
}
