package snapshots

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"odx/admin"
	"odx/backstore"
	"odx/conf"
)

// prune deletes the snapshots that a policy does not keep, the oldest first, or says which
// those are. What something needs stays.
func (p *Policies) prune(ctx context.Context, c *conf.SnapshotPolicy, dryRun bool) ([]admin.PrunedSnapshot, error) {
	if !dryRun {
		if err := p.sweep(ctx); err != nil {
			return nil, err
		}
	}
	objects := p.ledger.objects()
	all := []admin.PrunedSnapshot{}
	var errs []error
	var gone []taken
	for _, list := range byVolume(p.ledger.of(c.Name), objects) {
		verdicts := decide(list, &c.Keep, p.now(), c.Schedule.Location())
		slices.Reverse(verdicts)
		for i := range verdicts {
			v := objects[verdicts[i].ID]
			s := admin.PrunedSnapshot{Snapshot: p.describe(v, &verdicts[i].taken, objects), Reasons: verdicts[i].reasons}
			if len(s.Reasons) == 0 {
				s.NeededBy = p.needed(s.Name)
			}
			if len(s.Reasons) == 0 && s.NeededBy == "" && !dryRun {
				err := p.delete(ctx, v)
				switch {
				case err == nil:
					s.Deleted = true
					gone = append(gone, verdicts[i].taken)
				case errors.Is(err, admin.ErrInUse):
					s.NeededBy = err.Error()
				default:
					s.NeededBy = err.Error()
					errs = append(errs, err)
				}
			}
			all = append(all, s)
		}
	}
	// The snapshot goes first: a record without one means nothing.
	return all, errors.Join(append(errs, p.ledger.forget(context.WithoutCancel(ctx), gone))...)
}

// deleted returns the names of the snapshots that were deleted.
func deleted(pruned []admin.PrunedSnapshot) (names []string) {
	for i := range pruned {
		if pruned[i].Deleted {
			names = append(names, pruned[i].Name)
		}
	}
	return names
}

// byVolume returns the snapshots that exist, a list for each volume or file that they are of,
// in the order of the names of the latest ones.
func byVolume(all []taken, objects map[identity]*backstore.Volume) [][]taken {
	of := map[identity][]taken{}
	for _, t := range all {
		if objects[t.ID] != nil {
			of[t.Of] = append(of[t.Of], t)
		}
	}
	first := func(list []taken) string {
		name := ""
		for _, t := range list {
			if n := nameOf(objects[t.ID]); name == "" || n < name {
				name = n
			}
		}
		return name
	}
	lists := make([][]taken, 0, len(of))
	for _, list := range of {
		lists = append(lists, list)
	}
	slices.SortFunc(lists, func(a, b []taken) int {
		if first(a) < first(b) {
			return -1
		}
		return 1
	})
	return lists
}

// needed returns what needs a snapshot; "" for nothing that the keeper knows of.
func (p *Policies) needed(name string) string {
	if p.o.Keeper == nil {
		return ""
	}
	by, ok := p.o.Keeper.Needed(name)
	if !ok {
		return ""
	}
	if by == "" {
		return "a replica"
	}
	return by
}

// delete deletes a snapshot; one that is gone already is as good.
func (p *Policies) delete(ctx context.Context, v *backstore.Volume) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := p.o.Store.DeleteByID(ctx, v.ID())
	if errors.Is(err, backstore.ErrNotFound) && v.Deleted() {
		return nil
	}
	if err != nil && !errors.Is(err, admin.ErrInUse) {
		return fmt.Errorf("%v: %w", v, err)
	}
	return err
}

// sweep deletes the records of snapshots that do not exist: that were deleted by hand, or that the
// end of the process prevented. No run of the same snapshots may be under way: theirs are
// there before they are.
func (p *Policies) sweep(ctx context.Context) error {
	all := p.ledger.of("")
	objects := p.ledger.objects()
	gone := slices.DeleteFunc(all, func(t taken) bool { return objects[t.ID] != nil })
	return p.ledger.forget(ctx, gone)
}
