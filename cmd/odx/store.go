package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"odx/admin"
	"odx/api"
	v1 "odx/api/v1"
	"odx/conf"
)

func newStore() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "store",
		Short: "Inspect, check, clean and repair an extent store",
		Long: "Inspect, check, clean and repair an extent store. Commands use the server of the store, or open\n" +
			"the store if there is none; dump, repair, upgrade and new-identity need a store that is not\n" +
			"being served.",
	}
	cmd.AddCommand(newStoreInfo(), newStoreCheck(), newStoreHolds(), newStoreScrub(), newStoreClean(),
		newStoreUpgrade(), newStoreIdentity(), newStoreRepair(), newStoreDump(), newStoreBackup(), newStoreRestore())
	return cmd
}

func newStoreInfo() *cobra.Command {
	o := adminOptions{looks: true}
	exclusive := false
	cmd := &cobra.Command{
		Use:   "info",
		Short: "Print volumes, bytes, deduplication and tokens of a store",
		Long: "Print volumes, logical and physical bytes, the deduplication ratio and tokens. With --exclusive,\n" +
			"also print the data of each volume that is shared with nothing else, which its deletion\n" +
			"reclaims; what lies in segments of other stores, or of this one that others hold, is not\n" +
			"counted. That takes minutes for a TiB.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return administer(cmd, &o, func(ctx context.Context, cfg *conf.Config, a admin.Administrator) error {
				var s storeInfo
				var err error
				if s.StoreInfo, err = a.StoreInfo(ctx); err != nil {
					return err
				}
				if exclusive {
					if s.ExclusiveBytes, err = a.Exclusive(ctx); err != nil {
						return err
					}
				}
				if o.json {
					return printJSON(cmd.OutOrStdout(), v1.StoreInfo{Store: api.StoreV1(s.StoreInfo), ExclusiveBytes: s.ExclusiveBytes})
				}
				_, served := a.(*api.Client)
				return printStore(cmd.OutOrStdout(), cfg, s, served)
			})
		},
	}
	addAdminFlags(cmd, &o)
	cmd.Flags().BoolVar(&exclusive, "exclusive", false, "print the data that each volume and file shares with nothing")
	return cmd
}

// storeInfo is what odx store info prints.
type storeInfo struct {
	admin.StoreInfo
	// ExclusiveBytes is by name of the volume, or of the file with admin.FilePrefix; nil
	// without --exclusive.
	ExclusiveBytes map[string]int64
}

