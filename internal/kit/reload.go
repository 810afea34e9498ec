package kit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"go.yaml.in/yaml/v3"
)

// What an odx target logs at the end of a reload.
const (
	reloadApplied = "configuration applied"
	reloadRefused = "configuration not changed"
)

// Reload changes the configuration of a running odx target and waits until it is applied. The
// log has to stay at level info or debug.
func (t *Target) Reload(ctx context.Context, change func(config map[string]any)) error {
	text, err := os.ReadFile(t.ConfigFile())
	if err != nil {
		return err
	}
	config := map[string]any{}
	if err := yaml.Unmarshal(text, &config); err != nil {
		return err
	}
	change(config)
	if text, err = yaml.Marshal(config); err != nil {
		return err
	}
	if err := os.WriteFile(t.ConfigFile(), text, 0o644); err != nil {
		return err
	}
	applied, refused := strings.Count(t.Log(), reloadApplied), strings.Count(t.Log(), reloadRefused)
	if err := t.proc.send(syscall.SIGHUP); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("reload: %w; the log ends with\n%s", ctx.Err(), t.LogTail(20))
		case <-tick.C:
		}
		switch log := t.Log(); {
		case strings.Count(log, reloadApplied) > applied:
			return nil
		case strings.Count(log, reloadRefused) > refused:
			return errors.New("not applied; the log ends with\n" + t.LogTail(20))
		}
	}
}
