package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"odx/admin"
	"odx/conf"
	"odx/replica"
	"odx/stream"
)

type backupOptions struct {
	adminOptions
	full, verify      bool
	at                string
	compress          string
	recipients, files []string
	identities        []string
	writeConfig       string
}

func newStoreBackup() *cobra.Command {
	var o backupOptions
	cmd := &cobra.Command{
		Use:   "backup DIR",
		Short: "Back up volumes, snapshots, files and the configuration to a directory",
		Long: "Back up a store to a directory: every volume as it is now, every snapshot, every file, and the\n" +
			"configuration. A backup has a manifest, DIR/TIME.json; streams of snapshots that an earlier one in DIR\n" +
			"has are used again, and others have what differs from them. --full writes everything again.\n\n" +
			"Of each volume the command makes a snapshot NAME.backup-TIME, and deletes that of the backup before.\n\n" +
			"With --encrypt-to or --recipients-file, streams and configuration are encrypted; names and sizes in\n" +
			"the manifest are not. Without, secrets in the configuration file are masked. Files with secrets are\n" +
			"never in a backup. --verify reads a backup and proves it whole. See docs/backup.md.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.verify {
				return verifyBackup(cmd, &o, args[0])
			}
			return makeBackup(cmd, &o, args[0])
		},
	}
	addAdminFlags(cmd, &o.adminOptions)
	f := cmd.Flags()
	f.BoolVar(&o.full, "full", false, "use no stream of an earlier backup")
	f.BoolVar(&o.verify, "verify", false, "read a backup, and prove that it is whole")
	f.StringVar(&o.at, "at", "", "verify the backup of `TIME`, as its manifest is named (default: the latest one)")
	f.StringVar(&o.compress, "compress", stream.Default.String(), "`LEVEL` of compression")
	f.StringArrayVar(&o.recipients, "encrypt-to", nil, "encrypt to the `RECIPIENT` of age (repeatable)")
	f.StringArrayVar(&o.files, "recipients-file", nil, "encrypt to the recipients of age in `FILE` (repeatable)")
	f.StringArrayVar(&o.identities, "identity", nil, "with --verify: decrypt with an identity of age in `FILE` (repeatable)")
	return cmd
}

// masked is in what conf.Config.Effective returns of a configuration with secrets in it.
const maskedSecret = "(masked)"

func makeBackup(cmd *cobra.Command, o *backupOptions, dir string) error {
	level, err := stream.ParseLevel(o.compress)
	if err != nil {
		return &usageError{err}
	}
	to, err := recipientsOf(o.recipients, o.files)
	if err != nil {
		return err
	}
	return administer(cmd, &o.adminOptions, func(ctx context.Context, cfg *conf.Config, a admin.Administrator) error {
		text, err := configForBackup(cfg, len(to) > 0)
		if err != nil {
			return err
		}
		b, end, err := backupOf(cmd, a, dir)
		if err != nil {
			return err
		}
		defer end()
		m, err := b.Make(ctx, replica.BackupOptions{Full: o.full, Level: level, Recipients: to, Config: text, Now: time.Now()})
		if err != nil {
			return stopped(err)
		}
		end()
		return printBackup(cmd.OutOrStdout(), o, m, "made")
	})
}

// configForBackup returns the text of the configuration: with the secrets that it has only
// if it will be encrypted. nil: it is that of another machine.
func configForBackup(cfg *conf.Config, encrypted bool) ([]byte, error) {
	if cfg.File == "" || encrypted {
		return cfg.Text(), nil
	}
	effective, err := cfg.Effective()
	if err != nil || bytes.Contains(effective, []byte(maskedSecret)) {
		return effective, err
	}
	return cfg.Text(), nil
}

// backupOf returns a backup in a directory, and what ends its progress bar.
func backupOf(cmd *cobra.Command, a admin.Administrator, dir string) (*replica.Backup, func(), error) {
	s, err := streamerOf(cmd, a)
	if err != nil {
		return nil, nil, err
	}
	bar := newStreamBar(cmd.ErrOrStderr(), "")
	return &replica.Backup{Admin: a, Streams: s, Dir: dir, Progress: func(what string, p replica.Progress) {
		bar.describe(what)
		bar.show(p)
	}}, bar.end, nil
}

func printBackup(w io.Writer, o *backupOptions, m *replica.Manifest, what string) error {
	size := int64(0)
	for _, s := range m.Streams {
		size += s.Bytes
	}
	if o.json {
		return printJSON(w, map[string]any{"name": m.Name, "made": m.Made, "objects": len(m.Objects), "streams": len(m.Streams), "bytes": size})
	}
	_, err := fmt.Fprintf(w, "backup %s: %s, %s in %s, %s\n", m.Name, what, count(len(m.Objects), "object"), count(len(m.Streams), "stream"), bytesText(size))
	return err
}

func verifyBackup(cmd *cobra.Command, o *backupOptions, dir string) error {
	ctx, release := untilSignal(cmd.Context())
	defer release()
	m, ids, err := openBackup(cmd, o, dir)
	if err != nil {
		return err
	}
	if err := (&replica.Backup{Dir: dir}).Verify(ctx, m, ids); err != nil {
		return damagef("backup %s in %s: %w", m.Name, dir, err)
	}
	return printBackup(cmd.OutOrStdout(), o, m, "whole")
}

