package migrate

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"odx/admin"
	"odx/backstore"
	"odx/blockdev"
	"odx/conf"
	"odx/replica/pair"
)

// recordPrefix begins the keys of the records of migrations, and the identity of the volume
// in hexadecimal follows; recordVersion is their version.
const (
	recordPrefix  = "migrate/"
	recordVersion = 1
)

// record is durable: a migration.
type record struct {
	Version int    `json:"version"`
	Volume  string `json:"volume"`
	ID      string `json:"id"` // of the volume, in hexadecimal
	// ToVolume or ToView is the destination: of this store, or the volume of a peer.
	ToVolume string `json:"to_volume,omitempty"`
	ToView   string `json:"to_view,omitempty"`
	ToPeer   string `json:"to_peer,omitempty"`
	// ToISCSI is the LUN of another target, as conf.ParseISCSI returns it, and Login what it
	// is logged in to with; nil: nothing. Overwrite: what it has may be lost.
	ToISCSI   string       `json:"to_iscsi,omitempty"`
	Login     *loginRecord `json:"login,omitempty"`
	Overwrite bool         `json:"overwrite,omitempty"`
	// Pair names the migration to a peer on both sides, Portal is where initiators are
	// redirected to.
	Pair   pair.ID `json:"pair,omitzero"`
	Portal string  `json:"portal,omitempty"`
	// Identity is that of the logical unit, as the configuration writes it.
	Identity string               `json:"identity"`
	State    admin.MigrationState `json:"state"`
	// Made: the destination was created for the migration.
	Made bool `json:"made,omitempty"`
	// Base is the snapshot that the destination equals, but for what differs between it and
	// Next, of which parts may be there; 0 for none.
	Base uint64 `json:"base,omitempty"`
	Next uint64 `json:"next,omitempty"`
	// Done: up to this offset in bytes the destination equals Next, durably.
	Done int64 `json:"done,omitempty"`

	Rate     int64         `json:"rate,omitempty"`
	Throttle int64         `json:"throttle,omitempty"`
	Rounds   int           `json:"rounds,omitempty"`
	Copied   int64         `json:"copied,omitempty"`
	Cuts     int           `json:"cuts,omitempty"`
	Cut      time.Duration `json:"cut,omitempty"`
	Longest  time.Duration `json:"longest,omitempty"`
	Problem  string        `json:"problem,omitempty"`
	Began    time.Time     `json:"began"`
	Ended    time.Time     `json:"ended,omitzero"`
}

// to returns the destination that this server serves LUNs from; the zero value for one of
// another server.
func (r *record) to() conf.Device {
	if r.remote() {
		return conf.Device{}
	}
	return conf.Device{Volume: r.ToVolume, View: r.ToView, ISCSI: r.ToISCSI}
}

// remote reports whether the destination is another server.
func (r *record) remote() bool { return r.ToPeer != "" }

// destination names the destination as the request did.
func (r *record) destination() string {
	if r.remote() {
		return r.ToPeer + ":" + r.ToVolume
	}
	return r.to().String()
}

// key returns the key of the record.
func (r *record) key() []byte { return []byte(recordPrefix + r.ID) }

// encode returns the record as the store keeps it.
func (r record) encode() backstore.Record {
	r.Version = recordVersion
	value, _ := json.Marshal(r) // plain data cannot fail
	return backstore.Record{Key: r.key(), Value: value}
}

// decode reads a record.
func decode(key, value []byte) (r record, err error) {
	if err := json.Unmarshal(value, &r); err != nil {
		return r, fmt.Errorf("record of a migration: %w", err)
	}
	switch {
	case r.Version != recordVersion:
		return r, fmt.Errorf("record of a migration: version %d is not known", r.Version)
	case string(r.key()) != string(key):
		return r, fmt.Errorf("record of a migration: %q is that of another volume", key)
	case count(r.ToVolume, r.ToView, r.ToISCSI) != 1:
		return r, errors.New("record of a migration: no destination, or two")
	case r.Login != nil && r.ToISCSI == "":
		return r, errors.New("record of a migration: a login, and no LUN of another target")
	case r.remote() != (r.Pair != pair.ID{}) || r.remote() && r.ToVolume == "":
		return r, errors.New("record of a migration: a peer and no pair, or no volume of it")
	}
	if _, err := conf.ParseIdentity(r.Identity); err != nil {
		return r, fmt.Errorf("record of a migration: %w", err)
	}
	if r.Done < 0 {
		return r, fmt.Errorf("record of a migration: %d bytes done", r.Done)
	}
	if r.ToISCSI != "" {
		if url, err := conf.ParseISCSI(r.ToISCSI); err != nil || url != r.ToISCSI {
			return r, fmt.Errorf("record of a migration: invalid name %q of a LUN", r.ToISCSI)
		}
	}
	switch r.State {
	case admin.MigrationCopying, admin.MigrationHandingOver, admin.MigrationMoved, admin.MigrationAborting, admin.MigrationAborted:
		return r, nil
	}
	return r, fmt.Errorf("record of a migration: state %q is not known", r.State)
}

// count returns how many of the names are there.
func count(names ...string) (n int) {
	for _, name := range names {
		if name != "" {
			n++
		}
	}
	return n
}

// loginRecord is a login of CHAP; the secrets themselves are not stored.
type loginRecord struct {
	userRecord
	Mutual *userRecord `json:"mutual,omitempty"`
}

type userRecord struct {
	Name       string `json:"name"`
	SecretFile string `json:"secret_file,omitempty"`
	SecretEnv  string `json:"secret_env,omitempty"`
}

// loginRecordOf returns the record of a login; nil for none.
func loginRecordOf(l *conf.Login) (*loginRecord, error) {
	if l == nil {
		return nil, nil
	}
	u, err := userRecordOf(&l.User)
	out := &loginRecord{userRecord: u}
	if err == nil && l.Mutual != nil {
		u, err = userRecordOf(l.Mutual)
		out.Mutual = &u
	}
	return out, err
}

func userRecordOf(u *conf.User) (r userRecord, err error) {
	inline, file, variable := u.Secret.Source()
	switch {
	case u.Name == "":
		return r, fmt.Errorf("%w: a login without a name", blockdev.ErrInvalid)
	case inline != "":
		return r, fmt.Errorf("%w: the secret of %s would be kept in the store; give its file or its environment variable", blockdev.ErrInvalid, u.Name)
	case file == "" && variable == "":
		return r, fmt.Errorf("%w: the login of %s has no secret", blockdev.ErrInvalid, u.Name)
	}
	return userRecord{Name: u.Name, SecretFile: file, SecretEnv: variable}, nil
}

// conf returns the login as the configuration has it; nil for none.
func (l *loginRecord) conf() *conf.Login {
	if l == nil {
		return nil
	}
	out := &conf.Login{User: l.user()}
	if l.Mutual != nil {
		out.Mutual = new(l.Mutual.user())
	}
	return out
}

func (l *userRecord) user() conf.User {
	if l.SecretFile != "" {
		return conf.User{Name: l.Name, Secret: conf.FileSecret(l.SecretFile)}
	}
	return conf.User{Name: l.Name, Secret: conf.EnvSecret(l.SecretEnv)}
}
