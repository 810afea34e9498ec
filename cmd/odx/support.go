package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"odx/admin"
	"odx/api"
	"odx/conf"
)

const (
	// logLines is how many lines of the journal a bundle has.
	logLines = "5000"
	// supportLimit bounds each part of a bundle but the check of the store.
	supportLimit = 15 * time.Second
)

func newSupport() *cobra.Command {
	cmd := &cobra.Command{Use: "support", Short: "Collect what others need to help", Args: cobra.NoArgs}
	cmd.AddCommand(newSupportBundle())
	return cmd
}

// supportOptions are the flags of odx support bundle.
type supportOptions struct {
	adminOptions
	unit       string
	checkLimit time.Duration
}

func newSupportBundle() *cobra.Command {
	var o supportOptions
	cmd := &cobra.Command{
		Use:   "bundle [FILE]",
		Short: "Write an archive that describes a server and its store",
		Long: "Write an archive (tar, gzip) that describes a server and its store: configuration, status, sessions,\n" +
			"statistics of LUNs and copies with the last refusals, metrics, goroutines, the result of a check, and\n" +
			"the end of the log. There is no data of volumes in it, and no secret; names of initiators, targets,\n" +
			"volumes, users, addresses and paths are. Read it before you send it: all of it is text.\n\n" +
			"FILE is odx-support-TIME.tar.gz by default, - for standard output. What cannot be had is named in\n" +
			"MISSING.txt. Without a server the archive has what the configuration and the store say.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.checkLimit < 0 {
				return usagef("--check-limit %v is negative; use 0 for no check", o.checkLimit)
			}
			name := "odx-support-" + time.Now().UTC().Format("20060102-150405") + ".tar.gz"
			if len(args) > 0 {
				name = args[0]
			}
			o.looks = true
			return administer(cmd, &o.adminOptions, func(ctx context.Context, cfg *conf.Config, a admin.Administrator) error {
				b := newBundle(secretsOf(cfg))
				b.collect(ctx, &o, cfg, a)
				return b.save(cmd, name)
			})
		},
	}
	addAdminFlags(cmd, &o.adminOptions)
	cmd.Flags().StringVar(&o.unit, "unit", "odx.service", "systemd `UNIT` whose log is taken")
	cmd.Flags().DurationVar(&o.checkLimit, "check-limit", time.Minute, "how long the check of the store may take; 0: no check")
	return cmd
}

// collect puts all parts into the bundle, from a server or a store. cfg is empty for a
// remote server.
func (b *bundle) collect(ctx context.Context, o *supportOptions, cfg *conf.Config, a admin.Administrator) {
	b.add("version.txt", []byte(versionText()+"\n"))
	b.text(ctx, "machine.txt", func(ctx context.Context) ([]byte, error) { return machineText(ctx, cfg) })
	client, served := a.(*api.Client)
	b.text(ctx, "config.yaml", func(ctx context.Context) ([]byte, error) {
		if served {
			return client.Config(ctx)
		}
		return cfg.Effective()
	})
	b.json(ctx, "store.json", func(ctx context.Context) (any, error) {
		i, err := a.StoreInfo(ctx)
		return api.StoreV1(i), err
	})
	b.json(ctx, "volumes.json", func(ctx context.Context) (any, error) {
		v, err := a.Volumes(ctx)
		return api.VolumesV1(v), err
	})
	if served {
		b.collectServer(ctx, client)
	} else {
		b.missing("status, sessions, statistics, metrics, goroutines", errors.New("no odx serves the store"))
	}
	if o.api == "" {
		b.text(ctx, "log.txt", func(ctx context.Context) ([]byte, error) { return journal(ctx, o.unit) })
	} else {
		b.missing("log.txt", errors.New("the server is on another machine; there: journalctl -u "+o.unit))
	}
	if o.checkLimit > 0 {
		ctx, cancel := context.WithTimeout(ctx, o.checkLimit)
		defer cancel()
		r, err := a.Check(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("not done within %v; see --check-limit", o.checkLimit)
		}
		b.put("check.json", api.CheckResultV1(r), err)
	} else {
		b.missing("check.json", errors.New("left out (--check-limit)"))
	}
}

