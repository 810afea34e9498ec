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
