package api

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	v1 "odx/api/v1"
	"odx/internal/kit/fields"
	"odx/replica/pair"
)

// modelReplicas are replicas that are only names and roles.
type modelReplicas struct{ all map[string]pair.Status }

func newModelReplicas() *modelReplicas { return &modelReplicas{map[string]pair.Status{}} }

func (m *modelReplicas) List(context.Context) ([]pair.Status, error) {
	list := []pair.Status{}
	for _, s := range m.all {
		list = append(list, s)
	}
	return list, nil
}

func (m *modelReplicas) Status(_ context.Context, name string) (pair.Status, error) {
	s, ok := m.all[name]
	if !ok {
		return s, fmt.Errorf("%w: %s", pair.ErrNoPair, name)
	}
	return s, nil
}

func (m *modelReplicas) Start(_ context.Context, r pair.StartRequest) error {
	m.all[r.Name] = pair.Status{Name: r.Name, Role: pair.Replica, Epoch: 1, Object: r.Name, Peer: r.Peer, PeerObject: r.Source}
	return nil
}

func (m *modelReplicas) Planned(string) pair.RoundOptions { return pair.RoundOptions{} }

func (m *modelReplicas) change(name string, set func(s *pair.Status)) error {
	s, err := m.Status(context.Background(), name)
	if err == nil {
		set(&s)
		m.all[name] = s
	}
	return err
}

func (m *modelReplicas) Round(_ context.Context, name string, _ pair.RoundOptions) (pair.Attempt, error) {
	return pair.Attempt{}, m.change(name, func(s *pair.Status) { s.Pinned = 1 })
}

func (m *modelReplicas) Pause(_ context.Context, name string, paused bool) error {
	return m.change(name, func(s *pair.Status) { s.Paused = paused })
}

func (m *modelReplicas) Failover(_ context.Context, name string, force bool, o pair.RoundOptions) (a *pair.Adopted, err error) {
	if o.Reservations {
		a = &pair.Adopted{Dropped: 2, Age: 90 * time.Second}
	}
	return a, m.change(name, func(s *pair.Status) { s.Role, s.Untold = pair.Source, force })
}

func (m *modelReplicas) Failback(_ context.Context, name string, o pair.FailbackOptions) (*pair.Adopted, error) {
	return nil, m.change(name, func(s *pair.Status) {
		if o.Stay {
			s.Role = pair.Replica
		}
	})
}

func (m *modelReplicas) Forget(_ context.Context, name string, _ bool) error {
	err := m.change(name, func(*pair.Status) {})
	delete(m.all, name)
	return err
}

// TestReplicaV1: no field of a status is forgotten, and the specification has all of them.
func TestReplicaV1(t *testing.T) {
	var s pair.Status
	fields.Fill(&s)
	s.Now.Expected, s.Last.Expected = s.Now.Fetched+1, s.Last.Fetched+1
	r := ReplicaV1(s)
	var adopted pair.Adopted
	fields.Fill(&adopted)
	r.Adopted = adoptedV1(&adopted)
	for _, v := range []reflect.Value{reflect.ValueOf(r), reflect.ValueOf(*r.Adopted), reflect.ValueOf(r.Now), reflect.ValueOf(*r.Last), reflect.ValueOf(r.Last.Bytes)} {
		for i := range v.NumField() {
			if v.Field(i).IsZero() {
				t.Errorf("%s.%s is not set", v.Type().Name(), v.Type().Field(i).Name)
			}
		}
	}
	schema := specification(t).Components.Schemas["Replica"].Value
	for _, name := range jsonNames(reflect.TypeFor[v1.Replica]()) {
		if schema.Properties[name] == nil {
			t.Errorf("docs/openapi.yaml: Replica has no %s", name)
		}
	}
}

func jsonNames(typ reflect.Type) (names []string) {
	for i := range typ.NumField() {
		name := typ.Field(i).Tag.Get("json")
		if at := slices.Index([]byte(name), ','); at >= 0 {
			name = name[:at]
		}
		names = append(names, name)
	}
	return names
}