// collectServer puts in what only a server has.
func (b *bundle) collectServer(ctx context.Context, client *api.Client) {
	b.json(ctx, "status.json", func(ctx context.Context) (any, error) {
		s, err := client.Status(ctx)
		return api.StatusV1(s), err
	})
	b.json(ctx, "sessions.json", func(ctx context.Context) (any, error) {
		s, err := client.Sessions(ctx)
		return api.SessionsV1(s), err
	})
	b.json(ctx, "luns.json", func(ctx context.Context) (any, error) {
		s, err := client.LUNStats(ctx)
		return api.AllLUNStatsV1(s), err
	})
	b.json(ctx, "copies.json", func(ctx context.Context) (any, error) {
		s, err := client.CopyStats(ctx)
		return api.CopyStatsV1(s), err
	})
	for name, path := range map[string]string{
		"metrics.txt": "/metrics", "ready.txt": "/readyz",
		"goroutines.txt": "/debug/pprof/goroutine?debug=2", "heap.txt": "/debug/pprof/heap?debug=1",
	} {
		b.text(ctx, name, func(ctx context.Context) ([]byte, error) { return client.Text(ctx, path) })
	}
}

// text adds what get returns.
func (b *bundle) text(ctx context.Context, name string, get func(context.Context) ([]byte, error)) {
	ctx, cancel := context.WithTimeout(ctx, supportLimit)
	defer cancel()
	text, err := get(ctx)
	if len(text) > 0 {
		b.add(name, text)
	}
	if err != nil {
		b.missing(name, err)
	}
}

// json is text for a value.
func (b *bundle) json(ctx context.Context, name string, get func(context.Context) (any, error)) {
	ctx, cancel := context.WithTimeout(ctx, supportLimit)
	defer cancel()
	v, err := get(ctx)
	b.put(name, v, err)
}

// put adds a value as JSON, or the error of getting it.
func (b *bundle) put(name string, v any, err error) {
	if err != nil {
		b.missing(name, err)
		return
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(v); err != nil {
		b.missing(name, err)
		return
	}
	b.add(name, text.Bytes())
}

// machineText describes the machine: its kernel, memory, limits, and the file system of the
// store.
func machineText(ctx context.Context, cfg *conf.Config) ([]byte, error) {
	var b bytes.Buffer
	var errs []error
	for _, file := range []string{"/proc/version", "/etc/os-release", "/proc/loadavg", "/proc/meminfo", "/proc/pressure/io", "/proc/self/limits"} {
		text, err := os.ReadFile(file)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		fmt.Fprintf(&b, "== %s\n%s", file, text)
	}
	if dir := cfg.LocalDir(); dir != "" {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			errs = append(errs, fmt.Errorf("file system of %s: %w", dir, err))
		} else {
			fmt.Fprintf(&b, "== file system of %s\ntype %#x, block %d bytes, blocks %d, free %d, available %d\n",
				dir, st.Type, st.Bsize, st.Blocks, st.Bfree, st.Bavail)
		}
	}
	return b.Bytes(), cmp.Or(errors.Join(errs...), ctx.Err())
}

// journal returns the last lines of the log of a unit.
func journal(ctx context.Context, unit string) ([]byte, error) {
	program, err := exec.LookPath("journalctl")
	if err != nil {
		return nil, errors.New("there is no journalctl; add the end of the log that odx serve writes to standard error")
	}
	var out, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, program, "--unit="+unit, "--lines="+logLines, "--output=short-iso-precise", "--no-pager", "--quiet")
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("journalctl: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	if out.Len() == 0 {
		return nil, fmt.Errorf("the journal has no lines of %s that this user can read; add the end of the log", unit)
	}
	return out.Bytes(), nil
}

// secretsOf returns the secrets of a configuration that can be read here, so that none of
// them gets into a bundle by any way.
func secretsOf(cfg *conf.Config) (secrets [][]byte) {
	var visit func(v reflect.Value)
	visit = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.Pointer, reflect.Interface:
			if !v.IsNil() {
				visit(v.Elem())
			}
		case reflect.Slice, reflect.Array:
			for i := range v.Len() {
				visit(v.Index(i))
			}
		case reflect.Struct:
			if s, ok := v.Interface().(conf.Secret); ok {
				if text, _, err := s.Read(); err == nil && len(text) > 0 {
					secrets = append(secrets, text)
				}
				return
			}
			for i := range v.NumField() {
				if v.Type().Field(i).IsExported() {
					visit(v.Field(i))
				}
			}
		}
	}
	visit(reflect.ValueOf(cfg))
	return secrets
}