func printStore(w io.Writer, cfg *conf.Config, s storeInfo, served bool) error {
	by := "not being served"
	if served {
		by = "being served"
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "store\t%s\t%s\n", cfg.DataDir, by)
	printCapacity(table, &s)
	printUse(table, &s)
	for _, d := range s.Damage {
		fmt.Fprintf(table, "damaged\t%s\t%s\n", d.What, d.Error)
	}
	if s.MoreDamage > 0 {
		fmt.Fprintf(table, "damaged\t%d more\t\n", s.MoreDamage)
	}
	fmt.Fprintf(table, "tokens\t%d\tstand for %s\n", s.Tokens.Count, bytesText(s.Tokens.PinnedBytes))
	printLastScrub(table, &s)
	if s.Moved {
		fmt.Fprint(table, "moved\tyes\tthe store was created in another directory; see odx store new-identity\n")
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, d := range s.Damage {
		if _, err := fmt.Fprintf(w, "damaged: %s: %s (found %d times since %s)\n", d.What, d.Error, d.Times, d.Found.Local().Format(time.DateTime)); err != nil {
			return err
		}
	}
	if s.MoreDamage > 0 {
		if _, err := fmt.Fprintf(w, "damaged: %d more\n", s.MoreDamage); err != nil {
			return err
		}
	}
	return nil
}

// printUse prints the volumes and the bytes of the store.
func printUse(table io.Writer, s *storeInfo) {
	var volumes, files int64 // bytes mapped
	for _, v := range s.Volumes {
		alone := ""
		if bytes, ok := s.ExclusiveBytes[v.Name]; ok {
			alone = ", " + bytesText(bytes) + " exclusive"
		}
		fmt.Fprintf(table, "volume\t%s\t%s, %s written%s\n", v.Name, conf.FormatSize(v.SizeBytes), bytesText(v.MappedBytes), alone)
		volumes += v.MappedBytes
	}
	for _, f := range s.Files {
		if bytes, ok := s.ExclusiveBytes[admin.FilePrefix+f.Name]; ok {
			fmt.Fprintf(table, "file\t%s\t%s, %s written, %s exclusive\n", f.Name, conf.FormatSize(f.SizeBytes), bytesText(f.MappedBytes), bytesText(bytes))
		}
		files += f.MappedBytes
	}
	fmt.Fprintf(table, "logical\t%s\twritten: %s to %s, %s to %s\n", bytesText(s.LogicalBytes),
		bytesText(volumes), count(len(s.Volumes), "volume"), bytesText(files), count(len(s.Files), "file"))
	fmt.Fprintf(table, "live\t%s\tof extents that volumes, files, snapshots and tokens refer to\n", bytesText(s.LiveBytes))
	fmt.Fprintf(table, "reclaimable\t%s\tdead: what odx store clean reclaims\n", bytesText(s.ReclaimableBytes))
	if s.AdoptedBytes > 0 {
		fmt.Fprintf(table, "adopted\t%s\tof the live ones, in segments of other stores\n", bytesText(s.AdoptedBytes))
	}
	if s.LentBytes > 0 {
		fmt.Fprintf(table, "lent\t%s\tin segments that other stores hold, %s of it dead here and kept for them: odx store holds\n",
			bytesText(s.LentBytes), bytesText(s.LentDeadBytes))
	}
	fmt.Fprintf(table, "physical\t%s\tin segments of this store: live, dead, and %s of what they are kept in\n", bytesText(s.PhysicalBytes),
		bytesText(s.PhysicalBytes-(s.LiveBytes-s.AdoptedBytes)-s.ReclaimableBytes-s.LentDeadBytes))
	fmt.Fprintf(table, "dedup\t%.2f\tlogical bytes for a live one: %s are shared by clones, %s are deduplicated, %s are only in snapshots\n",
		s.DedupRatio, bytesText(s.ClonedBytes), bytesText(s.DeduplicatedBytes), bytesText(s.SnapshotBytes))
	fmt.Fprintf(table, "disk\t%s\tin all: physical, %s of metadata, %s in reserve, and the journal\n",
		bytesText(s.DiskBytes), bytesText(s.MetadataBytes), bytesText(s.ReserveBytes))
}

// printLastScrub prints the time and the result of the last scrub.
func printLastScrub(table io.Writer, s *storeInfo) {
	scrubbed := "never"
	if !s.Scrub.Ended.IsZero() {
		scrubbed = s.Scrub.Ended.Local().Format(time.DateTime)
	}
	found := ""
	switch {
	case s.Scrub.Damaged+s.Scrub.LostRows > 0:
		found = fmt.Sprintf("%s, %d parts of the metadata; odx store scrub names them", damagedText(s.Scrub.Damaged), s.Scrub.LostRows)
	case s.Scrub.MendedBytes > 0:
		found = bytesText(s.Scrub.MendedBytes) + " of metadata were restored, nothing is lost"
	case !s.Scrub.Ended.IsZero():
		found = "nothing is damaged"
	}
	fmt.Fprintf(table, "scrubbed\t%s\t%s\n", scrubbed, found)
}

// printCapacity prints the capacity of the store and its use.
func printCapacity(table io.Writer, s *storeInfo) {
	capacity := s.LiveBytes + s.FreeBytes
	used := percent(s.LiveBytes, capacity)
	what := "limited by the file system"
	if s.CapacityBytes > 0 && capacity >= s.CapacityBytes {
		what = "store.capacity"
	}
	fmt.Fprintf(table, "capacity\t%s\t%s; %s in use\n", bytesText(capacity), what, used)
	kept := ""
	if n := s.HostFreeBytes - s.FreeBytes; n > 0 && s.CapacityBytes == 0 {
		kept = fmt.Sprintf("; %s more are reserved for opening and cleaning", bytesText(n))
	}
	fmt.Fprintf(table, "free\t%s\tfor new data%s\n", bytesText(s.FreeBytes), kept)
	if s.WarnBytes > 0 {
		note := ""
		if s.LiveBytes >= s.WarnBytes {
			note = ": reached"
		}
		fmt.Fprintf(table, "warning\t%s\tin use: initiators are warned from there on (store.soft_threshold)%s\n", bytesText(s.WarnBytes), note)
	}
	fmt.Fprintf(table, "provisioned\t%s\tsize of all volumes and files, %s of the capacity\n", bytesText(s.ProvisionedBytes), percent(s.ProvisionedBytes, capacity))
}

// percent returns part as a percentage of whole.
func percent(part, whole int64) string {
	if whole <= 0 {
		return "100 %"
	}
	p := 100 * float64(part) / float64(whole)
	if p < 10 {
		return fmt.Sprintf("%.1f %%", p)
	}
	return fmt.Sprintf("%.0f %%", p)
}

// count returns a number and a noun, in the plural if needed.
func count(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}

// bytesText returns a number of bytes for people, rounded.
func bytesText(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

func newStoreCheck() *cobra.Command {
	o := adminOptions{looks: true}
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Prove references, segments and maps of a store",
		Long: "Prove every reference count of a store from its maps, and that extents do not overlap in their\n" +
			"segments. The data is not read; odx store scrub does that.\n\n" +
			"The command makes a checkpoint and reads it, so that the store can be in use: about a minute\n" +
			"for a TiB of data.\n\n" +
			"Every finding is printed, and the exit status is 3 if there is one.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return administer(cmd, &o, func(ctx context.Context, cfg *conf.Config, a admin.Administrator) error {
				r, err := a.Check(ctx)
				if err != nil {
					return err
				}
				if err := printCheck(cmd.OutOrStdout(), cfg, r, &o); err != nil {
					return err
				}
				if !r.Sound {
					return damagef("the store in %s is inconsistent; stop writing to it, and see odx store repair", cfg.DataDir)
				}
				return nil
			})
		},
	}
	addAdminFlags(cmd, &o)
	return cmd
}

