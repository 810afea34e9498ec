package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"odx/admin"
	"odx/conf"
)

const (
	// handoverLimit is how long odx handover waits for another process to serve.
	handoverLimit = time.Minute
	// handoverLook is how often it looks.
	handoverLook = 50 * time.Millisecond
)

func newHandover() *cobra.Command {
	var o adminOptions
	cmd := &cobra.Command{
		Use:   "handover",
		Short: "Replace the process of the server, with its connections",
		Long: "Have the server start its program again and hand over to the new process: store, portals and\n" +
			"live connections, so that initiators see a pause and no error. After an upgrade of the program\n" +
			"the new one serves. If it cannot, the process that serves goes on, and this command says why.\n" +
			"The configuration stays the one that the server has. Run it on the machine of the server, as\n" +
			"its user; SIGUSR2 does the same.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return administer(cmd, &o, func(ctx context.Context, cfg *conf.Config, a admin.Administrator) error {
				pid, err := handOver(ctx, cfg, a)
				if err == nil {
					_, err = fmt.Fprintf(cmd.OutOrStdout(), "process %d serves\n", pid)
				}
				return err
			})
		},
	}
	addAdminFlags(cmd, &o)
	return cmd
}

// handOver returns the process that serves afterwards.
func handOver(ctx context.Context, cfg *conf.Config, a admin.Administrator) (pid int, err error) {
	before, err := a.Status(ctx)
	if errors.Is(err, admin.ErrNotRunning) {
		return 0, &noServerError{cfg.DataDir}
	}
	if err != nil {
		return 0, err
	}
	if err := syscall.Kill(before.PID, syscall.SIGUSR2); err != nil {
		return 0, fmt.Errorf("signal to process %d: %w", before.PID, err)
	}
	ctx, cancel := context.WithTimeout(ctx, handoverLimit)
	defer cancel()
	tick := time.NewTicker(handoverLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("process %d still serves: %w; its log says more", before.PID, ctx.Err())
		case <-tick.C:
		}
		now, err := a.Status(ctx)
		switch {
		case err != nil: // between two processes, or ctx has ended
		case now.PID != before.PID:
			return now.PID, nil
		case now.HandoversFailed > before.HandoversFailed:
			return 0, fmt.Errorf("process %d goes on: %s", now.PID, now.HandoverError)
		}
	}
}