func openBackup(cmd *cobra.Command, o *backupOptions, dir string) (*replica.Manifest, []age.Identity, error) {
	ids, err := identitiesOf(cmd, o.identities)
	if err != nil {
		return nil, nil, err
	}
	m, err := replica.ReadManifest(dir, o.at)
	return m, ids, err
}

func newStoreRestore() *cobra.Command {
	var o backupOptions
	cmd := &cobra.Command{
		Use:   "restore DIR",
		Short: "Make the volumes, snapshots and files of a backup",
		Long: "Make the volumes, snapshots and files of a backup in a store that has none of their names. If there is\n" +
			"no store in data_dir, the command creates it: before odx serve does, which would create the volumes\n" +
			"of its LUNs empty.\n\n" +
			"--write-config writes the configuration of the backup to a file, and ends. It gives each LUN on a volume\n" +
			"the identity that it had, so that initiators see the disk that they know. See docs/backup.md.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, ids, err := openBackup(cmd, &o, args[0])
			if err != nil {
				return err
			}
			if o.writeConfig != "" {
				return writeBackupConfig(cmd, &o, args[0], m, ids)
			}
			return administerNew(cmd, &o.adminOptions, func(ctx context.Context, _ *conf.Config, a admin.Administrator) error {
				b, end, err := backupOf(cmd, a, args[0])
				if err != nil {
					return err
				}
				defer end()
				if err := b.Restore(ctx, m, ids); err != nil {
					return stopped(err)
				}
				end()
				return printBackup(cmd.OutOrStdout(), &o, m, "restored")
			})
		},
	}
	addAdminFlags(cmd, &o.adminOptions)
	f := cmd.Flags()
	f.StringVar(&o.at, "at", "", "restore the backup of `TIME`, as its manifest is named (default: the latest one)")
	f.StringArrayVar(&o.identities, "identity", nil, "decrypt with an identity of age in `FILE` (repeatable)")
	f.StringVar(&o.writeConfig, "write-config", "", "write the configuration to `FILE`, which is not there yet, and nothing else")
	return cmd
}

// administerNew is administer, and creates the store if there is none.
func administerNew(cmd *cobra.Command, o *adminOptions, do administration) error {
	if o.api != "" {
		return administer(cmd, o, do)
	}
	cfg, err := loadConfig(serveOptions{config: o.config})
	if err != nil {
		return err
	}
	if _, err := os.Stat(cfg.DataDir); cfg.Pool != nil || !errors.Is(err, fs.ErrNotExist) {
		return administer(cmd, o, do)
	}
	ctx, release := untilSignal(cmd.Context())
	defer release()
	log, err := newLog(conf.Log{Level: "warn", Format: cfg.Log.Format}, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	s, err := admin.Open(ctx, cfg, log, admin.Options{})
	if err != nil {
		return err
	}
	return errors.Join(do(ctx, cfg, s), s.Close())
}

// writeBackupConfig writes the configuration of a backup, with the identities of LUNs.
func writeBackupConfig(cmd *cobra.Command, o *backupOptions, dir string, m *replica.Manifest, ids []age.Identity) error {
	text, err := (&replica.Backup{Dir: dir}).Config(m, ids)
	if err != nil {
		return err
	}
	if text == nil {
		return fmt.Errorf("backup %s has no configuration: it was made of a server on another machine", m.Name)
	}
	path, err := filepath.Abs(o.writeConfig)
	if err != nil {
		return err
	}
	if text, err = withIdentities(path, text, m); err != nil {
		return err
	}
	f, err := newWholeFile(path)
	if err != nil {
		return err
	}
	defer f.drop()
	if _, err := f.Write(text); err != nil {
		return err
	}
	if err := f.finish(); err != nil {
		return err
	}
	if bytes.Contains(text, []byte(maskedSecret)) {
		fmt.Fprintf(cmd.ErrOrStderr(), "odx: secrets in %s are masked: replace each %s\n", o.writeConfig, maskedSecret)
	}
	if o.json {
		return printJSON(cmd.OutOrStdout(), map[string]string{"config": o.writeConfig})
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: written; check data_dir and addresses in it\n", o.writeConfig)
	return err
}

// withIdentities gives the LUNs on volumes of a backup the identities that they had.
func withIdentities(path string, text []byte, m *replica.Manifest) ([]byte, error) {
	cfg, err := conf.Parse(path, text)
	if err != nil {
		return nil, err
	}
	var edits []conf.Edit
	for _, t := range cfg.Targets {
		for _, l := range t.LUNs {
			i := slices.IndexFunc(m.Objects, func(b replica.BackupObject) bool { return l.Volume != "" && b.Name == l.Volume && b.Kind != "file" })
			if i < 0 || l.Identity != ([16]byte{}) {
				continue
			}
			id, err := hex.DecodeString(m.Objects[i].ID)
			if err != nil || len(id) != 16 {
				return nil, fmt.Errorf("%w: identity %q", replica.ErrBackup, m.Objects[i].ID)
			}
			edits = append(edits, conf.MoveLUN{Target: t.Name, Number: uint16(l.Number), To: conf.Device{Volume: l.Volume}, Identity: [16]byte(id)})
		}
	}
	return conf.Apply(path, text, edits...)
}
