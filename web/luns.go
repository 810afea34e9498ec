package web

import (
	"context"
	"time"

	"odx/admin"
	"odx/conf"
)

// maxRows bounds the rows of a table. What is beyond is counted, and named by the command
// that lists it.
const maxRows = 500

// lunRow is a LUN with its traffic of the last minute.
type lunRow struct {
	admin.LUNStatus
	Read, Write kindRow
	Others      uint64 // commands a minute that unmap or copy
	Errors      uint64 // in the last minute
	Initiators  int
}

// kindRow is the traffic of one kind.
type kindRow struct {
	// PerSecond are commands, Bytes their data a second.
	PerSecond float64
	Bytes     float64
	Mean, P99 time.Duration
}

// lunRows joins what LUNs are with what they do.
func lunRows(status *admin.Status, stats []admin.LUNStats) []lunRow {
	type name struct {
		target string
		number uint16
	}
	by := map[name]*admin.LUNStats{}
	for i := range stats {
		by[name{stats[i].Target, stats[i].Number}] = &stats[i]
	}
	rows := []lunRow{}
	for i := range status.LUNs {
		row := lunRow{LUNStatus: status.LUNs[i]}
		if s := by[name{row.Target, row.Number}]; s != nil {
			over := min(time.Minute, max(time.Since(s.Since), time.Second))
			m := &s.Minute
			row.Read, row.Write = trafficOf(m.Read, over), trafficOf(m.Write, over)
			row.Others = m.Unmap.Commands + m.Copy.Commands
			row.Errors = m.Read.Errors + m.Write.Errors + m.Unmap.Errors + m.Copy.Errors
			row.Initiators = len(s.Initiators)
		}
		rows = append(rows, row)
	}
	return rows
}

func trafficOf(k admin.KindCounters, over time.Duration) kindRow {
	return kindRow{float64(k.Commands) / over.Seconds(), float64(k.Bytes) / over.Seconds(), k.Mean, k.P99}
}

// luns is what the view of LUNs shows.
type luns struct {
	Rows []lunRow
	More int // LUNs that are not shown
	// Targets are those of the configuration, and Map is the form that adds a LUN.
	Targets []string
	Volumes []string
	Map     bool
}

func readLUNs(ctx context.Context, p *page, u *user) (any, error) {
	status, err := p.Administrator.Status(ctx)
	if err != nil {
		return nil, err
	}
	stats, err := p.Live.LUNStats(ctx)
	if err != nil {
		return nil, err
	}
	l := luns{Rows: lunRows(&status, stats), Map: u.May(conf.RoleAdminister)}
	l.Rows, l.More = head(l.Rows)
	if !l.Map {
		return l, nil
	}
	text, err := p.Live.Config(ctx)
	if err != nil {
		return nil, err
	}
	cfg, err := conf.ParseEffective("configuration", text)
	if err != nil {
		return nil, err
	}
	for i := range cfg.Targets {
		l.Targets = append(l.Targets, cfg.Targets[i].Name)
	}
	volumes, err := p.Administrator.Volumes(ctx)
	if err != nil {
		return nil, err
	}
	for _, v := range volumes {
		l.Volumes = append(l.Volumes, v.Name)
	}
	l.Volumes, _ = head(l.Volumes)
	return l, nil
}

// sessionList is what the view of sessions shows.
type sessionList struct {
	Rows []admin.Session
	More int
	End  bool // the user may end sessions
}

func readSessions(ctx context.Context, p *page, u *user) (any, error) {
	all, err := p.Live.Sessions(ctx)
	if err != nil {
		return nil, err
	}
	l := sessionList{End: u.May(conf.RoleOperate)}
	l.Rows, l.More = head(all)
	return l, nil
}

// head returns the first rows, and how many more there are.
func head[T any](rows []T) ([]T, int) {
	n := min(len(rows), maxRows)
	return rows[:n], len(rows) - n
}
