package conf

import (
	"path/filepath"
	"strconv"
	"time"
)

// file returns what a file says that is parsed to c: with absolute paths, without keys that
// have no value, and with sizes and durations in one form. It is the inverse of
// checker.config. Two configurations mean the same if their files are equal.
func (c *Config) file() *fileConfig {
	f := &fileConfig{
		DataDir:   textOf(c.DataDir),
		Ceph:      c.Pool.file(),
		Discovery: fileDiscovery{Authentication: c.DiscoveryAuthentication.file()},
		Memory:    sizeOf(c.MemoryTotal),
		Store:     c.Store.file(),
		Limits:    c.Limits.file(),
		QoS:       c.QoS.file(),
		Tokens:    c.Tokens.file(),
		API:       c.API.file(),
		Log:       c.Log.file(),
	}
	if c.Audit.File != "" {
		f.Audit = fileAudit{textOf(c.Audit.File), sizeOf(c.Audit.MaxSize), numberOf(int64(c.Audit.Keep))}
	}
	for i := range c.Peers {
		f.Peers = append(f.Peers, c.Peers[i].file())
	}
	f.Metrics.Listen = textOf(c.Metrics.Listen)
	for _, a := range c.Alerts {
		from := a.Secret.file()
		f.Alerts = append(f.Alerts, fileAlert{textOf(a.Name), textOf(a.URL), from.inline, from.file, from.env})
	}
	for i := range c.Replicas {
		f.Replicas = append(f.Replicas, c.Replicas[i].file())
	}
	for i := range c.Snapshots {
		f.Snapshots = append(f.Snapshots, c.Snapshots[i].file())
	}
	for _, p := range c.Portals {
		f.Portals = append(f.Portals, p.file())
	}
	for i := range c.Targets {
		f.Targets = append(f.Targets, c.Targets[i].file())
	}
	for i := range c.Views {
		f.Views = append(f.Views, c.Views[i].file())
	}
	for _, r := range c.CopyRules {
		f.Copy.Rules = append(f.Copy.Rules, fileCopyRule{namesOf(r.Initiators), mediaOf(r.From), mediaOf(r.To), boolOf(r.Allow)})
	}
	return f
}

// The following functions return the text of a value, or nil for the value that an absent
// key has.

