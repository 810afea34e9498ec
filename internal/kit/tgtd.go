package kit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// StartTGTD starts tgtd on a free port of 127.0.0.1, each LUN in a plain file
// under dir, or where it says. It needs no root: its control socket is under dir too. The caller
// stops it.
func StartTGTD(ctx context.Context, dir string, luns []LUN) (*Target, error) {
	t := &Target{
		Kind: "tgtd", IQN: "iqn.2026-11.example.tgt:test", Dir: dir, LUNs: luns, firstLUN: 1,
		stopBy: syscall.SIGKILL, // it stays on SIGTERM as long as it has targets
	}
	for i, l := range luns {
		if l.Backing != nil {
			continue
		}
		if err := createSparse(t.lunFile(i), l.Size); err != nil {
			return nil, err
		}
	}
	t.start = func(ctx context.Context, t *Target) (*process, error) {
		cmd := exec.Command("tgtd", "-f", "--iscsi", "portal="+t.Portal)
		cmd.Env = append(os.Environ(), t.controlSocket())
		p, err := startProcess(cmd, t.log, func(string) {})
		if err != nil {
			return nil, err
		}
		if err := t.configureTGTD(ctx, p); err != nil {
			p.cmd.Process.Kill()
			return nil, fmt.Errorf("%w; tgtd said:\n%s", err, t.log)
		}
		return p, nil
	}
	return launch(ctx, t)
}

func (t *Target) lunFile(i int) string { return filepath.Join(t.Dir, fmt.Sprintf("lun%d.img", i)) }

func (t *Target) controlSocket() string {
	return "TGT_IPC_SOCKET=" + filepath.Join(t.Dir, "tgtd.socket")
}

func (t *Target) configureTGTD(ctx context.Context, p *process) error {
	adm := func(args ...string) error {
		cmd := exec.CommandContext(ctx, "tgtadm", append([]string{"--lld", "iscsi"}, args...)...)
		cmd.Env = append(os.Environ(), t.controlSocket())
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("tgtadm %v: %w: %s", args, err, out)
		}
		return nil
	}
	// tgtd does not say when its control socket answers, so ask until it does.
	for adm("--op", "show", "--mode", "sys") != nil {
		select {
		case <-p.ended:
			return fmt.Errorf("tgtd ended (%v)", p.err)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
	err := adm("--op", "new", "--mode", "target", "--tid", "1", "-T", t.IQN)
	for i, l := range t.LUNs {
		args := []string{"--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", fmt.Sprint(t.LUN(i))}
		if l.Backing == nil {
			args = append(args, "-b", t.lunFile(i))
		}
		args = append(args, l.Backing...)
		if l.BlockSize != 0 {
			args = append(args, "--blocksize", fmt.Sprint(l.BlockSize))
		}
		err = errors.Join(err, adm(args...))
		if l.ReadOnly {
			err = errors.Join(err, adm("--op", "update", "--mode", "logicalunit", "--tid", "1", "--lun", fmt.Sprint(t.LUN(i)), "-P", "readonly=1"))
		}
	}
	return errors.Join(err, adm("--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL"))
}

func createSparse(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}