func printCheck(w io.Writer, cfg *conf.Config, r admin.CheckResult, o *adminOptions) error {
	if o.json {
		return printJSON(w, api.CheckResultV1(r))
	}
	if r.Sound {
		_, err := fmt.Fprintf(w, "the store in %s is sound\n", cfg.DataDir)
		return err
	}
	for _, finding := range r.Findings {
		if _, err := fmt.Fprintln(w, finding); err != nil {
			return err
		}
	}
	return nil
}

func newStoreClean() *cobra.Command {
	var o adminOptions
	cmd := &cobra.Command{
		Use:   "clean",
		Short: "Reclaim the space of dead data now",
		Long: "Reclaim the space of dead data now, as fast as the disk allows: live data of partly dead segments\n" +
			"is moved, and the segments are deleted. The store can be in use. The server cleans in the\n" +
			"background, too, within store.clean_io_mib_per_s.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return query(cmd, &o, admin.Administrator.Clean, api.CleanResultV1, printClean)
		},
	}
	addAdminFlags(cmd, &o)
	return cmd
}

func printClean(w io.Writer, r admin.CleanResult) error {
	_, err := fmt.Fprintf(w, "%s reclaimed, %s on disk now\n", bytesText(r.FreedBytes), bytesText(r.PhysicalBytes))
	return err
}