func textOf(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func sizeOf(n int64) *string {
	if n == 0 {
		return nil
	}
	return new(FormatSize(n))
}

// number returns the text of a number whose absence is not 0.
func numberOf(n int64) *string { return new(strconv.FormatInt(n, 10)) }

func countOf(n int64) *string {
	if n == 0 {
		return nil
	}
	return numberOf(n)
}

func boolOf(b bool) *string { return new(strconv.FormatBool(b)) }

func durationOf(d time.Duration) *string {
	if d == 0 {
		return nil
	}
	return new(d.String())
}

func textsOf(list []string) (out []*string) {
	for _, s := range list {
		out = append(out, &s)
	}
	return out
}

func namesOf(patterns []NamePattern) (out []*string) {
	for _, p := range patterns {
		out = append(out, new(string(p)))
	}
	return out
}

// media returns names of volumes, files and backing files. An absolute path is that of a
// backing file; see checker.media.
func mediaOf(list []string) (out []*string) {
	for _, name := range list {
		if filepath.IsAbs(name) {
			name = "file:" + name
		}
		out = append(out, &name)
	}
	return out
}

func (p Portal) file() *filePortal {
	address := p.String()
	if p.Group != DefaultPortalGroup {
		address += "," + strconv.Itoa(int(p.Group))
	}
	return &filePortal{&address, textOf(p.Advertise)}
}

func (t *Target) file() fileTarget {
	f := fileTarget{Name: textOf(t.Name), Shard: countOf(int64(t.Shard)), Authentication: t.Authentication.file()}
	for i := range t.LUNs {
		f.LUNs = append(f.LUNs, t.LUNs[i].file())
	}
	for _, g := range t.PortalGroups {
		f.PortalGroups = append(f.PortalGroups, numberOf(int64(g)))
	}
	for _, p := range t.Paths {
		f.Paths = append(f.Paths, filePath{numberOf(int64(p.Group)), textOf(p.State), boolOf(p.Preferred)})
	}
	if t.FixedPaths != (len(t.Paths) > 0) {
		f.SetPaths = boolOf(!t.FixedPaths)
	}
	if t.Redirect != nil {
		f.Redirect = &fileRedirect{textOf(t.Redirect.To.String()), boolOf(t.Redirect.Permanent)}
	}
	for i := range t.Access {
		f.Access = append(f.Access, t.Access[i].file())
	}
	return f
}

func (l *LUN) file() fileLUN {
	f := fileLUN{
		LUN: numberOf(int64(l.Number)), Volume: textOf(l.Volume), File: textOf(l.File), View: textOf(l.View),
		Size: sizeOf(l.Size), BlockSize: numberOf(int64(l.BlockSize)), ReadOnly: boolOf(l.ReadOnly), Dedup: boolOf(!l.StoreDuplicates),
		QoS: l.Rate.file(), UnmapGranularity: sizeOf(l.UnmapGranularity), Identity: textOf(FormatIdentity(l.Identity)),
	}
	if l.Backing != "" {
		f.Backing = new(backingText(l.Backing))
	}
	if l.ISCSI != "" {
		f.Backing = &l.ISCSI
	}
	if l.Login != nil {
		f.Login = l.Login.file()
	}
	return f
}

func (l *Login) file() *fileLogin {
	s := l.Secret.file()
	f := &fileLogin{textOf(l.Name), s.inline, s.file, s.env, nil}
	if l.Mutual != nil {
		f.Mutual = l.Mutual.mutual()
	}
	return f
}

// mutual returns the entry of what a target proves itself with.
func (u *User) mutual() *fileMutual {
	s := u.Secret.file()
	return &fileMutual{textOf(u.Name), s.inline, s.file, s.env}
}

func (a *Access) file() fileAccess {
	f := fileAccess{Initiators: namesOf(a.Initiators), ReadOnly: boolOf(a.ReadOnly), Dedup: boolOf(!a.StoreDuplicates)}
	for _, p := range a.Addresses {
		address := p.String()
		if p.IsSingleIP() {
			address = p.Addr().String()
		}
		f.Addresses = append(f.Addresses, &address)
	}
	for _, m := range a.LUNs {
		f.LUNs = append(f.LUNs, fileMappedLUN{numberOf(int64(m.LUN)), numberOf(int64(m.As)), boolOf(m.ReadOnly)})
	}
	return f
}

func (a *Authentication) file() fileAuthentication {
	if len(a.Users) == 0 {
		return fileAuthentication{}
	}
	f := fileAuthentication{Required: boolOf(a.Required), Algorithms: textsOf(a.Algorithms)}
	for i := range a.Users {
		u := &a.Users[i]
		s := u.Secret.file()
		f.Users = append(f.Users, fileUser{textOf(u.Name), s.inline, s.file, s.env, namesOf(u.Initiators)})
	}
	if a.Mutual != nil {
		f.Mutual = a.Mutual.mutual()
	}
	return f
}

func (s Secret) file() (f fileSecret) {
	switch s.source {
	case secretInline:
		f.inline = textOf(s.text)
	case secretFile:
		f.file = textOf(s.text)
	case secretEnv:
		f.env = textOf(s.text)
	}
	return f
}

func (a *API) file() fileAPI {
	f := fileAPI{Listen: textOf(a.Listen), Certificate: textOf(a.Certificate), PrivateKey: textOf(a.PrivateKey)}
	for _, s := range a.Secrets {
		from := s.Secret.file()
		if s.Name == DefaultAPISecret {
			f.Secret, f.SecretFile, f.SecretEnv = from.inline, from.file, from.env
			continue
		}
		f.Secrets = append(f.Secrets, fileAPISecret{textOf(s.Name), textOf(string(s.Role)), from.inline, from.file, from.env})
	}
	return f
}

func (r Rate) file() fileRate {
	return fileRate{countOf(r.IOPS), countOf(r.IOPSBurst), sizeOf(r.BytesPerSecond), sizeOf(r.BytesBurst)}
}

func (q *QoS) file() fileQoS {
	f := fileQoS{Background: q.Background.file()}
	for _, i := range q.Initiators {
		r := i.Rate.file()
		f.Initiators = append(f.Initiators, fileInitiatorQoS{namesOf(i.Initiators), r.IOPS, r.IOPSBurst, r.BytesPerS, r.BytesBurst})
	}
	for _, l := range q.LUNs {
		r := l.Rate.file()
		f.LUNs = append(f.LUNs, fileLUNQoS{textOf(l.Target), numberOf(int64(l.LUN)), namesOf(l.Initiators), r.IOPS, r.IOPSBurst, r.BytesPerS, r.BytesBurst})
	}
	return f
}

func (s *Store) file() fileStore {
	f := fileStore{
		Capacity: sizeOf(s.Capacity), Cache: sizeOf(s.Cache), Dedup: boolOf(!s.StoreDuplicates), DedupUnit: sizeOf(int64(s.DedupUnit)),
		CleanIO: countOf(s.CleanIO >> 20), Copies: numberOf(int64(s.MetadataCopies)), ScrubIO: countOf(s.ScrubIO >> 20),
		SoftThreshold: numberOf(int64(s.SoftThreshold)),
	}
	const day = 24 * time.Hour
	switch {
	case s.ScrubEvery == 0:
		f.ScrubEvery = new("never")
	case s.ScrubEvery%day == 0:
		f.ScrubEvery = new(strconv.Itoa(int(s.ScrubEvery/day)) + "d")
	default:
		f.ScrubEvery = durationOf(s.ScrubEvery)
	}
	return f
}

func (l *Limits) file() fileLimits {
	f := fileLimits{
		Sessions: countOf(int64(l.Sessions)), SessionsPerInitiator: countOf(int64(l.SessionsPerInitiator)),
		ConnectionsPerSession: countOf(int64(l.ConnectionsPerSession)), Connections: countOf(int64(l.Connections)),
		Logins: countOf(int64(l.Logins)), LoginsPerAddress: countOf(int64(l.LoginsPerAddress)), LoginTimeout: durationOf(l.LoginTimeout),
		Commands: countOf(int64(l.Commands)), DataSegment: sizeOf(int64(l.DataSegment)),
		MaxBurst: sizeOf(int64(l.MaxBurst)), FirstBurst: sizeOf(int64(l.FirstBurst)), Buffers: sizeOf(l.Buffers),
		PingAfter: durationOf(l.PingAfter), PingTimeout: durationOf(l.PingTimeout), Snapshots: countOf(int64(l.Snapshots)),
	}
	if l.PingAfter == NoPings {
		f.PingAfter = new("0")
	}
	return f
}

func (t *Tokens) file() fileTokens {
	f := fileTokens{
		Max: countOf(int64(t.Max)), MaxPerInitiator: countOf(int64(t.MaxPerInitiator)), Memory: sizeOf(t.Memory), Held: sizeOf(t.Held),
		Size: sizeOf(t.Size), DigestSize: sizeOf(t.DigestSize), HashLifetime: countOf(int64(t.HashLifetime / time.Hour)),
		MinInactivity: durationOf(t.MinInactivity), DefaultInactivity: durationOf(t.DefaultInactivity), MaxInactivity: durationOf(t.MaxInactivity),
		UseRecords: countOf(int64(t.UseRecords)), WhenFull: textOf(t.WhenFull), UnderPressure: textOf(t.UnderPressure), Deletion: textOf(t.Deletion),
		RunningCopy: textOf(t.RunningCopy), Unmapped: textOf(t.Unmapped), Access: textOf(t.Access),
	}
	for _, g := range t.Groups {
		f.Groups = append(f.Groups, fileGroup{textOf(g.Name), namesOf(g.Initiators)})
	}
	for _, r := range t.Rules {
		f.Rules = append(f.Rules, fileTokenRule{textOf(string(r.Initiator)), textOf(r.Use), numberOf(int64(r.Priority)), textOf(r.Access)})
	}
	return f
}

func (v *View) file() fileView {
	f := fileView{Name: textOf(v.Name), Size: sizeOf(v.Size)}
	over := make([]*string, len(v.Over))
	for i, d := range v.Over {
		over[i] = new(d.String())
	}
	switch v.Kind {
	case ViewPartition:
		f.Partition = &filePartition{over[0], numberOf(int64(v.Number)), numberOf(int64(v.BlockSize))}
	case ViewStripe:
		f.Stripe = &fileStripe{over, sizeOf(v.StripeUnit)}
	case ViewMirror:
		f.Mirror = &fileLegs{over}
	case ViewCache:
		f.Cache = &fileCache{over[0], sizeOf(v.Memory), new("write-through")}
		if v.WriteBack {
			f.Cache.Mode = new("write-back")
		}
	case ViewVerify:
		f.Verify = &fileOver{over[0]}
	case ViewOrigin:
		f.Origin = &fileOver{over[0]}
	case ViewSnapshot:
		f.Snapshot = &fileOver{over[0]}
	}
	return f
}
